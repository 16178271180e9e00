"""What an ELF file asks of the dynamic linker."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from pyhugetext.process.elf import PT_LOAD, Head

_HEADER = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_PT_DYNAMIC, _PT_INTERP = 2, 3
_NULL, _NEEDED, _STRTAB, _SONAME, _RPATH, _RUNPATH = 0, 1, 5, 14, 15, 29
_FLAGS_1, _NO_DEFAULT, _PIE = 0x6FFFFFFB, 0x800, 0x08000000
_MOST_ENTRIES, _LONGEST = 4096, 4096  # of a table; bytes of a name
_MOST_OFFSET = 1 << 62  # pread(2) takes no more


class Dynamic(NamedTuple):
    """What the program headers and the dynamic section say. Empty where they say nothing."""

    interpreter: str = ""  # the dynamic linker that the kernel starts
    needed: tuple[str, ...] = ()
    soname: str = ""
    rpath: str = ""
    runpath: str = ""
    no_default: bool = False  # the linker's usual directories are not for it
    position_independent: bool = False  # a program whose address is another one each time


def read(fd: int, head: Head) -> Dynamic:
    """What the file says whose head was read. OSError as pread(2)."""
    rows = list(_HEADER.iter_unpack(head.headers))
    interpreter, entries = "", []
    for kind, _, offset, _, _, size, _, _ in rows:
        if kind == _PT_INTERP:
            interpreter = _name(_read(fd, offset, min(size, _LONGEST)))
        elif kind == _PT_DYNAMIC:
            data = _read(fd, offset, min(size, _MOST_ENTRIES * _ENTRY.size))
            entries = list(_ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size]))
    ends = [number for number, (tag, _) in enumerate(entries) if tag == _NULL]
    entries = entries[: ends[0]] if ends else entries
    values = dict(entries)
    names = _offset(rows, values.get(_STRTAB, -1))

    def name(at: int | None) -> str:
        if at is None or names is None:
            return ""
        return _name(_read(fd, names + at, _LONGEST))

    flags = values.get(_FLAGS_1, 0)
    soname = name(values.get(_SONAME))
    return Dynamic(
        interpreter,
        tuple(filter(None, (name(value) for tag, value in entries if tag == _NEEDED))),
        soname,
        name(values.get(_RPATH)),
        name(values.get(_RUNPATH)),
        bool(flags & _NO_DEFAULT),
        # Before linkers wrote the flag: the C library names an interpreter, too, and has a name.
        not head.fixed and bool(flags & _PIE or (interpreter and not soname)),
    )


def _read(fd: int, offset: int, size: int) -> bytes:
    return os.pread(fd, size, offset) if offset < _MOST_OFFSET else b""


def _name(data: bytes) -> str:
    return os.fsdecode(data.partition(b"\0")[0])


def _offset(rows: list[tuple[int, ...]], address: int) -> int | None:
    """Where in the file an address lies."""
    for kind, _, offset, start, _, in_file, _, _ in rows:
        if kind == PT_LOAD and start <= address < start + in_file:
            return offset + address - start
    return None
