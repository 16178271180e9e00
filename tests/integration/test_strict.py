"""PYHUGETEXT_STRICT=1: only whole pages of text are moved, so nothing becomes executable that was not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile

from support.cli import own_shared_memory
from support.common import HUGE, TESTS, big_source, clean_environment, tool
from support.layouts import compile_object, link, skip_unless_huge
from support.preloaded import preload_library

STRICT = {"PYHUGETEXT_STRICT": "1"}
OFF = {**STRICT, "PYHUGETEXT": "0", "PYHUGETEXT_PRIVATE_LIMIT": "1G", "PYHUGETEXT_BUILD": "always"}
BACKINGS = ("file", "store", "shm", "memfd", "thp")

CHILD = """
    import ctypes, json, sys
    sys.path.insert(0, sys.argv[2])
    from support import child as h
    import pyhugetext
    from pyhugetext import _native
    path, backing = sys.argv[1], sys.argv[3]
    library = ctypes.CDLL(path)
    before = h.maps()

    def newly_executable():
        now = [line for line in h.maps() if "x" in line[2]]
        return [
            (hex(max(a[0], b[0])), a[2], a[5], b[5])
            for a in before if "x" not in a[2]
            for b in now if a[0] < b[1] and b[0] < a[1]
        ]

    told = {"results": [library.f_0(7)], "newly": []}
    stats = pyhugetext.remap(backing=backing, include=path)
    [region] = [r for r in stats.regions if r.path == path]
    told["swapped"], told["reason"], told["strict"] = region.swapped_bytes, region.reason, stats.strict
    told["coverable"], told["text"] = region.coverable_bytes, region.text_bytes
    told["newly"] += newly_executable()
    told["results"].append(library.f_0(7))
    # Who compares plans cannot leave it.
    _native.remap(**h.request(backing, path), inward=False)
    told["newly"] += newly_executable()
    pyhugetext.restore()
    told["restored"] = h.within(*h.span(path)) == [
        line for line in before if line[0] < h.span(path)[1] and line[1] > h.span(path)[0]
    ]
    told["results"].append(library.f_0(7))
    pyhugetext.remap(backing=backing, include=path)
    told["newly"] += newly_executable()
    print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 MB of text between constants, in mappings of their own."""
    directory = tmp_path_factory.mktemp("strict")
    source = (
        big_source(600, padding=10_000)
        + """
__asm__(".section .rodata\\n.balign 4096\\n.globl constants\\n.type constants,%object\\n"
        "constants:\\n.fill 3000000, 1, 0x5a\\n.size constants,.-constants\\n.text");
"""
    )
    made = compile_object(source, directory / "sample.o")
    return link(directory / "libsample.so", [made], None, "-shared", "-Wl,-z,separate-code")


@pytest.mark.parametrize("backing", BACKINGS)
def test_no_page_becomes_executable(python, sample, tmp_path, backing):
    if backing not in ("file", "store"):
        skip_unless_huge(backing)
    env = {**OFF, "PYHUGETEXT_STORE": str(tmp_path / "store")}
    prefix = own_shared_memory() if backing == "shm" else ()
    told = json.loads(
        python(CHILD, str(sample), str(TESTS), backing, env=env, prefix=prefix).stdout
    )
    assert told["strict"]
    assert told["newly"] == []
    assert told["restored"]
    assert len(set(told["results"])) == 1
    # For an ordinary user the store in shared memory is one in a user namespace, where none is trusted.
    if not told["swapped"] and (
        backing in ("file", "store") or (backing == "shm" and os.geteuid())
    ):
        pytest.skip(f"{backing}: {told['reason']}")
    assert 0 < told["swapped"] <= told["coverable"] < told["text"]


@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_without_it_border_pages_do(python, sample, backing):
    """What the tests above would see."""
    skip_unless_huge(backing)
    env = {**OFF, "PYHUGETEXT_STRICT": "0"}
    told = json.loads(python(CHILD, str(sample), str(TESTS), backing, env=env).stdout)
    assert not told["strict"]
    assert told["newly"]


START = """
    import ctypes, json, sys
    sys.path.insert(0, sys.argv[2])
    from support import child as h
    path = sys.argv[1]
    library = ctypes.CDLL(path)
    import pyhugetext
    if "remap" in sys.argv:
        pyhugetext.remap()
    stats = pyhugetext.stats()
    [region] = [r for r in stats.regions if r.path == path]
    print(json.dumps([stats.as_dict(), region._asdict(), h.maps(), library.f_0(7)]))
