"""What BOLT made of objects, as python-build-standalone and uv hand them out: the text that runs is
in a second executable segment behind the writable one, at a multiple of 2 MiB, and the first
one keeps what is never run. Both are covered, and the store's copies are right."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile

from support.common import HUGE, Run, big_sum, tool
from support.layouts import (
    FUNCTIONS,
    POINTERS,
    PRELUDE,
    Oracle,
    check_record,
    compile_object,
    last_record,
    link,
    sample_source,
    skip_unless_huge,
)
from support.once import once
from support.store import Store, require_huge_disk

BOLT = ("llvm-bolt", *(f"llvm-bolt-{version}" for version in range(25, 13, -1)))
EXERCISE = f"""
library = ctypes.CDLL(path)
observe = lambda: (h.results_of(library, {FUNCTIONS}), h.pointers_of(library, {POINTERS * 8}))
results = observe()[0]
record = h.exercise(path, observe, sys.argv[2].split("+"))
record["sum"] = results[-1]
h.report(record)
"""


def optimized(source: Path, target: Path) -> Path:
    """What BOLT makes of an object that was linked with -Wl,-q; skips where it cannot."""
    command = [tool(*BOLT), str(source), "-o", str(target), "--relocs", "--use-old-text=0"]
    command += ["--align-text=2097152", "--lite=0", "--keep-nops"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode and "Unknown command line argument '--keep-nops'" in result.stderr:
        command.pop()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"{command[0]} does not work here: {result.stderr[-500:]}")
    return target


@pytest.fixture
def library() -> Path:
    for backing in ("memfd", "thp"):
        skip_unless_huge(backing)
    tool(*BOLT)

    def make(place: Path) -> None:
        # Long instructions: BOLT reads each.
        text = sample_source(padding=20_000)
        if platform.machine() == "x86_64":
            text = text.replace(".skip 20000, 0x90", ".nops 20000")
        source = compile_object(text, place / "sample.o")
        plain = link(place / "plain.so", [source], None, "-shared", "-Wl,-q")
        optimized(plain, place / "libbolted.so")

    return once("bolted", make) / "libbolted.so"


def segments(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return [s.header for s in ELFFile(file).iter_segments("PT_LOAD")]


def hot_pages(path: Path) -> int:
    """How many whole 2 MiB pages the segment has that BOLT wrote."""
    loads = segments(path)
    texts = [i for i, load in enumerate(loads) if load.p_flags & P_FLAGS.PF_X]
    writable = [i for i, load in enumerate(loads) if load.p_flags & P_FLAGS.PF_W]
    assert len(texts) == 2
    assert texts[0] < writable[0] < texts[1], "the layout that is meant"
    hot = loads[texts[1]]
    assert hot.p_vaddr % HUGE == 0
    return int(hot.p_memsz) // HUGE


def test_both_segments_are_covered_with_private_copies(python: Run, library: Path) -> None:
    env = {"PYHUGETEXT": "0", "PYHUGETEXT_PRIVATE_LIMIT": "unlimited"}
    record = last_record(python(PRELUDE + EXERCISE, str(library), "memfd+thp", env=env))
    assert record["sum"] == big_sum(11, FUNCTIONS)
    oracle = Oracle(library, record["maps"])
    check_record(record, oracle)
    assert oracle.coverable_bytes >= hot_pages(library) * HUGE > 0


def test_both_segments_come_from_the_store(library: Path, tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    code = f"""
import ctypes, json, sys
import pyhugetext
library = ctypes.CDLL(sys.argv[1])
library.f_sum.restype = ctypes.c_long
expected = library.f_sum(5)
for _ in range(2):
    pyhugetext.remap()
    (region,) = (r for r in pyhugetext.stats().regions if r.path == sys.argv[1])
    assert [library.f_sum(5), library.f_0(1), library.f_{FUNCTIONS - 1}(1)] == [
        expected, 3, {FUNCTIONS - 1} + 3]
    told = region._asdict()
    pyhugetext.restore()
    assert library.f_sum(5) == expected
print(json.dumps(told))
"""
    for _ in range(2):
        result = store.run(code, str(library), PYHUGETEXT="0")
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
    region = json.loads(result.stdout)
    assert (region["backing"], region["status"]) == ("store", "huge"), region
    assert region["mapped_bytes"] == region["coverable_bytes"] >= hot_pages(library) * HUGE
