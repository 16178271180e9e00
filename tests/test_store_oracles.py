"""Copies of ELF objects in use: under the debugger, swapped into a process, next to the core's plan
and to a model of it, and the large objects of this machine."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from helpers_elf import (
    HUGE,
    LIBRARIES,
    LONG_RPATH,
    NATIVE,
    Workshop,
    lay_out,
    loads,
    patchelf,
    ranges_of,
    tool,
)


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path, tmp_path_factory)


@pytest.mark.parametrize("flag", ["-g", "-Wl,--compress-debug-sections=zlib"])
def test_debugger_finds_the_same_in_the_copy(flag: str, shop: Workshop) -> None:
    original = shop.library("bfd", flag)
    copied = shop.copy(original)
    commands = ["info files", "info line sample_far", "info symbol sample_far", "list main"]
    answers = [gdb(path, commands) for path in (original, copied.path)]
    assert any("sample_library.cpp" in line for line in answers[0])
    assert answers[0] == answers[1]


def gdb(path: Path, commands: list[str]) -> list[str]:
    """What gdb answers, without lines that name the file, and without its warning about sections
    that lie in two segments."""
    arguments = [part for command in commands for part in ("-ex", command)]
    result = subprocess.run(
        [tool("gdb"), "-nx", "-batch", *arguments, path],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    lines = [line for line in (result.stdout + result.stderr).splitlines() if str(path) not in line]
    return [line for line in lines if line.strip() and "outside of ELF segments" not in line]


LIVE = """
import ctypes, json, sys
from pathlib import Path
from pyhugetext import _native
import pyhugetext

path, caller = sys.argv[1:]
library = ctypes.CDLL(path)
library.sample_word.restype = ctypes.c_uint64
caller = ctypes.CDLL(caller)

class Info(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p),
                ("symbol", ctypes.c_char_p), ("address", ctypes.c_void_p)]

def check():
    assert library.sample_check(17) == 0
    assert caller.caller_check(library.sample_through) == 0
    assert library.sample_headers() == 7
    info = Info()
    assert ctypes.CDLL(None).dladdr(library.sample_far, ctypes.byref(info))
    assert info.file.decode() == path and info.symbol == b"sample_far"
    return info.base

def mappings():
    out = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, offset, device, inode, *rest = line.split(None, 5)
        start, end = (int(n, 16) for n in span.split("-"))
        if low <= start < high:
            out.append((start, end, permissions, rest[0] if rest else ""))
    return out

low, high = next((r["low"], r["high"]) for r in _native.snapshot()["regions"] if r["path"] == path)
base = check()
before = {(a, b): ctypes.string_at(a, b - a) for a, b, p, f in mappings() if p[:2] == "r-" and f}
stats = pyhugetext.remap()
check()
region = next(r for r in stats.as_dict()["regions"] if r["path"] == path)
raw = next(r for r in _native.snapshot()["regions"] if r["path"] == path)
changed = []
for (a, b), data in before.items():
    now = ctypes.string_at(a, b - a)
    changed += [a - base + i for i in range(b - a) if now[i] != data[i]] if now != data else []
print(json.dumps({
    "base": base,
    "region": region,
    "pages": [page[:3] for page in raw["pages"]],
    "mappings": [(a - base, b - base, p, f) for a, b, p, f in mappings()],
    "changed": changed,
}))
"""


@pytest.fixture
def run_live(python: Callable[..., Any], tmp_path: Path) -> Callable[[Path], dict[str, Any]]:
    """Loads a library in a child, swaps its text for the store's and tells what it saw."""
    caller = tmp_path / "libcaller.so"
    source = NATIVE / "sample_caller.cpp"
    subprocess.run([tool("g++"), "-O1", "-shared", "-fPIC", "-o", caller, source], check=True)

    def run_live(path: Path) -> dict[str, Any]:
        settings = {
            "PYHUGETEXT_STORE": str(tmp_path / "store"),
            "PYHUGETEXT_BACKING": "store",
            "PYHUGETEXT_BUILD": "always",
            "PYHUGETEXT_INCLUDE": str(path),
            "PYHUGETEXT_MIN_TEXT": "0",
        }
        result = python(LIVE, str(path), str(caller), env=settings)
        parsed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        if not parsed["region"]["swapped_bytes"]:
            pytest.skip(f"no store here: {parsed['region']['reason']}")
        return parsed

    return run_live


