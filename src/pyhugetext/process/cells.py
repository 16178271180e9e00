"""The 2 MiB cells of a process that hold executable file text, for a map of it."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from pyhugetext import _native
from pyhugetext._stats import smaps
from pyhugetext._stats.collecting import Mappings, foreign
from pyhugetext._stats.smaps import Mapping
from pyhugetext._units import HUGE, PAGE, down
from pyhugetext.process.inspect import look_at
from pyhugetext.process.proc import Process

if TYPE_CHECKING:
    from pyhugetext._native import RawRegion

_NONE, _ONE, _SMALL = range(3)  # how a cell is mapped; see pagemap.h


class Cell(NamedTuple):
    """2 MiB of address space, from a multiple of 2 MiB, with executable file text in it."""

    address: int
    path: str  # of the object with most of that text
    text_bytes: int
    huge_bytes: int  # what the kernel holds in a 2 MiB page now: all of it or nothing
    kind: str  # huge: a 2 MiB page, or one at the first touch; small; mixed: swapped, yet small


def of(pid: int | None) -> list[Cell]:
    """The 2 MiB cells of a process that hold executable file text, in order of address; of this
    process for None. NotInspectable as inspect()."""
    if pid is None or pid == os.getpid():
        return _own_cells()
    with Process(pid) as process:
        look = look_at(process)
        raws = [raw for _, raw in look.planned]
        others = [m for rest in look.rests for m in (*rest.mappings, *rest.swapped)]
        swapped = {m.start for rest in look.rests for m in rest.swapped}
        try:
            return _cells(raws, others, swapped, look.mappings, process.directory)
        except OSError as error:
            raise process.reason(error) from None


def _own_cells() -> list[Cell]:
    raws = _native.snapshot()["regions"]
    mappings = Mappings(smaps.read())
    spans = sorted((raw["low"], raw["high"]) for raw in raws)
    return _cells(raws, foreign(spans, mappings), set(), mappings)


def _cells(
    raws: list[RawRegion],
    others: list[Mapping],
    swapped_others: set[int],
    mappings: Mappings,
    directory: int | None = None,
) -> list[Cell]:
    texts: dict[int, dict[str, int]] = {}
    swapped: set[int] = set()

    def add(start: int, end: int, path: str) -> None:
        for at in range(down(start, HUGE), end, HUGE):
            bytes_ = min(end, at + HUGE) - max(start, at)
            paths = texts.setdefault(at, {})
            paths[path] = paths.get(path, 0) + bytes_

    for raw in raws:
        for start, end in raw["texts"]:
            add(start, end, raw["path"])
        swapped.update(start for start, _, is_swapped, _ in raw["pages"] if is_swapped)
    for mapping in others:
        add(mapping.start, mapping.end, mapping.path)
        if mapping.start in swapped_others:
            swapped.update(range(mapping.start, mapping.end, HUGE))
    file = "/proc/self/pagemap" if directory is None else "pagemap"
    pagemap = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        entries = {at: _entry(at, mappings, pagemap) for at in texts}
    finally:
        os.close(pagemap)
    out = []
    for at in sorted(texts):
        path = max(texts[at], key=lambda name: texts[at][name])
        entry = entries[at]
        if entry == _ONE or (at in swapped and entry == _NONE):
            kind = "huge"
        else:
            kind = "mixed" if at in swapped else "small"
        huge = HUGE if entry == _ONE else 0
        out.append(Cell(at, path, sum(texts[at].values()), huge, kind))
    return out


def _entry(address: int, mappings: Mappings, pagemap: int) -> int:
    """How the kernel maps 2 MiB now: _NONE, _ONE, _SMALL."""
    try:
        return _native.find_entries(pagemap, address, 1)[0]
    except OSError:  # before Linux 6.7
        return _guess(address, mappings, pagemap)


def _guess(address: int, mappings: Mappings, pagemap: int) -> int:
    """The same from pagemap's entries, which tell what is present, and smaps, which tells of a
    mapping as a whole."""
    data = os.pread(pagemap, HUGE // PAGE * 8, address // PAGE * 8)
    present = sum(entry >> 63 for (entry,) in struct.iter_unpack("=Q", data))
    if not present:
        return _NONE
    over = mappings.within(address, address + HUGE)
    whole = len(over) == 1 and over[0].start <= address and over[0].huge >= over[0].resident
    return _ONE if whole and over[0].huge and present == HUGE // PAGE else _SMALL
