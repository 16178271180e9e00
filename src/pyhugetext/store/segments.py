"""An ELF object's program headers, and what they say of it. See elf(5)."""

import struct
from bisect import bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]  # (length, offset); short at the end of the file

HUGE = 2 << 20
PAGE = 4096

PT_NULL, PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_PHDR = 0, 1, 2, 3, 4, 6
PT_GNU_STACK = 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
DT_FLAGS_1, DF_1_PIE = 0x6FFFFFFB, 0x08000000
NT_GNU_BUILD_ID = 3

PHDR = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<QQ")
_NOTE = struct.Struct("<III")

MOST_SEGMENTS = 128
MOST_NOTES = 1 << 20  # bytes in one segment; the same for the dynamic section


_ALL_BITS = (1 << 64) - 1


class Refused(Exception):
    """The file cannot be represented; the text says why."""


class Segment:
    """A program header."""

    __slots__ = ("align", "filesz", "flags", "memsz", "offset", "paddr", "type", "vaddr")

    def __init__(
        self,
        type: int,
        flags: int,
        offset: int,
        vaddr: int,
        paddr: int,
        filesz: int,
        memsz: int,
        align: int,
    ) -> None:
        self.type = type
        self.flags = flags
        self.offset = offset
        self.vaddr = vaddr
        self.paddr = paddr
        self.filesz = filesz
        self.memsz = memsz
        self.align = align

    def pack(self) -> bytes:
        return PHDR.pack(
            self.type,
            self.flags,
            self.offset,
            self.vaddr & _ALL_BITS,  # a page may begin below the address 0 of a program
            self.paddr & _ALL_BITS,
            self.filesz,
            self.memsz,
            self.align,
        )

    @property
    def file_end(self) -> int:
        """The address behind what comes from the file."""
        return self.vaddr + self.filesz

    @property
    def end(self) -> int:
        return self.vaddr + self.memsz


def down(value: int, unit: int) -> int:
    return value & -unit


def up(value: int, unit: int) -> int:
    return (value + unit - 1) & -unit


def read_segments(
    read: "Read", size: int, offset: int, count: int, entry_size: int
) -> "list[Segment]":
    """The program headers at `offset`. Refused where there are none to work with."""
    length = count * PHDR.size
    if entry_size != PHDR.size or not 0 < count <= MOST_SEGMENTS or offset + length > size:
        raise Refused("has no usable program headers")
    table = read(length, offset)
    if len(table) != length:
        raise Refused("is truncated in its program headers")
    return [Segment(*fields) for fields in PHDR.iter_unpack(table)]


def check_loads(headers: "list[Segment]", size: int) -> "list[Segment]":
    """The segments that are loaded, in the order of their addresses. Refused where the dynamic
    linker could not load them, or where two share a page."""
    loads = [s for s in headers if s.type == PT_LOAD and s.memsz]
    if not loads:
        raise Refused("has nothing to load")
    end = 0
    for s in loads:
        if s.filesz > s.memsz or (s.filesz and s.offset + s.filesz > size):
            raise Refused("is truncated: a segment ends behind the file")
        if s.end >= 1 << 47 or (s.vaddr - s.offset) % PAGE:
            raise Refused("has a segment at an impossible address")
        if down(s.vaddr, PAGE) < end:
            raise Refused("has overlapping segments")
        end = up(s.end, PAGE)
    return loads


def find_file_part(loads: "list[Segment]", offset: int, length: int) -> "Segment | None":
    """The segment that loads a part of the file."""
    for s in loads:
        if s.offset <= offset and offset + length <= s.offset + s.filesz:
            return s
    return None


def find_loaded(loads: "list[Segment]", address: int, length: int) -> "Segment | None":
    """The segment that loads a stretch of addresses from the file."""
    at = bisect_right([s.vaddr for s in loads], address) - 1
    return loads[at] if at >= 0 and address + length <= loads[at].file_end else None


def _read_loaded(s: Segment, loads: "list[Segment]", read: "Read") -> bytes:
    """What a segment that is no PT_LOAD refers to, as it is in memory."""
    holder = find_loaded(loads, s.vaddr, s.memsz)
    if holder is None or s.memsz > MOST_NOTES:
        return b""
    return read(s.memsz, holder.offset + s.vaddr - holder.vaddr)


def is_program(headers: "list[Segment]", loads: "list[Segment]", read: "Read") -> bool:
    """Whether a position-independent object can be a process's executable."""
    if any(s.type == PT_INTERP for s in headers):
        return True
    for s in headers:
        if s.type == PT_DYNAMIC:
            data = _read_loaded(s, loads, read)
            for tag, value in _DYNAMIC.iter_unpack(data[: down(len(data), _DYNAMIC.size)]):
                if tag == DT_FLAGS_1:
                    return bool(value & DF_1_PIE)
    return False


def find_build_id(
    headers: "list[Segment]", loads: "list[Segment]", read: "Read"
) -> "tuple[bytes, int]":
    """The GNU build-id and its address, as the core finds it in memory: the last one there is.
    Empty and 0 where there is none."""
    found = b"", 0
    for s in headers:
        data = _read_loaded(s, loads, read) if s.type == PT_NOTE else b""
        align = 8 if s.align == 8 else 4
        at = 0
        while at + _NOTE.size <= len(data):
            name_size, value_size, kind = _NOTE.unpack_from(data, at)
            name = at + _NOTE.size
            value = at + up(_NOTE.size + name_size, align)
            if value + value_size > len(data):
                break
            is_id = kind == NT_GNU_BUILD_ID and data[name : name + name_size] == b"GNU\0"
            if is_id and value_size <= 32:
                found = data[value : value + value_size], s.vaddr + value
            at += up(value - at + value_size, align)
    return found
