"""What an ELF file says of itself at its beginning, as the binding reads it."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from pyhugetext import _native
from pyhugetext._stats import sentences
from pyhugetext._units import PAGE, down, up

_FILE = struct.Struct("<16sHHIQQQIHHHHHH")
_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_ALIGN_AT = _HEADER.size - 8  # of a program header
_MOST_NAMES, _LONGEST_NAME = 1 << 20, 256  # bytes of the names of sections
PT_LOAD, _PF_X, _PF_W, _SHF_ALLOC = 1, 1, 2, 2


class Load(NamedTuple):
    """A PT_LOAD, rounded to pages; addresses are those of the file."""

    start: int
    end: int
    offset: int
    file_end: int  # in the file; `offset` where nothing of it is
    align: int
    executable: bool
    writable: bool


class Head(NamedTuple):
    """What an ELF file says of itself."""

    headers: bytes
    loads: tuple[Load, ...]
    fixed: bool  # its load bias is 0
    build_id: bytes


class Unreadable(Exception):
    """A file whose headers cannot be read; the text says why."""


class NoObject(Exception):
    """A file that is no ELF object of this machine."""


class OtherFile(Exception):
    """It is not the file that was meant."""


def read_head(fd: int, major: int, minor: int, inode: int) -> Head:
    """Reads the program headers of a shared object or executable, which has to be the file of that
    device and inode; the descriptor may be one of O_PATH. Unreadable, NoObject or OtherFile."""
    outcome, fixed, build_id, headers = _native.read_head(fd, major, minor, inode)
    if sentences.is_ok(outcome):
        return Head(headers, tuple(_loads(headers)), fixed, build_id)
    status = sentences.status_name(outcome)
    if status == "file_gone":
        raise OtherFile
    if status == "unsupported":
        raise NoObject
    raise Unreadable(f"its file cannot be read: {sentences.sentence(outcome)}")


def head_of(fd: int) -> Head | None:
    """The head of an open file; None where it is no object of this machine that can be read. OSError
    as fstat(2)."""
    status = os.fstat(fd)
    try:
        return read_head(fd, os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
    except (Unreadable, NoObject, OtherFile):
        return None


def _loads(headers: bytes) -> list[Load]:
    return [
        Load(
            down(start),
            up(start + size),
            down(offset),
            up(offset + in_file) if in_file else down(offset),
            align,
            bool(flags & _PF_X),
            bool(flags & _PF_W),
        )
        for kind, flags, offset, start, _, in_file, size, align in _HEADER.iter_unpack(headers)
        if kind == PT_LOAD and size
    ]


class First(NamedTuple):
    """The first PT_LOAD of a file, as it is in its table, and what else tells of its alignment."""

    at: int  # where in the file its p_align is
    align: int
    address: int
    offset: int
    size: int  # in memory
    others: int  # the largest p_align of the others; 0 where there are none
    least: int  # the smallest of those of a page or more; 0 where there are none
    sections: (
        int  # the largest alignment of a section in it; 0 where there is none that can be read
    )


def first_load(fd: int, head: Head) -> First | None:
    """What decides about the address of an object whose head was read from the same file. None
    where its file header does not lead to that head (any more). OSError as pread(2)."""
    raw = os.pread(fd, _FILE.size, 0)
    if len(raw) < _FILE.size:
        return None
    table = _FILE.unpack(raw)[5]
    # Beyond what a file can have: pread(2) would not take it.
    if table >= 1 << 62 or os.pread(fd, len(head.headers), table) != head.headers:
        return None
    rows = list(enumerate(_HEADER.iter_unpack(head.headers)))
    loads = [(number, row) for number, row in rows if row[0] == PT_LOAD]
    if not loads:
        return None
    number, (_, _, offset, address, _, _, size, align) = loads[0]
    at = table + number * _HEADER.size + _ALIGN_AT
    asked = [row[7] for _, row in loads[1:]]
    least = min((one for one in asked if one >= PAGE), default=0)
    inside = [
        alignment
        for _, _, flags, where, _, _, _, _, alignment, _ in _SECTION.iter_unpack(_sections(fd, raw))
        if flags & _SHF_ALLOC and address <= where < address + size
    ]
    others = max(asked, default=0)
    return First(at, align, address, offset, size, others, least, max(inside, default=0))


def _sections(fd: int, raw: bytes) -> bytes:
    """The section headers of the file with this file header; empty where they cannot be read. OSError
    as pread(2)."""
    *_, table, _, _, _, _, entry, count, _ = _FILE.unpack(raw)
    if entry != _SECTION.size or table >= 1 << 62:
        return b""
    sections = os.pread(fd, count * entry, table)
    return sections if len(sections) == count * entry else b""


def section_names(fd: int) -> list[str]:
    """The names of a file's sections; empty where it has none that can be read. OSError as
    pread(2)."""
    raw = os.pread(fd, _FILE.size, 0)
    if len(raw) < _FILE.size:
        return []
    names, sections = _FILE.unpack(raw)[-1], _sections(fd, raw)
    if names * _SECTION.size >= len(sections):
        return []
    _, _, _, _, where, size, *_ = _SECTION.unpack_from(sections, names * _SECTION.size)
    if where >= 1 << 62:
        return []
    text = os.pread(fd, min(size, _MOST_NAMES), where)
    out = []
    for at, *_ in _SECTION.iter_unpack(sections):
        end = text.find(b"\0", at, at + _LONGEST_NAME)
        out.append(text[at : end if end >= 0 else at + _LONGEST_NAME].decode("latin-1"))
    return out
