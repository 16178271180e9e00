"""Copies of ELF objects in use: under the debugger, swapped into a process, next to the core's
plan; and those of the large objects of this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from support.common import PREFIX, tool
from support.copies import Refused, lay_out
from support.elf import (
    HUGE,
    LIBRARIES,
    LONG_RPATH,
    NATIVE,
    PAGE,
    Workshop,
    check_sections,
    check_segments,
    check_tools,
    loads,
    patchelf,
    ranges_of,
)


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


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_library_works_on_its_copy_at_an_odd_address(
    linker: str, shop: Workshop, run_live: Callable[[Path], dict[str, Any]]
) -> None:
    # Of a file on tmpfs the kernel does not align the mapping.
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("/dev/shm is not writable")
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix=PREFIX) as directory:
        original = Path(shutil.copy(shop.library(linker), directory))
        seen = run_live(original)
        if seen["base"] % HUGE == 0:
            pytest.skip("the kernel aligned the library after all")
        check_live(original, seen)


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


DEBUGGED = """
import ctypes, os, signal, sys
import pyhugetext
library = ctypes.CDLL(sys.argv[1])
region = next(r for r in pyhugetext.remap().regions if r.path == sys.argv[1])
print(region.backing, region.status)
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: library.sample_far(x))
os.kill(os.getpid(), signal.SIGUSR1)
library.sample_through(callback, 5, ctypes.byref(ctypes.c_int()))
"""


def test_debugger_finds_its_way_through_a_swapped_library(
    shop: Workshop, python: Callable[..., Any], tmp_path: Path
) -> None:
    path = shop.library()
    settings = {
        "PYHUGETEXT_STORE": str(tmp_path / "store"),
        "PYHUGETEXT_BACKING": "store",
        "PYHUGETEXT_BUILD": "always",
        "PYHUGETEXT_INCLUDE": str(path),
    }
    # The breakpoint comes after the swap: one that was there before would have prevented it.
    commands = [
        "set debuginfod enabled off", "handle SIGUSR1 stop nopass", "run", "break sample_far",
        "continue", "backtrace", "info symbol $pc", "delete", "continue",
    ]  # fmt: skip
    prefix = [tool("gdb"), "-nx", "-batch"]
    prefix += [part for command in commands for part in ("-ex", command)]
    result = python(DEBUGGED, str(path), env=settings, prefix=(*prefix, "--args"), check=False)
    if "Operation not permitted" in result.stderr:
        pytest.skip("ptrace is not permitted here")
    if "none small" in result.stdout:
        pytest.skip("no store here")
    output = result.stdout
    assert "store huge" in output, output + result.stderr
    assert re.search(r"#0 +sample_far \(x=5\) at .*sample_library.cpp", output), output
    assert re.search(r"#\d+ .* in sample_through \(callback=", output), output
    assert f"sample_far in section .text of {path}" in output
    assert "exited normally" in output


EMBEDDING = """
#include <dlfcn.h>
int sample_check(int);
int main(int argc, char **argv) {
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    if (!library || sample_check(17)) return 99;
    int (*run)(int, char **) = (int (*)(int, char **))dlsym(library, "Py_BytesMain");
    return run ? run(argc - 2, argv + 2) : 98;
}
"""


@pytest.mark.parametrize("flags", [("-pie",), ("-no-pie",)], ids=["pie", "no-pie"])
def test_text_of_an_embedding_program_comes_from_the_store(
    flags: tuple[str, ...], shop: Workshop, python: Callable[..., Any], tmp_path: Path
) -> None:
    library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
    multiarch = Path(library.parent, sysconfig.get_config_var("MULTIARCH") or "", library.name)
    found = next((p for p in (library, multiarch) if ".so" in p.name and p.is_file()), None)
    if found is None:
        # Debian's interpreter is static and has the shared library besides.
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        found = next(iter(Path("/usr/lib").glob(f"*-linux-*/libpython{version}.so.1.0")), None)
    if found is None:
        pytest.skip("this interpreter has no shared libpython to embed")
    source = tmp_path / "embedding.c"
    source.write_text(EMBEDDING)
    program = shop.link("bfd", *flags, "-x", "c", source, "-ldl", name="embedding")
    code = (
        "import json, pyhugetext; from pyhugetext import _native\n"
        "pyhugetext.remap()\n"
        "regions = _native.snapshot()['regions']\n"
        "print(json.dumps(regions[0], default=str))\n"  # the program itself
    )
    settings = {
        "PYHUGETEXT_STORE": str(tmp_path / "store"),
        "PYHUGETEXT_BACKING": "store",
        "PYHUGETEXT_BUILD": "always",
        "PYHUGETEXT_INCLUDE": str(program),
    }
    result = python(code, env=settings, prefix=(str(program), str(found)))
    main = json.loads(result.stdout)
    with open(program, "rb") as file:
        headers = loads(ELFFile(file))
    bias = main["low"] - headers[0].p_vaddr // PAGE * PAGE
    spans = ranges_of(lay_out(program, bias % HUGE))
    assert main["pages"]
    for start, end, *_ in main["pages"]:
        assert any(a <= start - bias and end - bias <= b for a, b in spans)
    if main["backing"] != _native_backing("store"):
        pytest.skip("no store here")
    assert all(swapped for _, _, swapped, _ in main["pages"])


def _native_backing(name: str) -> int:
    return ("none", "file", "store", "shm", "memfd", "thp", "hugetlb").index(name)


PLANS = """
import importlib, json, sys
import pyhugetext
from pyhugetext import _native
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
pyhugetext.remap()
print(json.dumps([(r["path"], r["low"], [page[:2] for page in r["pages"]])
                  for r in _native.snapshot()["regions"] if r["pages"]]))
