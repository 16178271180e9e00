"""The statistics of another process, read from /proc; it is neither stopped nor changed.

What is coverable is planned by the core, as that process itself planned it, from its mappings and
the program headers of the files. Two things only that process knows: the time it took, and why the
better backings were not taken (`elapsed_ns` is 0 and `fallbacks` are empty).
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pyhugetext import _native, _smaps, _words
from pyhugetext._collect import PRIVATE, Mappings, foreign, not_loaded, region_of, total
from pyhugetext._files import PAGE, Files, device_numbers
from pyhugetext._objects import HUGE, Object, Rest, find
from pyhugetext._proc import Gone, NotInspectable, Process, State
from pyhugetext._smaps import Mapping
from pyhugetext._stats import Region, Stats

if TYPE_CHECKING:
    from pyhugetext._native import RawRegion

__all__ = ["Cell", "NotInspectable", "cells", "inspect"]

_TRIES = 4
_PAUSE = 0.002  # seconds; an execve(2) takes less
_NONE, _ONE, _SMALL = range(3)  # how a cell is mapped; core/pagemap.h
_ASK = "pyhugetext.stats() in that process says why"
_BOOT = re.compile(r"/pyhugetext/_boot[^/]*\.so")
_PYTHON = re.compile(
    r"/(python[23]?(\.[0-9]+)?t?d?"  # an interpreter
    r"|libpython[0-9.]+[a-z]*\.so[0-9.]*"
    r"|[^/]+\.(cpython-[0-9]+[^/]*|abi3)\.so)( \(deleted\))?\Z"  # an extension module
)
_CHANGED = "its mappings changed while they were read: the figures may not fit together"


class Cell(NamedTuple):
    """2 MiB of address space, from a multiple of 2 MiB, with executable file text in it."""

    address: int
    path: str  # of the object with most of that text
    text_bytes: int
    huge_bytes: int  # what the kernel holds in a 2 MiB page now: all of it or nothing
    kind: str  # huge: a 2 MiB page, or one at the first touch; small; mixed: swapped, yet small


class Examined(NamedTuple):
    """A process's statistics, and whether it runs Python."""

    stats: Stats
    python: bool


class _Look(NamedTuple):
    """What was seen of a process at one time."""

    state: State
    mappings: Mappings
    planned: list[tuple[Object, RawRegion]]
    rests: list[Rest]
    problems: list[str]


def inspect(pid: int) -> Stats:
    """The same statistics as `pyhugetext.stats()` gives in the process `pid`, now.

    Needs the right to read it (one's own processes; all for root; PTRACE_MODE_READ of ptrace(2)),
    and not that it runs Python. Raises NotInspectable, with a sentence that says why.
    """
    with Process(pid) as process:
        return examine(process).stats


def examine(process: Process) -> Examined:
    """What inspect() says of an open process, and whether it runs Python."""
    look = _look(process)
    return Examined(_stats(look), runs_python(look.mappings.all))


def _look(process: Process) -> _Look:
    """Reads again where the process ran another program or loaded a library in the meantime."""
    for left in reversed(range(_TRIES)):
        before = process.state()
        try:
            mappings = process.mappings()
            if not before.start_code:  # in the middle of execve(2)
                raise Gone(f"process {process.pid} starts another program just now")
            files = Files(process)
            try:
                objects, rests = find(mappings, files)
            finally:
                files.close()
            found = Mappings(mappings)
            planned = [(one, _plan(one, found, before)) for one in objects]
            after = process.mappings("maps")
        except Gone:
            if not left:
                raise
            time.sleep(_PAUSE)
            continue
        if process.state()[3:] != before[3:]:
            continue
        problems = [] if _text(mappings) == _text(after) else [_CHANGED]
        if not problems or not left:
            return _Look(before, found, planned, rests, problems)
    raise NotInspectable(f"process {process.pid} keeps starting other programs")


def _text(mappings: list[Mapping]) -> list[tuple[int, int, int, str]]:
    return [(m.start, m.end, m.inode, m.device) for m in mappings if "x" in m.permissions]


