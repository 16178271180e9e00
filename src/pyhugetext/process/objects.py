"""Finding the ELF objects in the mappings of another process, and what was swapped of each.

The dynamic linker of that process knows; its memory is not read, so the mappings have to tell: an
object is where the segments of a file's program headers fit what is mapped of it.
"""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from pyhugetext._stats.smaps import DELETED, Mapping
from pyhugetext._units import HUGE, down, up
from pyhugetext.process.elf import Head, NoObject, Unreadable
from pyhugetext.process.files import Files, Key, key_of

_STORED = re.compile(r"/v1/objects/[^/]+/[^/]+\Z")
_SHM = re.compile(r"/dev/shm/pyhugetext-[0-9]+/v1/objects/")
_MEMFD, _THP, _HUGETLB = "/memfd:pyhugetext:", "[anon:pyhugetext:", "/anon_hugepage"

# Enough for any program; a process that is built to keep its reader busy gets no more.
_MOST_STEPS = 1 << 20
_TOO_MANY = "the process has too many mappings to look at all of them"


class Object(NamedTuple):
    """An object at its place."""

    key: Key
    head: Head
    bias: int
    low: int
    high: int
    swapped: tuple[Mapping, ...]
    backing: str  # of what is swapped; none


class Rest(NamedTuple):
    """Executable mappings of a file that are no object, or of one whose headers cannot be read."""

    key: Key
    mappings: tuple[Mapping, ...]
    swapped: tuple[Mapping, ...]
    backing: str
    reason: str  # why the headers cannot be read; empty where they are those of no object


def backing_of(mapping: Mapping) -> str | None:
    """The backing that a mapping of ours has, by its name; None for any other."""
    if "x" not in mapping.permissions or mapping.start % HUGE or mapping.end % HUGE:
        return None
    path = mapping.path
    if path.startswith(_MEMFD):
        return "memfd"
    if path.startswith(_HUGETLB):
        return "hugetlb"
    if path.startswith(_THP):
        return "thp"
    if path.endswith(DELETED):
        path = path[: -len(DELETED)]
    if _STORED.search(path):
        return "shm" if _SHM.match(path) else "store"
    return None


def find(mappings: list[Mapping], files: Files) -> tuple[list[Object], list[Rest]]:
    """The objects in order of address, and what else is executable file text."""
    mappings = [mapping for mapping in mappings if not mapping.retired]
    own = [mapping for mapping in mappings if backing_of(mapping)]
    own_starts = {mapping.start for mapping in own}
    by_key: dict[Key, list[Mapping]] = defaultdict(list)
    for mapping in mappings:
        if mapping.inode and mapping.start not in own_starts:
            by_key[key_of(mapping)].append(mapping)

    objects = _Placed()
    rests: dict[Key, str] = {}
    steps = 0
    for key in _candidates(mappings, own_starts, by_key):
        pieces = by_key[key]
        executable = any("x" in m.permissions for m in pieces)
        steps += len(pieces)
        try:
            if steps > _MOST_STEPS:
                raise Unreadable(_TOO_MANY)
            head = files.head(pieces[0])
            steps += len(pieces) * len(head.loads)
            if steps > _MOST_STEPS:
                raise Unreadable(_TOO_MANY)
        except Unreadable as error:
            rests[key] = str(error)
            continue
        except NoObject:
            if executable:
                rests[key] = ""
            continue
        for bias, voters in _biases(head, pieces):
            low = bias + min(load.start for load in head.loads)
            high = bias + max(load.end for load in head.loads)
            steps += _count(mappings, low, high)
            if steps > _MOST_STEPS:
                rests[key] = _TOO_MANY
                break
            if not objects.free(low, high):
                continue
            found = _object(key, head, bias, (low, high), voters, mappings, own)
            if found is not None:
                objects.add(found)
        if executable:
            rests.setdefault(key, "")
    return objects.all, list(_rests(rests, by_key, objects.all, own))


class _Placed:
    """Objects in order of address. No two lie over each other; where files say otherwise the first
    is believed."""

    def __init__(self) -> None:
        self.all: list[Object] = []
        self._lows: list[int] = []

    def free(self, low: int, high: int) -> bool:
        at = bisect.bisect_left(self._lows, high)
        return at == 0 or self.all[at - 1].high <= low

    def add(self, one: Object) -> None:
        at = bisect.bisect_left(self._lows, one.low)
        self._lows.insert(at, one.low)
        self.all.insert(at, one)


def _candidates(
    mappings: list[Mapping], own_starts: set[int], by_key: dict[Key, list[Mapping]]
) -> list[Key]:
    """The files with text, and those beside swapped ranges: of an object that is swapped as a
    whole, only data is left of the original."""
    wanted: dict[Key, None] = {}
    before: Key | None = None
    after_own = False
    for mapping in mappings:
        if mapping.start in own_starts or _unnamed(mapping):
            if before is not None:
                wanted[before] = None
            after_own = True
        elif mapping.inode:
            before = key_of(mapping)
            if after_own or "x" in mapping.permissions:
                wanted[before] = None
            after_own = False
    return [key for key in wanted if key in by_key]


def _unnamed(mapping: Mapping) -> bool:
    """Whether it may be ours on a kernel that gives anonymous memory no names."""
    return (
        not mapping.inode
        and not mapping.path
        and mapping.permissions == "r-xp"
        and mapping.start % HUGE == mapping.end % HUGE == 0
    )


