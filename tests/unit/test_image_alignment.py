"""The eight bytes that make an object come to a multiple of 2 MiB: pyelftools is the oracle."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from pyhugetext.cli import installed
from pyhugetext.image import alignment
from pyhugetext.image.alignment import ALIGNED, CAN, CANNOT, FIXED, Asked, Patch
from pyhugetext.process import elf, linker
from support.elf import LIBRARIES, Workshop
from support.raw_elf import HUGE, PAGE, PHDR, Part, blank_elf, header, small_elf


@contextmanager
def opened(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("object")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def ask(data: bytes) -> Asked | None:
    with opened(data) as fd:
        head = installed.read_head(fd)
        return None if head is None else alignment.ask(fd, head)


def changed(data: bytes, patch: Patch) -> bytes:
    assert int.from_bytes(data[patch.at : patch.at + 8], "little") == patch.old
    return data[: patch.at] + patch.data + data[patch.at + 8 :]


def told(data: bytes) -> list[dict[str, int]]:
    """All program headers, as pyelftools reads them."""
    return [dict(segment.header) for segment in ELFFile(io.BytesIO(data)).iter_segments()]


@pytest.mark.parametrize("name", ["bfd", "bfd-64k", "bfd-noseparate", "gold", "lld", "mold"])
def test_alignment_of_the_first_segment_is_all_that_changes(shop: Workshop, name: str) -> None:
    linker, *flags = LIBRARIES[name]
    data = shop.library(linker, *flags).read_bytes()
    asked = ask(data)
    assert asked is not None
    assert (asked.state, asked.bias) == (CAN, 0), asked.reason
    assert asked.patch is not None
    new = changed(data, asked.patch)
    before, after = told(data), told(new)
    first = next(i for i, one in enumerate(before) if one["p_type"] == "PT_LOAD")
    assert after[first] == {**before[first], "p_align": HUGE}
    assert [*after[:first], *after[first + 1 :]] == [*before[:first], *before[first + 1 :]]

    again = ask(new)
    assert again is not None
    assert (again.state, again.patch) == (ALIGNED, asked.patch.reverse)
    assert changed(new, asked.patch.reverse) == data


ALIGNED_SECTION = (
    '.section .rodata.table, "a"\n.balign 32768\n.long 1\n.section .note.GNU-stack, ""\n'
)


@pytest.mark.parametrize(("name", "align"), [("bfd", PAGE), ("lld", 32 << 10)])
def test_a_segment_with_an_aligned_section_is_aligned_and_put_back(
    shop: Workshop, tmp_path: Path, name: str, align: int
) -> None:
    # As in the libraries of jax and in OpenBLAS: one segment asks for more than the others.
    source = tmp_path / "table.s"
    source.write_text(ALIGNED_SECTION)
    file, *flags = LIBRARIES[name]
    data = shop.library(file, *flags, source).read_bytes()
    loads = [one["p_align"] for one in told(data) if one["p_type"] == "PT_LOAD"]
    assert (loads[0], {*loads}) == (align, {PAGE, 32 << 10})
    asked = ask(data)
    assert asked is not None
    assert (asked.state, asked.bias) == (CAN, 0), asked.reason
    assert asked.patch is not None
    again = ask(changed(data, asked.patch))
    assert again is not None
    assert (again.state, again.patch) == (ALIGNED, asked.patch.reverse)


@pytest.mark.parametrize("name", ["bfd-2m", "lld-2m"])
def test_what_its_linker_aligned_is_not_changed_nor_put_back(shop: Workshop, name: str) -> None:
    linker, *flags = LIBRARIES[name]
    asked = ask(shop.library(linker, *flags).read_bytes())
    assert asked == Asked(ALIGNED, 0)


@pytest.mark.parametrize("name", ["bfd-64k", "bfd-2m"])
def test_only_what_asks_for_2_mib_or_for_nothing_is_expected_there(
    shop: Workshop, name: str
) -> None:
    if linker.why_not_honoured():
        pytest.skip(linker.why_not_honoured())
    file, *flags = LIBRARIES[name]
    path = shop.library(file, *flags)
    with open(path, "rb") as opened_file:
        head = installed.read_head(opened_file.fileno())
        assert head is not None
        assert installed.comes_aligned(head, opened_file.fileno()) == (name == "bfd-2m")
    assert installed.lesser_alignment_of(str(path)) == (0 if name == "bfd-2m" else 64 << 10)


def test_program_with_addresses_of_its_own_needs_nothing(shop: Workshop) -> None:
    flags = ("-nostdlib", "-no-pie", "-Wl,-e0", "-Wl,--unresolved-symbols=ignore-all")
    assert ask(shop.link("bfd", *flags, name="program").read_bytes()) == Asked(FIXED, 0)


LIBRARY = [
    Part(0, 0x1000, 0x1000, 4),
    Part(0x1000, 5 << 20, 5 << 20, 5),
    Part(0x700000, 0x1000, 0x2000, 6),
]


def with_first(**fields: int) -> bytes:
    """A library whose first program header has other fields."""
    names = ("type", "flags", "offset", "address", "physical", "filesz", "memsz", "align")
    head = bytearray(blank_elf(LIBRARY).head)
    row = dict(zip(names, PHDR.unpack_from(head, 64)))
    PHDR.pack_into(head, 64, *{**row, **fields}.values())
    return bytes(head)


def test_reasons_say_what_is_in_the_way() -> None:
    for fields, words in (
        ({"offset": 0x1000}, "differ modulo 2 MiB"),
        ({"address": 0x1000}, "differ modulo 2 MiB"),
        ({"align": 0x3000}, "none that a linker makes"),
        ({"align": 1}, "none that a linker makes"),
        ({"align": 0x10000}, "could not be put back"),
    ):
        asked = ask(with_first(**fields))
        assert asked is not None
        assert asked.state == CANNOT
        assert words in asked.reason, fields


def test_what_is_put_back_is_legal_whatever_the_file_says() -> None:
    # Somebody wrote 2 MiB there, and nonsense beside: what nobody could have aligned is nobody's to
    # put back.
    for others in (0, 1, 0x3000, HUGE, 1 << 40, (1 << 64) - 1):
        data = bytearray(with_first(align=HUGE))
        for number in (1, 2):
            struct.pack_into("<Q", data, 64 + number * PHDR.size + 48, others)
        asked = ask(bytes(data))
        assert asked is None or asked.patch is None, others


HEAD = len(small_elf()) - 1


@given(
    st.sampled_from([small_elf(), blank_elf(LIBRARY).head]),
    st.lists(st.tuples(st.integers(0, 64 + 6 * PHDR.size), st.integers(0, 255)), max_size=8),
    st.integers(0, HEAD),
)
def test_broken_file_is_refused_or_changed_legally(
    data: bytes, edits: list[tuple[int, int]], cut: int
) -> None:
    broken = bytearray(data)
    for at, value in edits:
        if at < len(broken):
            broken[at] = value
    if cut % 3 == 0:
        del broken[cut:]
    with opened(bytes(broken)) as fd:
        head = installed.read_head(fd)
        elf.section_names(fd)
        if head is None:
            return
        asked = alignment.ask(fd, head)
        assert os.pread(fd, len(broken) + 1, 0) == broken
    if asked.state != CAN:
        return
    assert asked.patch is not None
    new = changed(bytes(broken), asked.patch)
    (first, *rest) = [one for one in told(new) if one["p_type"] == "PT_LOAD"]
    assert first["p_align"] == asked.patch.new == HUGE
    assert (first["p_vaddr"] - first["p_offset"]) % HUGE == 0
    assert asked.patch.old in (1 << shift for shift in range(12, 21))
    assert min(one["p_align"] for one in rest if one["p_align"] >= PAGE) <= asked.patch.old
    again = ask(new)
    assert again is not None
    assert (again.state, again.patch) == (ALIGNED, asked.patch.reverse)
    assert (asked.bias + first["p_vaddr"]) % HUGE == 0


def test_table_that_moved_since_is_not_taken_for_the_one_that_was_read() -> None:
    data = blank_elf(LIBRARY).head
    with opened(data) as fd:
        head = installed.read_head(fd)
        assert head is not None
        os.pwrite(fd, header(PAGE, 3), 0)
        assert elf.first_load(fd, head) is None


@pytest.mark.parametrize("name", ["bfd", "lld", "bfd-stripped"])
def test_section_names_are_those_that_pyelftools_reads(shop: Workshop, name: str) -> None:
    linker, *flags = LIBRARIES[name]
    path: Path = shop.library(linker, *flags)
    with path.open("rb") as file:
        expected = [section.name for section in ELFFile(file).iter_sections()]
        assert elf.section_names(file.fileno()) == expected


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("glibc 2.36", ""),
        ("glibc 2.35", ""),
        ("glibc 3.0", ""),
        ("glibc 2.34", "2.35 is the first"),
        ("glibc 2.31.9000", "2.35 is the first"),
        ("glibc", "not glibc"),
        ("", "not glibc"),
        (None, "not glibc"),
    ],
)
def test_c_library_that_does_not_align_is_told(
    monkeypatch: pytest.MonkeyPatch, version: str | None, words: str
) -> None:
    monkeypatch.setattr(os, "confstr", lambda name: version)
    why = linker.why_not_honoured()
    assert words in why if words else why == ""


def test_musl_knows_no_version_of_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert "not glibc" in linker.why_not_honoured()