def _plan(one: Object, mappings: Mappings, state: State) -> RawRegion:
    major, minor = device_numbers(one.key.device)
    swapped = {mapping.start for mapping in one.swapped}
    raw = _native.plan_elsewhere(
        one.bias,
        one.head.headers,
        _is_main(one, state),
        major,
        minor,
        one.key.inode,
        _native.BACKINGS.index(one.backing),
        one.head.build_id,
        [
            (m.start, m.end, m.offset, m.inode, *device_numbers(m.device), m.permissions, s)
            for m in mappings.within(one.low // HUGE * HUGE, -(-one.high // HUGE) * HUGE)
            for s in (m.start in swapped,)
        ],
    )
    raw["path"] = one.key.path
    return raw


def _is_main(one: Object, state: State) -> bool:
    return one.low <= state.start_code < one.high


def _stats(look: _Look) -> Stats:
    regions = [
        region_of(raw, look.mappings, _reason)
        for one, raw in sorted(look.planned, key=lambda pair: not _is_main(pair[0], look.state))
        if raw["text_bytes"]
    ]
    regions += [_rest(rest) for rest in look.rests]
    return total(regions, _why_inactive(look), 0, look.problems)


def _reason(raw: RawRegion, swapped: int, resident: int, huge: int) -> str | None:
    if not raw["coverable_bytes"]:
        return _words.SENTENCES["too_small"]
    if not swapped:
        return f"on small pages; {_ASK}"
    parts = []
    left = [start for start, _end, page_swapped, _ in raw["pages"] if not page_swapped]
    if left:
        more = f" and {len(left) - 1} more left as they were" if left[1:] else " left as it was"
        parts.append(f"2 MiB at {left[0]:#x}{more}; {_ASK}")
    if huge < resident:
        parts.append(f"the kernel holds {huge // 1024} of {resident // 1024} KiB in 2 MiB pages")
    return "; ".join(parts) or None


def _rest(rest: Rest) -> Region:
    """A region for what has no readable headers: the figures of maps and smaps, as they are."""
    if not rest.reason:
        return not_loaded(rest.mappings[0])
    swapped = sum(m.end - m.start for m in rest.swapped)
    huge = min(sum(m.huge for m in rest.swapped), swapped)
    private = sum(m.private if rest.backing in PRIVATE else m.anonymous for m in rest.swapped)
    counted = "; what is swapped counts as text" if swapped else "; what is coverable is not known"
    mappings = sorted((*rest.mappings, *rest.swapped))
    text = sum(m.end - m.start for m in mappings)
    return replace(
        not_loaded(mappings[0]),
        path=rest.key.path,
        start=(rest.swapped or mappings)[0].start,
        end=(rest.swapped or mappings)[-1].end,
        text_bytes=text,
        coverable_bytes=swapped,
        mapped_bytes=swapped,
        swapped_bytes=swapped,
        huge_bytes=huge,
        private_bytes=private,
        backing=rest.backing,
        status="partial" if swapped else "small",
        reason=rest.reason + counted,
        replaced=_smaps.is_replaced(rest.key.path),
    )


def _why_inactive(look: _Look) -> str:
    if any(one.swapped for one, _ in look.planned) or any(rest.swapped for rest in look.rests):
        return "what was swapped is not in 2 MiB pages (yet)"
    if any(_BOOT.search(mapping.path) for mapping in look.mappings.all):
        return f"nothing was swapped; {_ASK}"
    return (
        "pyhugetext is not loaded in it (not installed for that Python, or PYHUGETEXT=0)"
        if runs_python(look.mappings.all)
        else "it does not run Python"
    )


def runs_python(mappings: Iterable[Mapping]) -> bool:
    """Whether mappings look like those of a CPython process, by the names of the files: the
    interpreter's, libpython's, or an extension module's."""
    return any(_PYTHON.search(m.path) for m in mappings if "x" in m.permissions)


def cells(pid: int | None) -> list[Cell]:
    """The 2 MiB cells of a process that hold executable file text, in order of address; of this
    process for None. NotInspectable as inspect()."""
    if pid is None or pid == os.getpid():
        return _own_cells()
    with Process(pid) as process:
        look = _look(process)
        raws = [raw for _, raw in look.planned]
        others = [m for rest in look.rests for m in (*rest.mappings, *rest.swapped)]
        swapped = {m.start for rest in look.rests for m in rest.swapped}
        try:
            fd = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process.directory)
        except OSError as error:
            raise process.reason(error) from None
        try:
            return _cells(raws, others, swapped, look.mappings, fd)
        finally:
            os.close(fd)


def _own_cells() -> list[Cell]:
    raws = _native.snapshot()["regions"]
    mappings = Mappings(_smaps.read())
    spans = sorted((raw["low"], raw["high"]) for raw in raws)
    others = foreign(spans, mappings)
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _cells(raws, others, set(), mappings, fd)
    finally:
        os.close(fd)


def _cells(
    raws: list[RawRegion],
    others: list[Mapping],
    swapped_others: set[int],
    mappings: Mappings,
    pagemap: int,
) -> list[Cell]:
    texts: dict[int, dict[str, int]] = {}
    swapped: set[int] = set()

    def add(start: int, end: int, path: str) -> None:
        for at in range(start // HUGE * HUGE, end, HUGE):
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
    entries = _entries(sorted(texts), mappings, pagemap)
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


def _entries(addresses: list[int], mappings: Mappings, pagemap: int) -> dict[int, int]:
    """How the kernel maps each 2 MiB now: _NONE, _ONE, _SMALL."""
    out: dict[int, int] = {}
    at = 0
    while at < len(addresses):
        count = 1
        while at + count < len(addresses) and addresses[at + count] == addresses[at] + count * HUGE:
            count += 1
        start = addresses[at]
        try:
            marks = _native.find_entries(pagemap, start, count)
        except OSError:  # before Linux 6.7
            marks = bytes(_entry(start + i * HUGE, mappings, pagemap) for i in range(count))
        for i, mark in enumerate(marks):
            out[start + i * HUGE] = mark
        at += count
    return out


def _entry(address: int, mappings: Mappings, pagemap: int) -> int:
    """The same from pagemap's entries, which tell what is present, and smaps, which tells of a
    mapping as a whole."""
    data = os.pread(pagemap, HUGE // PAGE * 8, address // PAGE * 8)
    present = sum(entry >> 63 for (entry,) in struct.iter_unpack("=Q", data))
    if not present:
        return _NONE
    over = mappings.within(address, address + HUGE)
    whole = len(over) == 1 and over[0].start <= address and over[0].huge >= over[0].resident
    return _ONE if whole and over[0].huge and present == HUGE // PAGE else _SMALL
