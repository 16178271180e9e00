"""Tables of what is covered, a bar a line; in colours where rich is installed and the output is a
terminal."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from pyhugetext._stats.model import (
    SIZES,
    Region,
    Stats,
    by_coverable,
    name_of,
    not_small,
    replaced_line,
    sizes_of,
    sums_of,
)
from pyhugetext.cli import text
from pyhugetext.cli.processes import Seen, Unread

LEGEND = "of the coverable text: # huge now, ~ moved but small, = not used yet, - on small pages"

_HEADER = ("object", "text", "coverable", "mapped", "huge", "private", "backing", "coverage")
_ALL_HEADER = ("pid", "user", "command", *_HEADER[1:])
# What a narrow terminal has no room for.
_NARROW, _ALL_NARROW = {"text", "mapped"}, {"user", "text", "coverable", "mapped"}
_COVERAGE = re.compile(r"(?<= )([#~=-]+)(?= +[0-9]+ %$)")
_WIDE, _MEDIUM = 110, 90  # columns of a terminal from which the bar has its full or half width


def sizes(one: Stats | Region) -> tuple[str, ...]:
    """The columns text to private."""
    return tuple(text.size(number) for number in sizes_of(one))


def swapped_bytes(stats: Stats) -> int:
    return sum(region.swapped_bytes for region in stats.regions)


def bar(coverable: int, mapped: int, swapped: int, huge: int, width: int, small: int = 0) -> str:
    """`width` cells for the coverable text, and the share that is mapped and not seen to be small,
    rounded down: 100 % is all of it. Nothing where nothing is coverable."""
    if not coverable:
        return ""
    ready = min(mapped / coverable, 1.0)
    filled = round(ready * width)
    now = round(ready * min(huge / swapped, 1.0) * width) if swapped else 0
    now = min(now, filled)
    # Any of it shows.
    bad = min(math.ceil(ready * min(small / swapped, 1.0) * width), filled) if swapped else 0
    now = min(now, filled - bad)
    cells = "#" * now + "~" * bad + "=" * (filled - now - bad) + "-" * (width - filled)
    share = not_small(mapped, swapped, small)
    return f"{cells} {min(100 * share // coverable, 100):3} %".lstrip()


def _bar_of(stats: Stats, width: int) -> str:
    swapped = swapped_bytes(stats)
    huge, small = stats.huge_bytes, stats.small_bytes
    return bar(stats.coverable_bytes, stats.mapped_bytes, swapped, huge, width, small)


def _bar_width(width: int | None) -> int:
    if width is None or width >= _WIDE:
        return 20
    return 10 if width >= _MEDIUM else 8


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: str,
    width: int | None,
    drop: set[str],
) -> list[str]:
    kept = [
        i for i, name in enumerate(header) if width is None or width >= _MEDIUM or name not in drop
    ]
    return text.table(
        [header[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        "".join(align[i] for i in kept),
        width,
    )


def process_lines(seen: Seen, width: int | None) -> list[str]:
    """The table of one process's objects."""
    stats, cells = seen.stats, _bar_width(width)
    command = text.printable(seen.command)
    head = f"process {seen.pid} (user {text.printable(seen.user)}): "
    lines = [head + text.shorten(command, max((width or 200) - len(head), 30))]
    if not seen.python and not seen.preloaded:
        lines.append("note: it does not run Python, as far as its files tell")
    if not stats.active:
        lines.append(f"not active: {stats.reason}")
    shown, small = by_coverable(stats.regions)
    shown.sort(key=lambda r: -r.coverable_bytes)
    rows = [_row(region, cells) for region in shown]
    if small:
        size = text.size(sum(r.text_bytes for r in small))
        rows.append((f"({len(small)} too small)", size, *("0 B",) * 4, "none", ""))
    rows.append(("total", *sizes(stats), stats.backing, _bar_of(stats, cells)))
    lines += _table(_HEADER, rows, "prrrrrlr", width, _NARROW)
    lines += _reasons(stats, shown, small)
    lines += [text.printable(line) for line in replaced_line(stats.regions)]
    lines += [f"problem: {text.printable(problem)}" for problem in stats.problems]
    return lines


