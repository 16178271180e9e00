"""Rooms and arrows: who refers to whom, and whether the table of rooms lets it.

A unit is a module of Python or a file of C++; what finds the references of a language is beside its
test. Each broken rule is a sentence with the file, the line and the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

# By room, the rooms that it may touch beside itself.
Table = Mapping[str, tuple[str, ...]]


class Reference(NamedTuple):
    """A line that names another unit."""

    file: str  # as people name it
    line: int
    source: str
    target: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def broken_arrows(
    references: Iterable[Reference], room_of: Callable[[str], str], table: Table
) -> Iterator[str]:
    """A sentence for each reference from a room to one that it may not touch."""
    for one in references:
        source, target = room_of(one.source), room_of(one.target)
        if target != source and target not in table[source]:
            allowed = ", ".join(table[source]) or "no other"
            yield (
                f"{one.place}: {one.target} is in the room {target}; "
                f"the room {source} may touch: {allowed}"
            )


def circular(table: Table) -> list[str]:
    """The rooms of a table whose arrows lead back to them."""
    return [room for room in table if any(_leads(table, above, room) for above in table[room])]


def _leads(table: Table, start: str, end: str) -> bool:
    seen, left = set(), [start]
    while left:
        room = left.pop()
        if room == end:
            return True
        if room not in seen:
            seen.add(room)
            left.extend(table[room])
    return False


def circles(references: Iterable[Reference]) -> Iterator[str]:
    """A sentence for each circle of units, with the line of each of its arrows."""
    arrows: dict[str, dict[str, Reference]] = {}
    for one in references:
        arrows.setdefault(one.source, {}).setdefault(one.target, one)
    done: set[str] = set()

    def walk(unit: str, path: list[str]) -> Iterator[str]:
        for target in arrows.get(unit, ()):
            if target in path:
                circle = [*path[path.index(target) :], target]
                places = [arrows[a][b].place for a, b in zip(circle, circle[1:])]
                yield f"{', '.join(places)}: the circle {' -> '.join(circle)}; none is allowed"
            elif target not in done:
                yield from walk(target, [*path, target])
        done.add(unit)

    for unit in sorted(arrows):
        if unit not in done:
            yield from walk(unit, [unit])