"""


def check_plans(python: Callable[..., Any], *modules: str) -> int:
    """Holds the ranges of every object of a process against the core's plan."""
    result = python(
        PLANS, *modules, env={"PYHUGETEXT_BUILD": "never", "PYHUGETEXT_BACKING": "store"}
    )
    plans = json.loads(result.stdout.splitlines()[-1])
    for name, low, pages in plans:
        path = Path(name)
        with open(path, "rb") as file:
            bias = low - loads(ELFFile(file))[0].p_vaddr // PAGE * PAGE
        spans = ranges_of(lay_out(path, bias % HUGE))
        for start, end in pages:
            assert any(a <= start - bias and end - bias <= b for a, b in spans), name
    return len(plans)


def test_ranges_hold_all_that_the_core_plans(python: Callable[..., Any]) -> None:
    assert check_plans(python, "ssl", "sqlite3", "numpy", "unicodedata")


@pytest.mark.heavy
def test_ranges_hold_all_that_the_core_plans_of_large_wheels(python: Callable[..., Any]) -> None:
    pytest.importorskip("pyarrow", reason="the heavy wheels are not installed")
    modules = ("torch", "pyarrow", "pandas", "duckdb", "polars", "scipy.linalg", "sqlalchemy")
    assert check_plans(python, *modules) > 3


def objects_here() -> list[Path]:
    """The interpreter, and the largest libraries next to the C library, of those that differ."""
    found = [Path(os.path.realpath(sys.executable))]
    libc = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/self/maps').read())"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYHUGETEXT": "0"},
    ).stdout  # fmt: skip
    directories = {Path(line.split()[-1]).parent for line in libc.splitlines() if "/" in line}
    for directory in sorted(directories):
        libraries = [p for p in directory.glob("*.so*") if p.is_file() and not p.is_symlink()]
        sized = [(p.stat().st_size, p) for p in libraries]
        found += [p for size, p in sorted(sized) if HUGE < size < 12 * HUGE][-8:]
    return sorted(set(found))


@pytest.mark.parametrize("path", objects_here(), ids=lambda path: path.name)
@pytest.mark.parametrize("bias", [0, 0x1FF000], ids=hex)
def test_copies_of_objects_of_this_machine(path: Path, bias: int, shop: Workshop) -> None:
    try:
        copied = shop.copy(path, bias)
    except Refused as error:
        pytest.skip(f"it {error}")
    check_segments(copied)
    check_sections(copied)
    check_tools(copied)


def test_interpreter_runs_from_a_copy(shop: Workshop) -> None:
    program = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
    environ = {**os.environ, "PYTHONHOME": sys.base_prefix, "PYHUGETEXT": "0"}
    if ".so" in library.name and library.is_file():
        environ["LD_PRELOAD"] = str(shop.copy(library).path)
    else:
        program = shop.copy(program).path
        program.chmod(0o755)
    code = "print(6 * 7, any('/copy-0/' in line for line in open('/proc/self/maps')))"
    result = subprocess.run(
        [program, "-I", "-S", "-c", code],
        capture_output=True, text=True, check=True, timeout=60, env=environ,
    )  # fmt: skip
    assert result.stdout == "42 True\n"