"""


def executable_spans(path: str, bias: int) -> list[tuple[int, int]]:
    with open(path, "rb") as file:
        headers = list(ELFFile(file).iter_segments("PT_LOAD"))
    return [
        (
            bias + h["p_vaddr"] // 4096 * 4096,
            bias + -(-(h["p_vaddr"] + h["p_memsz"]) // 4096) * 4096,
        )
        for h in headers
        if h["p_flags"] & P_FLAGS.PF_X
    ]


def check_all_in_text(lines: list[list], sample: Path) -> int:
    """That what is executable in the library's span is of its executable segments."""
    first = next(line for line in lines if line[5] == str(sample))
    spans = executable_spans(str(sample), first[0] - first[3])
    last = max(line[1] for line in lines if line[5] == str(sample))
    swapped = 0
    for start, end, permissions, _offset, _inode, path in lines:
        if "x" not in permissions or end <= first[0] or start >= last:
            continue
        assert any(low <= start and end <= high for low, high in spans), (hex(start), path)
        swapped += end - start if path != str(sample) else 0
    return swapped


def test_entries_that_others_made_are_used_without_their_borders(python, sample, tmp_path):
    usual = {"PYHUGETEXT_STORE": str(tmp_path / "store"), "PYHUGETEXT_BACKING": "store"}
    made = json.loads(python(START, str(sample), str(TESTS), "remap", env=usual).stdout)
    if made[1]["backing"] != "store":
        pytest.skip(f"no store here: {made[1]['reason']}")
    told = json.loads(
        python(START, str(sample), str(TESTS), "remap", env={**usual, **STRICT}).stdout
    )
    stats, region, lines, result = told
    assert stats["strict"]
    assert not made[0]["strict"]
    assert result == made[3]
    assert region["backing"] == "store"
    assert 0 < region["swapped_bytes"] < made[1]["swapped_bytes"]
    assert check_all_in_text(lines, sample) == region["swapped_bytes"]


def test_who_builds_an_entry_executes_nothing_of_it_but_text(python, sample, tmp_path):
    strace, log = tool("strace"), tmp_path / "log"
    env = {**STRICT, "PYHUGETEXT_STORE": str(tmp_path / "store"), "PYHUGETEXT_BACKING": "store"}
    prefix = (strace, "-f", "-y", "-e", "trace=mmap,mprotect", "-o", str(log))
    told = json.loads(
        python(START, str(sample), str(TESTS), "remap", env=env, prefix=prefix).stdout
    )
    if told[1]["backing"] != "store":
        pytest.skip(f"no store here: {told[1]['reason']}")
    ours = [line for line in told[2] if "/v1/objects/" in line[5] and line[5].endswith(sample.name)]
    assert ours
    assert all(line[2] == "r-xp" for line in ours if line[1] - line[0] >= HUGE)
    allowed = {at for line in ours for at in range(line[3], line[3] + line[1] - line[0], HUGE)}
    pattern = re.compile(
        r"mmap\(\S+ (\d+), PROT_READ\|PROT_EXEC, \S+ \d+<.*/v1/objects/.*/"
        + sample.name
        + r">, (\S+)\)"
    )
    seen = [
        int(offset, 0) + step
        for length, offset in pattern.findall(log.read_text())
        for step in range(0, int(length), HUGE)
    ]
    assert seen
    assert set(seen) <= allowed


def test_command_in_a_process_that_was_preloaded_and_turned_off_is_strict(sample, tmp_path):
    """Its engine is the preload library's, which read no settings at the start."""
    strace, log = tool("strace"), tmp_path / "log"
    own = {"LD_PRELOAD": str(preload_library()), "PYHUGETEXT_STORE": str(tmp_path / "store")}
    variables = [f"{name}={value}" for name, value in {**own, **STRICT}.items()]
    command = [strace, "-f", "-y", "-e", "trace=mmap,mprotect", "-o", str(log), "env", *variables,
               sys.executable, "-m", "pyhugetext", "warm", str(sample)]  # fmt: skip
    environ = clean_environment(PYHUGETEXT="0")
    subprocess.run(command, env=environ, check=True, capture_output=True)
    tried = [line for line in log.read_text().splitlines() if "/v1/objects/" in line]
    assert any("mmap(" in line for line in tried)
    assert not [line for line in tried if "PROT_EXEC" in line]


def test_what_has_no_whole_page_of_text_says_so(stats_of):
    stats = stats_of(env=STRICT)
    assert stats["strict"]
    told = [
        r for r in stats["regions"] if not r["coverable_bytes"] and r["reason"].startswith("strict")
    ]
    interpreter = [r for r in stats["regions"] if re.search(r"/(lib)?python3?[^/]*$", r["path"])]
    if all(r["text_bytes"] < 2 * HUGE for r in interpreter):
        assert told
        assert "PYHUGETEXT_STRICT" in told[0]["reason"]
    merged = stats_of()
    assert not merged["strict"]
    assert stats["coverable_bytes"] < merged["coverable_bytes"]


@pytest.mark.parametrize("value", ["yes", "2"])
def test_a_malformed_value_is_told(stats_of, value):
    stats = stats_of(env={"PYHUGETEXT_STRICT": value})
    assert not stats["strict"]
    assert any("PYHUGETEXT_STRICT" in problem for problem in stats["problems"])