def _row(r: Region, cells: int) -> tuple[str, ...]:
    huge, small = r.huge_bytes, r.small_bytes
    share = bar(r.coverable_bytes, r.mapped_bytes, r.swapped_bytes, huge, cells, small)
    return (name_of(r), *sizes(r), r.backing, share)


def _reasons(stats: Stats, shown: Sequence[Region], small: Sequence[Region]) -> list[str]:
    """Why not all is covered, a line a reason. Where nothing is active that was said before, and
    what is merely too small needs no line."""
    told: dict[str, list[str]] = {}
    for region in (*shown, *small):
        merely = not region.swapped_bytes and not stats.active and region.coverable_bytes
        if region.reason and not merely and not region.reason.startswith("too small"):
            told.setdefault(region.reason, []).append(region.path)
    lines = []
    for reason, paths in told.items():
        more = f" and {len(paths) - 1} more" if paths[1:] else ""
        lines.append(f"{text.printable(paths[0])}{more}: {text.printable(reason)}")
    return lines


def overview_lines(found: Sequence[Seen], width: int | None) -> list[str]:
    """The table of processes, a line each."""
    cells = _bar_width(width)
    rows = [
        (
            *(str(seen.pid), seen.user, seen.command),
            *sizes(seen.stats),
            seen.stats.backing,
            _bar_of(seen.stats, cells),
        )
        for seen in found
    ]
    longest = 60 if width is None else width  # else one long command line widens all others
    rows = [(*row[:2], text.shorten(text.printable(row[2]), longest), *row[3:]) for row in rows]
    return _table(_ALL_HEADER, rows, "rlprrrrrlr", width, _ALL_NARROW)


def total_of(found: Iterable[Seen]) -> dict[str, int]:
    """The sums over processes; text that they share counts for each."""
    stats = [seen.stats for seen in found]
    swapped = sum(map(swapped_bytes, stats))
    return {"processes": len(stats), **sums_of(stats), "swapped_bytes": swapped}


def total_line(found: Sequence[Seen]) -> str:
    total = total_of(found)
    parts = [f"{text.size(total[key])} {key.partition('_')[0]}" for key in SIZES]
    if total["small_bytes"]:
        parts.append(f"{text.size(total['small_bytes'])} in use but small")
    return f"{text.count(total['processes'], 'process', 'processes')}: {', '.join(parts)}"


def unread_lines(unread: Sequence[Unread]) -> list[str]:
    """How many processes were not read, a line a cause."""
    causes: dict[str, int] = {}
    for one in unread:
        causes[one.cause] = causes.get(one.cause, 0) + 1
    return [
        f"not read: {text.count(number, 'process', 'processes')} ({text.printable(cause)})"
        for cause, number in causes.items()
    ]


class Screen:
    """Prints lines; where the output is a terminal and rich is installed, their bars in colours."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.width = text.width_of(self._stream)
        self._console = None
        if self.width is not None:
            with contextlib.suppress(ImportError):
                from rich.console import Console

                # Of NO_COLOR, TERM and the like rich knows.
                self._console = Console(file=self._stream)

    def lines(self, lines: Iterable[str]) -> None:
        self._stream.write("".join(f"{self._paint(line)}\n" for line in lines))
        self._stream.flush()

    def redraw(self, lines: Sequence[str]) -> None:
        """Replaces what is on the terminal; what does not fit is counted."""
        size = shutil.get_terminal_size()
        self.width = size.columns
        height = max(size.lines - 1, 2)
        if len(lines) > height:
            rest = text.count(len(lines) - height + 1, "more line")
            lines = [*lines[: height - 1], f"({rest}; a larger terminal shows them)"]
        painted = "".join(f"{self._paint(line[: self.width])}\x1b[K\n" for line in lines)
        self._stream.write(f"\x1b[H{painted}\x1b[J")
        self._stream.flush()

    def _paint(self, line: str) -> str:
        match = _COVERAGE.search(line)
        if not match or self._console is None:
            return line
        from rich.text import Text

        painted = Text(line)
        at = match.start()
        for cell, style in (("#", "green"), ("~", "yellow"), ("=", "cyan"), ("-", "dim")):
            length = match[1].count(cell)
            painted.stylize(style, at, at + length)
            at += length
        with self._console.capture() as captured:
            self._console.print(painted, soft_wrap=True, end="")
        return captured.get()
