"""Laying out a huge-page-ready copy of an ELF object; pure functions on bytes.

Every byte of the copy lies at a file offset congruent to its run-time address modulo 2 MiB, and
the program headers describe the mapping as it will be after the swap: the merged read-only run is
one `R E` segment, what is left of it `R`. See elf(5).
"""

import struct

HUGE = 2 << 20
PAGE = 4096

PT_LOAD, PT_NOTE, PT_GNU_STACK = 1, 4, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
SHF_ALLOC = 2
SHT_NULL, SHT_NOBITS = 0, 8

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")

MOST_SEGMENTS = 128
MOST_SECTIONS = 65536


class Refused(Exception):
    """The file cannot be represented; the text says why."""


class Segment:
    """A program header."""

    __slots__ = ("align", "filesz", "flags", "memsz", "offset", "paddr", "type", "vaddr")

    def __init__(
        self, type: int, flags: int, offset: int, vaddr: int, paddr: int, filesz: int, memsz: int,
        align: int,
    ) -> None:  # fmt: skip
        self.type = type
        self.flags = flags
        self.offset = offset
        self.vaddr = vaddr
        self.paddr = paddr
        self.filesz = filesz
        self.memsz = memsz
        self.align = align

    def pack(self) -> bytes:
        return _PHDR.pack(
            self.type,
            self.flags,
            self.offset,
            self.vaddr,
            self.paddr,
            self.filesz,
            self.memsz,
            self.align,
        )


class Layout:
    """How the copy is made: `pieces` are (offset in the copy, offset in the original, length),
    `patches` (offset, bytes) go over them, `ranges` (virtual address, length, offset) are what
    can be mapped huge. All sizes in bytes."""

    __slots__ = (
        "build_id",
        "build_id_at",
        "header_size",
        "patched",
        "patches",
        "pieces",
        "ranges",
        "size",
    )

    def __init__(self) -> None:
        self.pieces = []  # type: list[tuple[int, int, int]]
        self.patches = []  # type: list[tuple[int, bytes]]
        self.patched = []  # type: list[tuple[int, int]]  # in the original: differ on purpose
        self.ranges = []  # type: list[tuple[int, int, int]]
        self.size = 0
        self.build_id = b""
        self.build_id_at = 0
        self.header_size = 0


def _down(value: int, unit: int) -> int:
    return value & -unit


def _up(value: int, unit: int) -> int:
    return (value + unit - 1) & -unit


def lay_out(read, size: int, bias: int) -> Layout:  # type: ignore[no-untyped-def]
    """Lays out a copy of the ELF file of `size` bytes that `read(length, offset)` reads, for a
    load bias congruent to `bias` modulo 2 MiB. Refused when it is no file we can represent."""
    head = read(64, 0)
    if len(head) < 64 or head[:4] != b"\x7fELF":
        raise Refused("is no ELF file")
    if head[4] != 2 or head[5] != 1:
        raise Refused("is no 64-bit little-endian ELF file")
    ident, kind, machine, version, entry, phoff, shoff, flags, _, phsize, phnum, shsize, shnum, _ = (
        _EHDR.unpack(head)
    )
    shstrndx = _EHDR.unpack(head)[13]
    if kind not in (2, 3):
        raise Refused("is neither an executable nor a shared object")
    if phsize != _PHDR.size or not 0 < phnum <= MOST_SEGMENTS or phoff + phnum * phsize > size:
        raise Refused("has no usable program headers")
    table = read(phnum * phsize, phoff)
    if len(table) != phnum * phsize:
        raise Refused("is truncated in its program headers")
    headers = [Segment(*_PHDR.unpack_from(table, i * phsize)) for i in range(phnum)]
    loads = _check_loads(headers, size)

    low = _down(loads[0].vaddr + bias, HUGE)
    shift = bias - low  # offset in the copy = virtual address + shift
    table_in_load = any(
        s.offset <= phoff and phoff + len(table) <= s.offset + s.filesz for s in loads
    )
    # Where the original's ELF header is loaded at offset 0 it stays there, edited; else the copy's
    # own header goes in front of the first loaded byte.
    in_place = loads[0].offset == 0 and loads[0].vaddr + shift == 0 and loads[0].filesz >= 64
    in_place = in_place and table_in_load
    if not in_place and loads[0].vaddr + shift < 64 + len(table):
        shift += HUGE

    layout = Layout()
    layout.ranges = _huge_ranges(loads, bias, shift)
    if not layout.ranges:
        raise Refused("has no 2 MiB page of read-only content with text")
    for s in loads:
        if s.filesz:
            layout.pieces.append((s.vaddr + shift, s.offset, s.filesz))
    end = max(s.vaddr + shift + s.filesz for s in loads)
    end = max([end, *(offset + length for _, length, offset in layout.ranges)])
    _find_build_id(layout, headers, read, shift)

    new_headers = _describe(headers, loads, layout.ranges, shift)
    sections, end = _sections(layout, read, size, shoff, shsize, shnum, loads, shift, end)
    new_shoff = new_shnum = 0
    if sections:
        new_shoff = _up(end, 8)
        layout.patches.append((new_shoff, sections))
        end = new_shoff + len(sections)
        new_shnum = shnum
    else:
        shstrndx = 0
    new_phoff = 64
    if in_place:
        new_phoff = next(
            phoff - s.offset + s.vaddr + shift
            for s in loads
            if s.offset <= phoff and phoff + len(table) <= s.offset + s.filesz
        )
        layout.patched = [(0, 64), (phoff, len(table))]
    new_table = b"".join(s.pack() for s in new_headers)
    new_head = _EHDR.pack(
        ident, kind, machine, version, entry, new_phoff, new_shoff, flags, 64, phsize, phnum,
        shsize if sections else 0, new_shnum, shstrndx,
    )  # fmt: skip
    layout.patches += [(0, new_head), (new_phoff, new_table)]
    layout.header_size = 64 + len(new_table) if new_phoff == 64 else 64
    layout.size = _up(end, PAGE)
    if layout.size > 2 * size + (64 << 20):
        raise Refused("has segments too far apart")
    return layout


