"""Building objects of every layout, and an oracle that tells what of them can be covered: from
the program headers in the file and the mappings before, never from the package itself."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile

from support import child
from support.common import HUGE, TESTS, big_source, tool
from support.once import compiled

PAGE = 4096
FUNCTIONS = 600
POINTERS = 200_000
LINKERS = ("bfd", "gold", "lld", "mold")
LARGE_PAGES = "-Wl,-z,common-page-size=2097152,-z,max-page-size=2097152"

# What every child begins with. argv: the object's path.
PRELUDE = f"""
import ctypes, json, os, sys
sys.path.insert(0, {str(TESTS)!r})
from support import child as h
path = sys.argv[1]
"""


def compiler() -> str:
    return tool("gcc", "cc", "clang")


def sample_source(functions: int = FUNCTIONS, padding: int = 10_000) -> str:
    """big_source of 6 MB, with a table of POINTERS relocated addresses for .data.rel.ro, half by
    the name of a symbol and half relative to the load address; and some writable data."""
    return (
        big_source(functions, padding=padding)
        + f"""
__attribute__((used)) static int anchor(int x) {{ return x; }}
__asm__(".section .data.rel.ro,\\"aw\\"\\n.balign 8\\n.globl pointers\\n"
        ".type pointers,%object\\npointers:\\n.set i,0\\n"
        ".rept {POINTERS // 2}\\n.quad f_0+i, anchor+i\\n.set i,i+8\\n.endr\\n"
        ".size pointers,.-pointers\\n.text");
