"""ELF files made of bytes, to be broken at will, and checks that need no ELF library: those of
the tests of layouts that no linker makes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.copies import Layout

HUGE = 2 << 20
PAGE = 4096
PF_X, PF_W, PF_R = 1, 2, 4
BUILD_ID = bytes(range(20))

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
SHDR = struct.Struct("<IIQQQQIIQQ")

Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Part:
    """A segment to be loaded: its address, bytes from the file, bytes in memory, permissions."""

    address: int
    filesz: int
    memsz: int
    flags: int


@dataclass(frozen=True)
class RawElf:
    """An ELF file that is blank behind its first bytes."""

    head: bytes
    size: int

    def read(self, length: int, offset: int) -> bytes:
        data = self.head[offset : offset + length]
        return data + bytes(max(min(length, self.size - offset) - len(data), 0))


def header(phoff: int, phnum: int, shoff: int = 0, shnum: int = 0, kind: int = 3) -> bytes:
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    last = shnum - 1 if shnum else 0
    return EHDR.pack(ident, kind, 62, 1, 0, phoff, shoff, 0, 64, 56, phnum, 64, shnum, last)


def blank_elf(parts: Sequence[Part], program: bool = False) -> RawElf:
    """A file with these segments, one behind the other, the first with the headers."""
    offset = 0
    rows = []
    for part in parts:
        offset += (part.address - offset) % PAGE
        rows.append((1, part.flags, offset, part.address, part.address, part.filesz, part.memsz))
        offset += part.filesz
    if program:
        rows.append((3, PF_R, 0, parts[0].address, parts[0].address, 1, 1))  # PT_INTERP
    table = b"".join(PHDR.pack(*row, PAGE) for row in rows)
    return RawElf(header(64, len(rows)) + table, max(offset, 64 + len(table)))


def small_elf() -> bytes:
    """A library of a few pages that spans 2 MiB, with a build-id and a section table."""
    note = struct.pack("<III4s", 4, len(BUILD_ID), 3, b"GNU\0") + BUILD_ID
    text, data = b"\xc3" * 256, b"data" * 16
    names = b"\0.note.gnu.build-id\0.text\0.data\0.bss\0.comment\0.shstrtab\0"
    comment = b"made of bytes\0"

    def name(of: bytes) -> int:
        return names.index(b"\0" + of + b"\0") + 1

    blob = bytearray(3 * PAGE)
    blob[0x200 : 0x200 + len(note)] = note
    blob[PAGE : PAGE + len(text)] = text
    blob[2 * PAGE : 2 * PAGE + len(data)] = data
    del blob[2 * PAGE + len(data) :]
    at_comment = len(blob)
    blob += comment
    at_names = len(blob)
    blob += names
    blob += bytes(-len(blob) % 8)
    shoff = len(blob)
    note_size = len(note)
    rows = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (name(b".note.gnu.build-id"), 7, 2, 0x200, 0x200, note_size, 0, 0, 4, 0),
        (name(b".text"), 1, 6, PAGE, PAGE, len(text), 0, 0, 16, 0),
        (name(b".data"), 1, 3, HUGE, 2 * PAGE, len(data), 0, 0, 8, 0),
        (name(b".bss"), 8, 3, HUGE + len(data), 2 * PAGE + len(data), 64, 0, 0, 8, 0),
        (name(b".comment"), 1, 0x30, 0, at_comment, len(comment), 0, 0, 1, 1),
        (name(b".shstrtab"), 3, 0, 0, at_names, len(names), 0, 0, 1, 0),
    ]
    blob += b"".join(SHDR.pack(*row) for row in rows)
    segments = [
        (1, PF_R, 0, 0, 0, 0x400, 0x400, PAGE),
        (1, PF_R | PF_X, PAGE, PAGE, PAGE, len(text), len(text), PAGE),
        (1, PF_R | PF_W, 2 * PAGE, HUGE, HUGE, len(data), len(data) + 64, PAGE),
        (4, PF_R, 0x200, 0x200, 0x200, note_size, note_size, 4),
        (0x6474E551, PF_R | PF_W, 0, 0, 0, 0, 0, 16),
    ]
    blob[:64] = header(64, len(segments), shoff, len(rows))
    blob[64 : 64 + 56 * len(segments)] = b"".join(PHDR.pack(*row) for row in segments)
    return bytes(blob)


def reader(data: bytes) -> Read:
    return lambda length, offset: data[offset : offset + length]


def segments(head: bytes, read: Read) -> list[tuple[int, ...]]:
    fields = EHDR.unpack(head[:64])
    return list(PHDR.iter_unpack(read(PHDR.size * fields[10], fields[5])))


def copy_read(layout: Layout, read: Read) -> Read:
    """Reads from the copy that a layout describes, without writing it."""

    def read_copy(length: int, offset: int) -> bytes:
        out = bytearray(length)
        for at, data in [(a, read(n, o)) for a, o, n in layout.pieces if a < offset + length] + [
            *layout.patches
        ]:
            a, b = max(at, offset), min(at + len(data), offset + length)
            if a < b:
                out[a - offset : b - offset] = data[a - at : b - at]
        return bytes(out)

    return read_copy


def check_layout(layout: Layout, read: Read, size: int, bias: int) -> None:
    """What every layout must be, whatever the file was: of use as a mapping, and an ELF file whose
    program headers describe it."""
    assert 0 < layout.size <= 2 * size + (64 << 20)
    assert layout.size % PAGE == 0
    end = 0
    for at, origin, length in sorted(layout.pieces):
        assert end <= at
        assert origin >= 0
        assert origin + length <= size
        end = at + length
    assert end <= layout.size
    assert all(at >= 0 and at + len(data) <= layout.size for at, data in layout.patches)
    assert 64 <= layout.header_size <= 4096
    assert len(layout.build_id) <= 32
    assert layout.build_id_at + len(layout.build_id) <= layout.size

    read_copy = copy_read(layout, read)
    old = [s for s in segments(read(64, 0), read) if s[0] == 1 and s[6]]
    new = [s for s in segments(read_copy(64, 0), read_copy) if s[0] == 1 and s[6]]
    # A program's first may begin below 0.
    new = [(*s[:3], s[3] - (s[3] >> 63 << 64), *s[4:]) for s in new]
    end = -HUGE
    for _, flags, offset, address, _, filesz, memsz, align in sorted(new, key=lambda s: s[3]):
        assert address >= end
        end = address + memsz
        assert (offset - address - bias) % HUGE == 0
        assert offset + filesz <= layout.size
        assert filesz <= memsz
        assert align <= 1 or align & (align - 1) or (offset - address) % align == 0
        assert flags < 1 << 32
    end = -HUGE
    for raw, length, offset in layout.ranges:
        address = raw - (raw >> 63 << 64)
        assert address >= end
        end = address + length
        assert length > 0
        assert (address + bias) % HUGE == length % HUGE == offset % HUGE == 0
        assert offset + length <= layout.size
        inside = [s for s in new if s[3] < end and s[3] + s[6] > address]
        assert len(inside) == 1
        assert inside[0][1] == PF_R | PF_X
        assert inside[0][2] - inside[0][3] == offset - address
    first = layout.ranges[0][0] - (layout.ranges[0][0] >> 63 << 64)
    assert (new[0][3], new[0][2]) == (first, layout.ranges[0][2])
    # The first and the last byte of what each segment loads are where the new headers say, which
    # may not tell of text in front of the first range.
    pieces = [(origin, at, length) for at, origin, length in layout.pieces]
    for _, _, offset, address, _, filesz, _, _ in old:
        for at in (
            {max(first - address, 0), filesz - 1} if filesz and address + filesz > first else ()
        ):
            place = next(
                s[2] + address + at - s[3] for s in new if s[3] <= address + at < s[3] + s[5]
            )
            assert any(
                o <= offset + at < o + n and a + offset + at - o == place for o, a, n in pieces
            )