@pytest.mark.parametrize("name", LIBRARIES)
def test_library_works_on_its_copy(
    name: str, shop: Workshop, run_live: Callable[[Path], dict[str, Any]]
) -> None:
    original = shop.library(*LIBRARIES[name])
    seen = run_live(original)
    check_live(original, seen)


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_patched_library_works_on_its_copy(
    linker: str, shop: Workshop, run_live: Callable[[Path], dict[str, Any]]
) -> None:
    original = shop.library(linker)
    patchelf(original, *LONG_RPATH)
    check_live(original, run_live(original))


def check_live(original: Path, seen: dict[str, Any]) -> None:
    bias = seen["base"] % HUGE
    spans = ranges_of(lay_out(original, bias))
    planned = [(a - seen["base"], b - seen["base"]) for a, b, _ in seen["pages"]]
    assert planned
    for start, end in planned:
        assert any(a <= start and end <= b for a, b in spans)
    assert all(swapped for _, _, swapped in seen["pages"])
    assert seen["region"]["status"] == "huge", seen["region"]["reason"]
    # What maps shows is what the copy's program headers say.
    copies = {f for _, _, p, f in seen["mappings"] if "/store/" in f}
    assert len(copies) == 1
    copied = Path(copies.pop())
    assert copied.name == original.name
    with open(copied, "rb") as file:
        headers = loads(ELFFile(file))
    permissions = {4: "r--p", 5: "r-xp", 6: "rw-p"}
    for start, end, shown, _ in seen["mappings"]:
        flags = {
            permissions[h.p_flags]
            for h in headers
            if h.p_vaddr < end and h.p_vaddr + h.p_memsz > start
        }
        if shown == "r--p" and flags == {"rw-p"}:
            continue  # RELRO
        assert not flags or flags == {shown}
    # Only the ELF header and the program headers in memory are the copy's.
    data = original.read_bytes()
    table = struct.unpack_from("<Q", data, 32)[0]
    table_end = table + 56 * struct.unpack_from("<H", data, 56)[0]
    assert all(at < 64 or table <= at < table_end for at in seen["changed"])


def test_debugger_finds_its_way_through_a_swapped_library(
    shop: Workshop, python: Callable[..., Any], tmp_path: Path
) -> None:
    path = shop.library()
    code = (
        "import ctypes, pyhugetext, sys, time\n"
        "library = ctypes.CDLL(sys.argv[1])\n"
        "assert pyhugetext.remap().mapped_bytes\n"
        "callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x)\n"
        "library.sample_through(callback, 1, ctypes.byref(ctypes.c_int()))\n"
        "library.sample_far(5)\n"
    )
    settings = {
        "PYHUGETEXT_STORE": str(tmp_path / "store"),
        "PYHUGETEXT_BACKING": "store",
        "PYHUGETEXT_BUILD": "always",
        "PYHUGETEXT_INCLUDE": str(path),
    }
    prefix = [
        tool("gdb"), "-nx", "-batch", "-ex", "set breakpoint pending on", "-ex",
        "set debuginfod enabled off", "-ex", "break sample_far", "-ex", "run", "-ex", "backtrace",
        "-ex", "info symbol $pc", "-ex", "continue", "--args",
    ]  # fmt: skip
    result = python(code, str(path), env=settings, prefix=tuple(prefix), check=False)
    if "ptrace: Operation not permitted" in result.stderr:
        pytest.skip("ptrace is not permitted here")
    assert "sample_far (x=5)" in result.stdout, result.stdout + result.stderr
    assert "sample_far in section .text.zfar" in result.stdout or "sample_far" in result.stdout
    assert "exited normally" in result.stdout