int counter = 42;
int next_count(void) {{ return ++counter; }}
"""
    )


def compile_object(source: str, target: Path, *flags: str) -> Path:
    """Compiles C to a position-independent object file."""
    return compiled(target, source, compiler(), "-O1", "-fPIC", "-c", libraries=flags)


def link(target: Path, objects: Sequence[Path], linker: str | None, *flags: str) -> Path:
    """Links a shared library (or, without -shared in the flags, a program) with one linker.
    Skips where it is missing or does not know a flag."""
    if linker is not None:
        if shutil.which(f"ld.{linker}") is None:
            pytest.skip(f"the linker {linker} is not installed")
        flags = (f"-fuse-ld={linker}", *flags)
    # Without fatal warnings an unknown -z is ignored, and the test would test another layout.
    command = [compiler(), "-o", str(target), *map(str, objects), "-Wl,--fatal-warnings", *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        unknown = re.search(r".*(unknown|unrecognized|unsupported|incompatible).*", result.stderr)
        if unknown:
            pytest.skip(f"{linker}: {unknown[0]}")
        pytest.fail(f"{command}: {result.stderr}")
    return target


class Oracle:
    """Bytes of executable text of the object at `path`, and how much of it lies in 2 MiB pages
    that hold nothing but what may be replaced. `maps` are the mappings before (child);
    `mapped_as` is the name there, where it is another one."""

    def __init__(
        self, path: Path, maps: list[Any], main: bool = False, mapped_as: str | None = None
    ) -> None:
        with path.open("rb") as file:
            elf = ELFFile(file)
            loads = [s.header for s in elf.iter_segments("PT_LOAD")]
            fixed = elf["e_type"] == "ET_EXEC"
        mine = [line for line in maps if line[5] == (mapped_as or str(path))]
        bias = 0 if fixed else mine[0][0] - down(loads[0].p_vaddr)
        inode = mine[0][4]

        # Every small page of the span: "w" of a writable segment, "x", "r", or absent.
        kinds: dict[int, str] = {}
        for load in sorted(loads, key=lambda load: bool(load.p_flags & P_FLAGS.PF_W)):
            flags = load.p_flags
            kind = "w" if flags & P_FLAGS.PF_W else "x" if flags & P_FLAGS.PF_X else "r"
            start, end = bias + load.p_vaddr, bias + load.p_vaddr + load.p_memsz
            for at in range(down(start), end, PAGE):
                kinds[at] = kind
        low, high = min(kinds), max(kinds) + PAGE

        mapped: dict[int, Any] = {}
        for line in maps:
            start = max(line[0], low // HUGE * HUGE)
            for at in range(start, min(line[1], high + HUGE), PAGE):
                mapped[at] = line

        def replaceable(at: int) -> bool:
            if at in kinds:
                return kinds[at] != "w"
            line = mapped.get(at)
            if line is None:
                # Free addresses beyond the span stay after dlclose, so only the executable, which
                # never goes away, may take them.
                return main or low <= at < high
            return low <= at < high and "w" not in line[2] and line[4] in (0, inode)

        self.text_bytes = PAGE * sum(kind == "x" for kind in kinds.values())
        self.coverable_bytes = 0
        self.aligned = bias % HUGE == 0
        for huge in range(low // HUGE * HUGE, high, HUGE):
            small = range(huge, huge + HUGE, PAGE)
            text = PAGE * sum(kinds.get(at) == "x" for at in small)
            if text and all(map(replaceable, small)):
                self.coverable_bytes += text


def down(address: int) -> int:
    return address // PAGE * PAGE


def last_record(result: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(result.stdout.splitlines()[-1])


def check_record(record: dict[str, Any], oracle: Oracle) -> None:
    """What holds for an object that child.exercise went over."""
    assert record["observed"], "the sample itself is not repeatable"
    for backing, step in record["backings"].items():
        region = step["region"]
        assert region["text_bytes"] == oracle.text_bytes, backing
        assert region["coverable_bytes"] == oracle.coverable_bytes, backing
        assert region["mapped_bytes"] == region["coverable_bytes"], region
        assert (region["backing"], region["status"]) == (backing, "huge"), region
        assert region["huge_bytes"] == region["swapped_bytes"] == step["smaps"], region
        assert step["writable and executable"] == [], backing
        assert step["restored"]["mapped_bytes"] == step["restored"]["huge_bytes"] == 0
        assert step["restored"]["backing"] == "none"
        for name in (
            "same results",
            "same bytes",
            "same results restored",
            "same bytes restored",
        ):
            assert step[name], (backing, name)
        assert step["same maps restored"], (record["maps"], step["maps restored"])


def skip_unless_huge(backing: str) -> None:
    """Skips where this kernel has no 2 MiB pages of a kind, asked without the package's help."""
    area = mmap.mmap(-1, 2 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -(-ctypes.addressof(ctypes.c_char.from_buffer(area)) // HUGE) * HUGE
    aligned, size = ctypes.c_void_p(start), ctypes.c_size_t(HUGE)
    libc = ctypes.CDLL(None)
    if backing == "memfd":
        fd = os.memfd_create("probe")
        os.ftruncate(fd, HUGE)
        fixed = mmap.MAP_SHARED | 0x10  # MAP_FIXED
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap(aligned, size, mmap.PROT_READ | mmap.PROT_WRITE, fixed, fd, ctypes.c_long(0))
        os.close(fd)
    libc.madvise(aligned, size, 14)  # MADV_HUGEPAGE
    ctypes.memset(aligned, 1, HUGE)
    libc.madvise(aligned, size, 25)  # MADV_COLLAPSE
    if not child.huge_bytes(start - HUGE, start + 2 * HUGE):
        pytest.skip(f"this kernel gives no 2 MiB pages to {backing} memory")


@contextmanager
def hugetlb_pool(pages: int) -> Iterator[None]:
    """`pages` more huge pages in the reserved pool, and the old size afterwards. Skips where that
    cannot be."""
    file = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    try:
        before = int(file.read_text())
        file.write_text(str(before + pages))
    except OSError as error:
        pytest.skip(f"no pool of huge pages can be made: {error}")
    try:
        if int(file.read_text()) < before + pages:
            pytest.skip("no pool of huge pages can be made: memory is too fragmented")
        yield
    finally:
        file.write_text(str(max(int(file.read_text()) - pages, 0)))
