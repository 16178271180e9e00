"""Laying out a huge-page-ready copy of an ELF object; pure functions on bytes.

Every byte of the copy lies at a file offset congruent to its run-time address modulo 2 MiB, and
the program headers describe the mapping as it will be after the swap: the merged read-only run is
one `R E` segment, what is left of it `R`. See elf(5).
"""

import struct
from bisect import bisect_right

from pyhugetext.store.segments import (
    HUGE,
    PAGE,
    PF_R,
    PF_W,
    PF_X,
    PHDR,
    PT_GNU_STACK,
    PT_LOAD,
    PT_NULL,
    PT_PHDR,
    Refused,
    Segment,
    check_loads,
    down,
    find_build_id,
    find_file_part,
    find_loaded,
    is_program,
    read_segments,
    up,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyhugetext.store.segments import Read

__all__ = ["HUGE", "PAGE", "Layout", "Refused", "lay_out"]

SHF_ALLOC = 2
SHT_NULL, SHT_NOBITS = 0, 8

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")

MOST_SECTIONS = 65536
MOST_HEADERS = 4096  # bytes at the start of the copy that its record repeats


class Layout:
    """How the copy is made: `pieces` are (offset in the copy, offset in the original, length),
    `patches` (offset, bytes) go over them, `ranges` (virtual address, length, offset) are what
    can be mapped huge. `patched` (offset in the original, length) tells what differs on purpose.
    All sizes in bytes."""

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
        self.patched = []  # type: list[tuple[int, int]]
        self.ranges = []  # type: list[tuple[int, int, int]]
        self.size = 0
        self.build_id = b""
        self.build_id_at = 0
        self.header_size = 0


def lay_out(read: "Read", size: int, bias: int) -> Layout:
    """Lays out a copy of the ELF file of `size` bytes that `read(length, offset)` reads, for a
    load bias congruent to `bias` modulo 2 MiB. Refused when it is no file we can represent."""
    head = read(_EHDR.size, 0)
    if len(head) < _EHDR.size or head[:4] != b"\x7fELF":
        raise Refused("is no ELF file")
    if head[4] != 2 or head[5] != 1:
        raise Refused("is no 64-bit little-endian ELF file")
    (
        ident, kind, machine, version, entry, phoff, shoff, flags,
        _, phsize, phnum, shsize, shnum, shstrndx,
    ) = _EHDR.unpack(head)  # fmt: skip
    if kind not in (2, 3):
        raise Refused("is neither an executable nor a shared object")
    headers = read_segments(read, size, phoff, phnum, phsize)
    loads = check_loads(headers, size)
    runs = _huge_runs(loads, bias, kind == 2 or is_program(headers, loads, read))
    if not runs:
        raise Refused("has no 2 MiB page of read-only content with text")

    layout = Layout()
    places = Places(loads, runs, bias)
    # Two's complement, as in the record: a page may begin below the address 0 of a program.
    layout.ranges = [(a & (1 << 64) - 1, b - a, places.of(a)) for a, b in runs]
    layout.pieces = [_piece(s, places, size) for s in loads if s.filesz]
    layout.build_id, address = find_build_id(headers, loads, read)
    layout.build_id_at = places.of(address) if layout.build_id else 0

    table_size = phnum * PHDR.size
    holder = find_file_part(loads, phoff, table_size)
    if holder is not None and places.in_place:
        # The process may see it too: it keeps the object's span.
        new_phoff, end = places.of(holder.vaddr) + phoff - holder.offset, places.end
        layout.patched.append((phoff, table_size))
    else:
        new_phoff = up(places.end, 8)
        end = new_phoff + table_size
    new_headers, end = _describe(headers, loads, runs, places, layout, size, new_phoff, end)
    sections, end = _sections(layout, read, size, shoff, shsize, shnum, loads, places, end)
    new_shoff = 0
    if sections:
        new_shoff = up(end, 8)
        layout.patches.append((new_shoff, sections))
        end = new_shoff + len(sections)
    else:
        shsize = shnum = shstrndx = 0
    new_head = _EHDR.pack(
        ident, kind, machine, version, entry, new_phoff, new_shoff, flags,
        _EHDR.size, phsize, phnum, shsize, shnum, shstrndx,
    )  # fmt: skip
    if places.in_place:
        layout.patched.append((0, len(new_head)))
    layout.patches += [(0, new_head), (new_phoff, b"".join(s.pack() for s in new_headers))]
    layout.header_size = new_phoff + table_size
    if layout.header_size > MOST_HEADERS:
        layout.header_size = len(new_head)
    layout.size = up(end, PAGE)
    if layout.size > 2 * size + (64 << 20):
        raise Refused("has parts that overlap or lie too far apart")
    return layout


def _huge_runs(loads: "list[Segment]", bias: int, program: bool) -> "list[tuple[int, int]]":
    """The runs of 2 MiB pages that hold text and nothing but what is mapped readable from the
    file, or free: at least what the core plans (plan.cpp), whatever else is mapped there.

    The core takes free address space around the executable, of a library that between its
    segments only: the next object may come to lie right behind it.
    """
    low = down(loads[0].vaddr, PAGE)
    high = up(loads[-1].end, PAGE)
    if program:
        low = down(low + bias, HUGE) - bias
        high = up(high + bias, HUGE) - bias
    texts = []
    others = []
    for s in loads:
        start, file_end, end = down(s.vaddr, PAGE), up(s.file_end, PAGE), up(s.end, PAGE)
        if s.flags & PF_W or (s.flags & PF_X and not s.flags & PF_R):
            others.append((start, end))
            continue
        if file_end < end:
            others.append((file_end, end))
        if s.flags & PF_X:
            texts.append((start, file_end))
    runs = []  # type: list[tuple[int, int]]
    for start, end in texts:
        for page in range(down(start + bias, HUGE) - bias, end, HUGE):
            stop = page + HUGE
            if page < low or stop > high or any(a < stop and b > page for a, b in others):
                continue
            if runs and runs[-1][1] >= page:
                runs[-1] = (runs[-1][0], stop)
            else:
                runs.append((page, stop))
    return runs


class Places:
    """Where in the copy the bytes of each address are: in the order of addresses, congruent to
    them modulo 2 MiB, with less than 2 MiB left free between."""

    __slots__ = ("_shifts", "_starts", "end", "in_place")

    def __init__(self, loads: "list[Segment]", runs: "list[tuple[int, int]]", bias: int) -> None:
        first = loads[0]
        # Where the original's ELF header is loaded at a 2 MiB boundary it stays there, edited;
        # else the copy's own header goes in front of the first loaded byte.
        self.in_place = (
            first.offset == 0 and first.filesz >= _EHDR.size and (first.vaddr + bias) % HUGE == 0
        )
        spans = [(down(s.vaddr, PAGE), up(s.file_end, PAGE)) for s in loads] + runs
        self._starts = []  # type: list[int]
        self._shifts = []  # type: list[int]
        self.end = until = 0
        for start, end in sorted(spans):
            if not self._starts or start > until:
                offset = self.end + (start + bias - self.end) % HUGE
                room = down(first.vaddr, PAGE) - start + offset
                if not self._starts and not self.in_place and not room:
                    offset += HUGE
                self._starts.append(start)
                self._shifts.append(offset - start)
                until = start
            until = max(until, end)
            self.end = until + self._shifts[-1]

    def of(self, address: int) -> int:
        """The offset of an address that is loaded from the file."""
        return address + self._shifts[max(bisect_right(self._starts, address) - 1, 0)]

    def near(self, address: int) -> int:
        """An offset to name for what takes no room in the file, wherever it claims to be."""
        return min(max(self.of(address), 0), self.end)


def _piece(s: Segment, places: Places, size: int) -> "tuple[int, int, int]":
    start, end = s.offset, s.offset + s.filesz
    if not s.flags & PF_W and s.filesz == s.memsz:
        # Whole pages are mapped: what lies before and behind in the file is seen in memory too.
        start, end = down(start, PAGE), min(up(end, PAGE), size)
    return places.of(down(s.vaddr, PAGE)) + start % PAGE, start, end - start


def _describe(
    headers: "list[Segment]",
    loads: "list[Segment]",
    runs: "list[tuple[int, int]]",
    places: Places,
    layout: Layout,
    size: int,
    table: int,
    end: int,
) -> "tuple[list[Segment], int]":
    """The program headers of the copy, as many as before and the others at their old positions:
    who keeps a pointer to one finds it unchanged. Also the new end of the file."""
    new_loads = _merge(loads, runs, places)
    slots = sum(s.type == PT_LOAD for s in headers)
    if len(new_loads) > slots:
        raise Refused("has a segment layout that needs more program headers than it has")
    new_loads += [Segment(PT_NULL, 0, 0, 0, 0, 0, 0, 8)] * (slots - len(new_loads))
    unused = iter(new_loads)
    out = []
    for s in headers:
        if s.type == PT_LOAD:
            out.append(next(unused))
        elif s.type == PT_PHDR:
            # Says where the table is loaded, if it is.
            loaded = table == places.of(s.vaddr) and s.vaddr >= runs[0][0]
            out.append(_moved(s, table) if loaded else Segment(PT_NULL, 0, 0, 0, 0, 0, 0, 8))
        elif s.type in (PT_NULL, PT_GNU_STACK) or not s.vaddr | s.offset | s.filesz:
            out.append(s)
        elif not s.filesz:
            out.append(_moved(s, places.near(s.vaddr)))
        elif find_loaded(loads, s.vaddr, s.filesz) is not None:
            out.append(_moved(s, places.of(s.vaddr)))
        elif s.offset + s.filesz <= size:
            offset = up(end, 8)
            layout.pieces.append((offset, s.offset, s.filesz))
            out.append(_moved(s, offset))
            end = offset + s.filesz
        else:
            raise Refused("is truncated: a program header points behind the file")
    return out, end


def _moved(s: Segment, offset: int) -> Segment:
    align = s.align
    if s.type == PT_LOAD and align > 1 and (offset - s.vaddr) % align:
        align = PAGE
    return Segment(s.type, s.flags, offset, s.vaddr, s.paddr, s.filesz, s.memsz, align)


def _merge(
    loads: "list[Segment]", runs: "list[tuple[int, int]]", places: Places
) -> "list[Segment]":
    """The loaded segments as they will be mapped: each run belongs to one `R E` segment, together
    with the text that reaches out of it. Nothing is told of what lies before the first run, for
    that stays the original's: tools take the first segment for what lies where the first mapping
    of the copy begins. No more than there were: each of them holds text of its own, and of a
    segment without text at most the head and the tail go."""
    texts = _merged_texts(loads, runs)
    first = texts[0][0]
    out = []
    for start, end in texts:
        align = PAGE if (places.of(start) - start) % HUGE else HUGE
        size = end - start
        out.append(Segment(PT_LOAD, PF_R | PF_X, places.of(start), start, start, size, size, align))
    for s in loads:
        if s.end <= first:
            continue
        start, end = max(s.vaddr, first), s.file_end
        for a, b in texts:
            if a <= start < b:
                start = min(b, end)
            elif start < a < end:
                end = a
        # What is behind the file's part stays with the last of it.
        memory = s.end if end == s.file_end else end
        if start == s.vaddr and end == s.file_end:
            out.append(_moved(s, places.of(start)))
        elif start < end:
            filesz, memsz, offset = end - start, memory - start, places.of(start)
            out.append(Segment(PT_LOAD, s.flags, offset, start, start, filesz, memsz, PAGE))
        elif start < memory:
            for text in out[: len(texts)]:
                if text.vaddr < start <= text.file_end:
                    text.memsz = max(text.memsz, memory - text.vaddr)
    return sorted(out, key=lambda s: s.vaddr)


def _merged_texts(loads: "list[Segment]", runs: "list[tuple[int, int]]") -> "list[tuple[int, int]]":
    """The runs, extended by what reaches over their borders of the text in them, at the end as far
    as the object goes. The first begins where its mapping will, were it before the object."""
    high = up(loads[-1].end, PAGE)
    out = []  # type: list[tuple[int, int]]
    for start, end in runs:
        a, b = start, min(end, high)
        for s in loads:
            if s.flags & PF_X and not s.flags & PF_W and s.vaddr < end and s.file_end > start:
                a, b = (min(a, s.vaddr) if out else a), max(b, s.file_end)
        if out and a < out[-1][1]:  # the same text reaches into both
            a, b = out[-1][0], max(b, out.pop()[1])
        out.append((a, b))
    return out


def _sections(
    layout: Layout,
    read: "Read",
    size: int,
    shoff: int,
    shsize: int,
    shnum: int,
    loads: "list[Segment]",
    places: Places,
    end: int,
) -> "tuple[bytes, int]":
    """The section headers of the copy (none where the original's are unusable), and the end of
    the file behind the sections that are not loaded."""
    if not 0 < shoff < size:
        return b"", end
    if not shnum:  # more than the header can tell
        first = read(_SHDR.size, shoff)
        shnum = _SHDR.unpack(first)[5] if len(first) == _SHDR.size else 0
    if shsize != _SHDR.size or not 0 < shnum <= MOST_SECTIONS:
        return b"", end
    table = read(shnum * shsize, shoff)
    if len(table) != shnum * shsize:
        return b"", end
    rows = [list(fields) for fields in _SHDR.iter_unpack(table)]
    trailing = []
    for row in rows:
        _, kind, flags, address, offset, length = row[:6]
        if kind == SHT_NULL:
            continue
        s = find_loaded(loads, address, length) if flags & SHF_ALLOC else None
        if kind == SHT_NOBITS or not length:
            row[4] = places.near(address) if flags & SHF_ALLOC else end
        elif s is not None and offset - s.offset == address - s.vaddr:
            row[4] = places.of(address)
        elif offset + length > size:
            return b"", end
        else:
            trailing.append(row)
    limit = end + size + (64 << 20)
    for row in sorted(trailing, key=lambda row: row[4]):
        start = up(end, max(_power(row[8]), 1))
        layout.pieces.append((start, row[4], row[5]))
        row[4] = start
        end = start + row[5]
        if end > limit:
            raise Refused("has sections that overlap")
    return b"".join(_SHDR.pack(*row) for row in rows), end


def _power(alignment: int) -> int:
    """The alignment, or 1 where it is no power of two or absurd."""
    return alignment if 0 < alignment <= HUGE and not alignment & (alignment - 1) else 1