def _check_loads(headers: "list[Segment]", size: int) -> "list[Segment]":
    loads = [s for s in headers if s.type == PT_LOAD and s.memsz]
    if not loads:
        raise Refused("has nothing to load")
    end = 0
    for s in loads:
        if s.filesz > s.memsz or s.offset + s.filesz > size:
            raise Refused("is truncated: a segment ends behind the file")
        if s.vaddr + s.memsz >= 1 << 47 or (s.vaddr - s.offset) % PAGE:
            raise Refused("has a segment at an impossible address")
        if _down(s.vaddr, PAGE) < end:
            raise Refused("has overlapping segments")
        end = _up(s.vaddr + s.memsz, PAGE)
    return loads


def _huge_ranges(
    loads: "list[Segment]", bias: int, shift: int
) -> "list[tuple[int, int, int]]":
    """The runs of 2 MiB pages that hold text and nothing writable; the core's rule (plan.cpp)."""
    low = _down(loads[0].vaddr, PAGE)
    high = max(_up(s.vaddr + s.memsz, PAGE) for s in loads)
    texts = []
    writable = []
    for s in loads:
        span = (_down(s.vaddr, PAGE), _up(s.vaddr + s.memsz, PAGE))
        if s.flags & PF_W:
            writable.append(span)
        elif s.flags & PF_X:
            texts.append(span)
    runs = []  # type: list[list[int]]
    for start, end in texts:
        page = _down(start + bias, HUGE) - bias
        while page < end:
            inside = page >= low and page + HUGE <= high
            clean = not any(a < page + HUGE and b > page for a, b in writable)
            if inside and clean:
                if runs and runs[-1][1] >= page:
                    runs[-1][1] = max(runs[-1][1], page + HUGE)
                else:
                    runs.append([page, page + HUGE])
            page += HUGE
    return [(start, end - start, start + shift) for start, end in runs]


def _describe(
    headers: "list[Segment]",
    loads: "list[Segment]",
    ranges: "list[tuple[int, int, int]]",
    shift: int,
) -> "list[Segment]":
    """The program headers of the copy, as many as before."""
    new_loads = []  # type: list[Segment]
    i = 0
    while i < len(loads):
        group = _group(loads, i, ranges)
        new_loads += _merge(group, ranges, shift) if group else [_moved(loads[i], shift)]
        i += len(group) or 1
    out = []
    slots = [i for i, s in enumerate(headers) if s.type == PT_LOAD]
    if len(new_loads) > len(slots):
        raise Refused("has a segment layout that needs more program headers than it has")
    for i, s in enumerate(headers):
        if i in slots:
            at = slots.index(i)
            out.append(new_loads[at] if at < len(new_loads) else Segment(0, 0, 0, 0, 0, 0, 0, 8))
        elif s.vaddr or s.memsz:
            out.append(_moved(s, shift))
        else:
            out.append(s)
    return out


