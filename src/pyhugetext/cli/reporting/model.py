"""What a report is about: a process, its objects with their cells, and measurements."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyhugetext._stats.model import by_coverable

if TYPE_CHECKING:
    from pyhugetext._stats.model import Region, Stats
    from pyhugetext.cli.reporting.benchfile import Bench
    from pyhugetext.process.cells import Cell

HUGE = "huge"
WAITING = "waiting"
MIXED = "mixed"
SMALL = "small"

STATES = {
    HUGE: "in a 2 MiB page",
    WAITING: "not used yet",
    MIXED: "moved, in use, and yet in 4 KiB pages",
    SMALL: "in 4 KiB pages",
}

COLOURS = 8  # of objects; the rest have one together

# Where a running process has its text is nobody's business who only reads the report.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Subject:
    """The process."""

    name: str  # what to call it: `python3.11 with torch imported`
    executable: str
    pid: int | None  # None where it was started for the report, and has ended


@dataclass(frozen=True)
class Block:
    """An object on the map. `colour` is 1 to COLOURS, 0 for the common one."""

    name: str
    region: Region
    cells: tuple[str, ...]  # states in address order
    colour: int


@dataclass(frozen=True)
class Report:
    """All that a page shows."""

    subject: Subject
    stats: Stats
    blocks: tuple[Block, ...]  # objects with coverable text, in address order
    small: tuple[Region, ...]  # the rest, the largest first
    small_cells: tuple[str, ...]
    version: str
    taken: str  # when, in UTC
    benches: tuple[Bench, ...] = field(default=())

    @property
    def waiting(self) -> bool:
        """Whether some of it was swapped and not used yet."""
        return any(WAITING in block.cells for block in self.blocks)


def percent(part: int, whole: int) -> str:
    """`98 %`, rounded down: 100 % is all of it. Near to it a digit more; empty for none at all."""
    if not whole:
        return ""
    tenths = 1000 * part // whole
    return f"{tenths / 10} %" if 990 < tenths < 1000 else f"{tenths // 10} %"


def name_of(path: str) -> str:
    return os.path.basename(path) or "?"


def reason_of(region: Region) -> str:
    """Why not all of it, without addresses; empty where there is nothing to say."""
    return without_addresses(region.reason or "")


def without_addresses(sentence: str) -> str:
    return _ADDRESS.sub("", sentence)


def _state(cell: Cell) -> str:
    # What was swapped and is not resident comes as a huge page.
    return WAITING if cell.kind == HUGE and not cell.huge_bytes else cell.kind


def build(
    subject: Subject,
    stats: Stats,
    cells: Iterable[Cell],
    benches: Sequence[Bench],
    version: str,
    taken: str,
) -> Report:
    """Puts it together."""
    shown, small = by_coverable(stats.regions)
    paths = {region.path for region in shown}
    states: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    small_cells = []
    for cell in sorted(cells, key=lambda cell: cell.address):
        state = _state(cell)
        if cell.path in paths:
            states.setdefault(cell.path, []).append(state)
            first.setdefault(cell.path, cell.address)
        else:
            small_cells.append(state)
    # The program itself has a colour of its own, too, small as it is.
    largest = sorted(
        shown, key=lambda region: (region.path != subject.executable, -region.coverable_bytes)
    )[:COLOURS]
    largest.sort(key=lambda region: -region.coverable_bytes)
    colours = {region.path: number for number, region in enumerate(largest, 1)}
    shown.sort(key=lambda region: first.get(region.path, region.start))
    return Report(
        subject=subject,
        stats=stats,
        blocks=tuple(
            Block(
                name_of(region.path),
                region,
                tuple(states.pop(region.path, ())),
                colours.get(region.path, 0),
            )
            for region in shown
        ),
        small=tuple(
            sorted(
                (region for region in small if region.path not in paths),
                key=lambda region: -region.text_bytes,
            )
        ),
        small_cells=tuple(small_cells),
        version=version,
        taken=taken,
        benches=tuple(benches),
    )
