"""Linking ELF objects and copying them, and oracles for the copies: what pyelftools, readelf and
eu-elflint say of one."""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, SymbolTableSection

from support.common import TESTS, tool
from support.copies import DEBUG, HEAD, TEXT, TOOLS, Layout, copy_into, lay_out

HUGE = 2 << 20
PAGE = 4096
PF_X, PF_W, PF_R = 1, 2, 4

NATIVE = TESTS / "native"

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
LONG_RPATH = ("--set-rpath", "/" + "very/long/" * 300)


@dataclass(frozen=True)
class Copy:
    """An original and its copy."""

    original: Path
    path: Path  # all of it
    written: Path  # as a store has it: without what nobody uses
    layout: Layout
    bias: int

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return ranges_of(self.layout)

    @property
    def begins_later(self) -> bool:
        """Whether something is loaded from the original in front of what is mapped from the copy:
        it comes last in the copy's table, which can be read, but not loaded."""
        with open(self.original, "rb") as file:
            return loads(ELFFile(file))[0].p_vaddr < self.ranges[0][0]


def ranges_of(layout: Layout) -> list[tuple[int, int]]:
    """What can be mapped huge: (virtual address, end). A program's may begin below 0."""
    signed = [((a + (1 << 63)) % (1 << 64) - (1 << 63), n) for a, n, _ in layout.ranges]
    return [(address, address + length) for address, length in signed]


def make_copy(original: Path, directory: Path, bias: int = 0) -> Copy:
    """Has the copy of a file written, and puts all of it into a directory under the same name."""
    layout = lay_out(original, bias)
    target = directory / original.name
    target.unlink(missing_ok=True)
    written = copy_into(directory / "store", original, bias)
    target.write_bytes(layout.compose(original.read_bytes()))
    target.chmod(0o755)
    made = Copy(original, target, written, layout, bias)
    _check_whole(made)
    return made


def _check_whole(copied: Copy) -> None:
    """The copy is what the layout says, and the layout edits nothing but headers."""
    data = copied.original.read_bytes()
    assert copied.written.read_bytes() == copied.layout.written(data)
    check_uses(copied)
    table = struct.unpack_from("<Q", data, 32)[0]
    table_end = table + 56 * struct.unpack_from("<H", data, 56)[0]
    for at, length in copied.layout.patched:
        assert at + length <= 64 or table <= at <= at + length <= table_end


