"""What an ELF file says of itself at its beginning, as the binding reads it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from pyhugetext import _native
from pyhugetext._stats import sentences
from pyhugetext._units import down, up

_HEADER = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PF_X, _PF_W = 1, 1, 2


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
        if kind == _PT_LOAD and size
    ]