def _moved(s: Segment, shift: int) -> Segment:
    align = s.align
    if align > 1 and shift % align:
        align = PAGE if s.type == PT_LOAD else align
    return Segment(s.type, s.flags, s.vaddr + shift, s.vaddr, s.paddr, s.filesz, s.memsz, align)


def _group(
    loads: "list[Segment]", first: int, ranges: "list[tuple[int, int, int]]"
) -> "list[Segment]":
    """The neighbouring unwritable segments from `first` on that ranges tie together."""
    group = []  # type: list[Segment]
    end = 0
    for s in loads[first:]:
        if s.flags & PF_W:
            break
        page = _down(s.vaddr, PAGE)
        touched = [a + n for a, n, _ in ranges if a < s.vaddr + s.memsz and a + n > page]
        if not touched or (group and page >= end):
            break
        group.append(s)
        end = max([end, *touched])
    return group


def _merge(
    group: "list[Segment]", ranges: "list[tuple[int, int, int]]", shift: int
) -> "list[Segment]":
    low = group[0].vaddr
    high = group[-1].vaddr + group[-1].memsz
    texts = [s for s in group if s.flags & PF_X]
    inside = [(a, a + n) for a, n, _ in ranges if a < high and a + n > _down(low, PAGE)]
    start = max(low, min(texts[0].vaddr, inside[0][0]))
    end = max(texts[-1].vaddr + texts[-1].memsz, inside[-1][1])
    align = HUGE if shift % HUGE == 0 else PAGE

    def piece(a: int, b: int, flags: int, alignment: int) -> Segment:
        return Segment(PT_LOAD, flags, a + shift, a, a, b - a, b - a, alignment)

    out = []
    if low < start:
        out.append(piece(low, start, PF_R, PAGE))
    out.append(piece(start, end, PF_R | PF_X, align))
    if end < high:
        out.append(piece(end, high, PF_R, PAGE))
    return out


def _find_build_id(layout: Layout, headers: "list[Segment]", read, shift: int) -> None:  # type: ignore[no-untyped-def]
    for s in headers:
        if s.type != PT_NOTE or not 12 <= s.filesz <= 1 << 16:
            continue
        data = read(s.filesz, s.offset)
        align = 8 if s.align == 8 else 4
        at = 0
        while at + 12 <= len(data):
            name_size, value_size, kind = struct.unpack_from("<III", data, at)
            value = at + _up(12 + name_size, align)
            if value + value_size > len(data):
                break
            name = data[at + 12 : at + 12 + name_size]
            if kind == 3 and name == b"GNU\0" and 0 < value_size <= 32:
                layout.build_id = data[value : value + value_size]
                layout.build_id_at = s.vaddr + shift + value
                return
            at += _up(value - at + value_size, align)


def _sections(layout, read, size, shoff, shsize, shnum, loads, shift, end):  # type: ignore[no-untyped-def]
    """The section headers of the copy (none where the original's are unusable), and the end of
    the file behind the sections that are not loaded."""
    if not shoff or shsize != _SHDR.size or not shnum or shoff + shnum * shsize > size:
        return b"", end
    if shnum > MOST_SECTIONS:
        return b"", end
    table = read(shnum * shsize, shoff)
    rows = [list(_SHDR.unpack_from(table, i * shsize)) for i in range(shnum)]
    trailing = []
    for row in rows:
        _, kind, flags, address, offset, length = row[:6]
        if kind == SHT_NULL:
            continue
        holder = next(
            (s for s in loads if s.vaddr <= address and address + length <= s.vaddr + s.memsz), None
        )
        if flags & SHF_ALLOC and holder is not None:
            row[4] = address + shift
        elif flags & SHF_ALLOC and kind == SHT_NOBITS:
            row[4] = address + shift  # .tbss may lie beyond every segment
        elif kind == SHT_NOBITS or not length:
            row[4] = end
        elif offset + length > size:
            return b"", end
        else:
            trailing.append(row)
    for row in sorted(trailing, key=lambda row: row[4]):
        start = _up(end, max(_power(row[8]), 1))
        layout.pieces.append((start, row[4], row[5]))
        row[4] = start
        end = start + row[5]
    return b"".join(_SHDR.pack(*row) for row in rows), end


def _power(alignment: int) -> int:
    """The alignment, or 1 where it is no power of two or absurd."""
    return alignment if 0 < alignment <= HUGE and not alignment & (alignment - 1) else 1