def check_uses(copied: Copy) -> None:
    """What is mapped huge, what its headers say, and what tools read, is written."""
    uses = copied.layout.uses

    def check(at: int, length: int, use: int, what: str) -> None:
        for chunk in range(at // HUGE, -(-(at + length) // HUGE)):
            assert uses[chunk] & use, what

    assert len(uses) == -(-copied.layout.size // HUGE)
    check(0, copied.layout.header_size, HEAD, "headers")
    check(copied.layout.build_id_at, len(copied.layout.build_id), HEAD, "build-id")
    for _, length, offset in copied.layout.ranges:
        check(offset, length, TEXT, "text")
    with open(copied.path, "rb") as file:
        elf_file = ELFFile(file)
        header = elf_file.header
        check(header.e_shoff, header.e_shnum * 64, HEAD, "section headers")
        for section in elf_file.iter_sections():
            kind, flags = section.header.sh_type, section.header.sh_flags
            if kind in ("SHT_NOBITS", "SHT_NULL"):
                continue
            read = kind in ("SHT_SYMTAB", "SHT_DYNSYM", "SHT_STRTAB", "SHT_NOTE", "SHT_DYNAMIC")
            if (
                read
                or not flags & SH_FLAGS.SHF_ALLOC
                or section.name in (".eh_frame", ".eh_frame_hdr")
            ):
                names = section.name == ".shstrtab"
                debug = DEBUG if section.name.startswith(".debug") else 0
                use = HEAD if names else TOOLS | debug
                check(section.header.sh_offset, section.header.sh_size, use, section.name)


def loads(elf_file: ELFFile) -> list[Any]:
    """The headers of the segments that are loaded, with addresses that may lie below 0."""
    out = []
    for segment in elf_file.iter_segments():
        header = segment.header
        if header.p_type == "PT_LOAD" and header.p_memsz:
            header.p_vaddr -= header.p_vaddr >> 63 << 64
            out.append(header)
    return out


def expected_bytes(data: bytes, header: Any) -> bytes:
    return data[header.p_offset : header.p_offset + header.p_filesz]


def check_segments(copied: Copy) -> None:
    """The program headers of the copy tell what is mapped, and every loaded byte is there."""
    data, copy_data = copied.original.read_bytes(), copied.path.read_bytes()
    with open(copied.original, "rb") as file, open(copied.path, "rb") as copy_file:
        before, after = ELFFile(file), ELFFile(copy_file)
        old, new = loads(before), loads(after)
        assert before.num_segments() == after.num_segments()
        # What lies in front of the first comes last.
        _check_order(sorted(new, key=lambda h: int(h.p_vaddr)))
        for header in new:
            assert (header.p_offset - header.p_vaddr - copied.bias) % HUGE == 0
            assert header.p_offset + header.p_filesz <= len(copy_data)
            if header.p_align > 1:
                assert (header.p_offset - header.p_vaddr) % header.p_align == 0
        _check_permissions(copied, old, new)
        _check_bytes(copied, old, new, data, copy_data)
        _check_pieces(copied, data, copy_data)
        _check_others(before, after, data, copy_data)
        # Tools take the first segment for what is where the first mapping of the file begins.
        start, _, offset = copied.layout.ranges[0]
        assert (new[0].p_vaddr, new[0].p_offset) == (start - (start >> 63 << 64), offset)
        pages = [max(-(-(h.p_vaddr + h.p_memsz) // PAGE) for h in hs) for hs in (old, new)]
        assert pages[0] == pages[1]


def _check_order(headers: list[Any]) -> None:
    end = 0
    for header in headers:
        assert header.p_vaddr >= end
        end = header.p_vaddr + header.p_memsz


def _flags_at(headers: list[Any], start: int, end: int) -> set[int]:
    return {h.p_flags for h in headers if h.p_vaddr < end and h.p_vaddr + h.p_memsz > start}


def _check_permissions(copied: Copy, old: list[Any], new: list[Any]) -> None:
    """`R E` where 2 MiB pages will be, as before everywhere else."""
    for start, end in copied.ranges:
        inside = [h for h in new if h.p_vaddr < end and h.p_vaddr + h.p_memsz > start]
        assert len(inside) == 1
        assert inside[0].p_flags == PF_R | PF_X
    for header in old:
        start, end = header.p_vaddr, header.p_vaddr + header.p_memsz
        start = max(start, copied.ranges[0][0])
        for address in range(start - start % PAGE, end, PAGE):
            here = max(address, start), min(address + PAGE, end)
            huge = any(a <= address < b for a, b in copied.ranges)
            expected = PF_R | PF_X if huge else header.p_flags
            assert _flags_at(new, *here) == {expected}, hex(address)


def _check_bytes(
    copied: Copy, old: list[Any], new: list[Any], data: bytes, copy_data: bytes
) -> None:
    for header in old:
        there = b""
        start, end = header.p_vaddr, header.p_vaddr + header.p_filesz
        start = min(max(start, copied.ranges[0][0]), end)
        for h in new:
            a, b = max(h.p_vaddr, start), min(h.p_vaddr + h.p_filesz, end)
            if a < b:
                assert a == start + len(there)
                there += copy_data[h.p_offset + a - h.p_vaddr : h.p_offset + b - h.p_vaddr]
        at = header.p_offset + start - header.p_vaddr
        _check_same(copied, at, data[at : header.p_offset + header.p_filesz], there)


def _check_same(copied: Copy, at: int, original: bytes, copy: bytes) -> None:
    """The same bytes, but for what is edited; the original's are those at that offset."""
    assert len(original) == len(copy)
    here, there = bytearray(original), bytearray(copy)
    for offset, length in copied.layout.patched:
        a, b = max(offset - at, 0), min(offset + length - at, len(here))
        if a < b:
            here[a:b] = there[a:b] = bytes(b - a)
    assert here == there


def _check_pieces(copied: Copy, data: bytes, copy_data: bytes) -> None:
    """What may be in no segment is there, too: text in front of the first."""
    for at, origin, length in copied.layout.pieces:
        piece = data[origin : origin + length]
        _check_same(copied, origin, piece, copy_data[at : at + length])


def _check_others(before: ELFFile, after: ELFFile, data: bytes, copy_data: bytes) -> None:
    """The other program headers are where they were in the table and refer to the same bytes."""
    for old, new in zip(before.iter_segments(), after.iter_segments()):
        if old.header.p_type == "PT_LOAD":
            assert new.header.p_type in ("PT_LOAD", "PT_NULL")
            continue
        if old.header.p_type == "PT_PHDR" and new.header.p_type == "PT_NULL":
            # The table is where nothing loads it.
            at = after.header.e_phoff
            assert not any(h.p_offset <= at < h.p_offset + h.p_filesz for h in loads(after))
            continue
        for field in ("p_type", "p_flags", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_align"):
            assert old.header[field] == new.header[field]
        if old.header.p_type != "PT_PHDR":
            assert expected_bytes(data, old.header) == expected_bytes(copy_data, new.header)
        else:
            assert new.header.p_offset == after.header.e_phoff


def check_sections(copied: Copy) -> None:
    """The sections of the copy have the contents, addresses and symbols of the original's."""
    with open(copied.original, "rb") as file, open(copied.path, "rb") as copy_file:
        before, after = ELFFile(file), ELFFile(copy_file)
        names = [s.name for s in before.iter_sections()]
        assert names == [s.name for s in after.iter_sections()]
        for old, new in zip(before.iter_sections(), after.iter_sections()):
            for field in old.header:
                if field != "sh_offset":
                    assert old.header[field] == new.header[field], (old.name, field)
            if old.header.sh_type == "SHT_NOBITS":
                continue
            file.seek(old.header.sh_offset)
            copy_file.seek(new.header.sh_offset)
            size = old.header.sh_size
            assert file.read(size) == copy_file.read(size), old.name
            if isinstance(old, SymbolTableSection):
                assert old.num_symbols() == new.num_symbols()
        assert build_id(before) == build_id(after) == copied.layout.build_id.hex()


def build_id(elf_file: ELFFile) -> str:
    """The GNU build-id in hexadecimal, empty when there is none."""
    for section in elf_file.iter_sections():
        if isinstance(section, NoteSection):
            for note in section.iter_notes():
                if note.n_type == "NT_GNU_BUILD_ID":
                    return str(note.n_desc)
    return ""


def readelf_warnings(path: Path) -> set[str]:
    """What readelf -a finds wrong, without names and numbers."""
    result = subprocess.run(
        [tool("readelf"), "-aW", path],
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    lines = [line for line in result.stdout.splitlines() if "Warning" in line or "Error" in line]
    return {_plain(line) for line in [*result.stderr.splitlines(), *lines] if line.strip()}


def elflint_complaints(path: Path) -> set[str]:
    """What eu-elflint --gnu-ld complains about, without numbers."""
    result = subprocess.run(
        [tool("eu-elflint"), "--gnu-ld", path],
        capture_output=True, text=True, check=False, errors="replace",
    )  # fmt: skip
    lines = (result.stdout + result.stderr).splitlines()
    return {_plain(line) for line in lines if line.strip() and line != "No errors"}


def _plain(line: str) -> str:
    return re.sub(r"0x[0-9a-f]+|\b\d+\b", "N", line)


class Workshop:
    """Links the sample library and copies ELF files, all below one directory."""

    def __init__(self, directory: Path, factory: pytest.TempPathFactory) -> None:
        self.directory = directory
        self._factory = factory

    @property
    def sample_object(self) -> Path:
        """The compiled sample library; compiled once."""
        target = self._factory.getbasetemp() / "sample.o"
        if not target.exists():
            source = NATIVE / "sample_library.cpp"
            command = [tool("g++"), "-O1", "-g", "-fPIC", "-c", "-o", target, source]
            libc = subprocess.run(["ldd", "--version"], capture_output=True, text=True, check=False)
            if "musl" in libc.stderr:
                command.append("-DNO_IFUNC")
            subprocess.run(command, check=True)
        return target

    def link(self, linker: str, *flags: str | Path, name: str = "libsample.so") -> Path:
        tool(linker if linker == "mold" else f"ld.{linker}")
        target = self.directory / "original" / name
        target.parent.mkdir(exist_ok=True)
        command = [tool("g++"), f"-fuse-ld={linker}", "-o", target, self.sample_object, *flags]
        subprocess.run(command, check=True)
        return target

    def library(self, linker: str = "bfd", *flags: str | Path) -> Path:
        return self.link(linker, "-shared", *flags)

    def copy(self, original: Path, bias: int = 0) -> Copy:
        directory = self.directory / f"copy-{bias:x}"
        directory.mkdir(exist_ok=True)
        return make_copy(original, directory, bias)


def patchelf(path: Path, *arguments: str) -> None:
    subprocess.run([tool("patchelf"), *arguments, path], check=True)


# What tools say of a copy that tells last, or not at all, of what lies in front of its first segment.
BEGINS_LATER = re.compile(
    "not located in any PT_LOAD|not in any loaded segment|must point into loaded segment"
    "|Invalid number of dynamic entries"
)


def check_readelf(copied: Copy) -> None:
    new = readelf_warnings(copied.path) - readelf_warnings(copied.original)
    if copied.begins_later:
        new = {line for line in new if not BEGINS_LATER.search(line)}
    assert not new


def check_tools(copied: Copy) -> None:
    """readelf and eu-elflint find nothing in the copy that they do not find in the original, but
    that it cannot be loaded where it begins later."""
    check_readelf(copied)
    new = elflint_complaints(copied.path) - elflint_complaints(copied.original)
    if copied.begins_later:
        new = {line for line in new if not BEGINS_LATER.search(line)}
    # A section in which the permissions change lies in two segments: so it will be mapped.
    split = {line for line in new if "not fully contained in segment of program header" in line}
    assert len(split) <= 2 * len(copied.ranges)
    assert new == split