def _biases(head: Head, pieces: list[Mapping]) -> Iterator[tuple[int, list[Mapping]]]:
    """The load biases at which the file's segments fit its mappings, with those that fit."""
    votes: dict[int, list[Mapping]] = defaultdict(list)
    weights: dict[int, int] = defaultdict(int)
    for mapping in pieces:
        if mapping.permissions.startswith("---"):
            continue  # filling between segments
        for load in head.loads:
            if load.offset <= mapping.offset < load.file_end:
                bias = mapping.start - load.start - (mapping.offset - load.offset)
                if bias < 0 or (head.fixed and bias):
                    continue
                # A page of the file where two segments meet belongs to either.
                alike = load.executable == ("x" in mapping.permissions)
                if not votes[bias] or votes[bias][-1] is not mapping:
                    votes[bias].append(mapping)
                weights[bias] += 2 if alike else 1
    taken: set[int] = set()
    for bias in sorted(votes, key=lambda b: -weights[b]):
        voters = [mapping for mapping in votes[bias] if mapping.start not in taken]
        if voters:
            taken.update(mapping.start for mapping in voters)
            yield bias, voters


def _object(
    key: Key,
    head: Head,
    bias: int,
    span: tuple[int, int],
    voters: list[Mapping],
    mappings: list[Mapping],
    own: list[Mapping],
) -> Object | None:
    """The object at that bias, if it has text there as the headers say, and is not a single segment
    of several: libffi maps pages of its own text once more, wherever there is room."""
    low, high = span
    text = [(bias + load.start, bias + load.end) for load in head.loads if load.executable]

    def in_text(mapping: Mapping) -> bool:
        return any(start < mapping.end and mapping.start < end for start, end in text)

    swapped = [m for m in _between(own, low, high) if in_text(m)]
    backing = backing_of(swapped[0]) if swapped else None
    # Text of the file itself on huge pages: advised, and cut to them.
    in_place = [
        m
        for m in voters
        if m.advised and "x" in m.permissions and not (m.start % HUGE or m.end % HUGE)
    ]
    if not swapped and in_place:
        swapped, backing = in_place, "file"
    if not swapped:
        swapped = [m for m in _between(mappings, low, high) if _unnamed(m) and in_text(m)]
        backing = "thp" if swapped else None
    starts = {mapping.start for mapping in swapped}
    plain = any("x" in m.permissions and m.start not in starts and in_text(m) for m in voters)
    if not swapped and not plain:
        return None
    of_file = [load for load in head.loads if load.file_end > load.offset]
    mapped = [*voters, *swapped]
    there = sum(
        any(m.start < bias + load.end and bias + load.start < m.end for m in mapped)
        for load in of_file
    )
    if there < min(2, len(of_file)):
        return None
    return Object(key, head, bias, low, high, tuple(swapped), backing or "none")


def _count(mappings: list[Mapping], low: int, high: int) -> int:
    """How many mappings planning such an object looks at."""
    first = bisect.bisect_left(mappings, (down(low, HUGE),))
    return bisect.bisect_left(mappings, (up(high, HUGE),)) - first


def _between(mappings: list[Mapping], low: int, high: int) -> list[Mapping]:
    """Those that touch the object. A swapped range may reach beyond it, to a whole huge page."""
    first = bisect.bisect_left(mappings, (low - HUGE,))
    last = bisect.bisect_left(mappings, (high,))
    return [m for m in mappings[first:last] if m.end > low]


def _rests(
    rests: dict[Key, str],
    by_key: dict[Key, list[Mapping]],
    objects: list[Object],
    own: list[Mapping],
) -> Iterator[Rest]:
    """What no object accounts for. A swapped range whose original cannot be read goes to the file
    that lies beside it."""
    lows = [one.low for one in objects]

    def accounted(mapping: Mapping) -> bool:
        at = bisect.bisect_right(lows, mapping.start) - 1
        return at >= 0 and mapping.start < objects[at].high

    used = {mapping.start for one in objects for mapping in one.swapped}
    lost = {mapping.start: mapping for mapping in own if mapping.start not in used}
    by_end = {mapping.end: mapping for mapping in lost.values()}

    def beside(mapping: Mapping) -> Iterator[Mapping]:
        """What of the lost follows it, and what comes before it, without a gap."""
        for neighbours, edge in ((lost, "end"), (by_end, "start")):
            found = mapping
            while getattr(found, edge) in neighbours:
                found = neighbours[getattr(found, edge)]
                del lost[found.start], by_end[found.end]
                yield found

    for key, reason in rests.items():
        left = [m for m in by_key[key] if "x" in m.permissions and not accounted(m)]
        if not reason:
            for mapping in left:
                yield Rest(key, (mapping,), (), "none", reason)
            continue
        mine = sorted(found for mapping in by_key[key] for found in beside(mapping))
        if left or mine:
            backing = backing_of(mine[0]) if mine else None
            yield Rest(key, tuple(left), tuple(mine), backing or "none", reason)
    for mapping in lost.values():
        reason = "what it stands for was not found"
        yield Rest(key_of(mapping), (), (mapping,), backing_of(mapping) or "none", reason)
