"""Plain text: sizes, ages, paths, tables, bars. Complete and aligned without any library."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from pyhugetext._words import size as size

_NARROWEST = 20  # a shortened column keeps at least this


def age(seconds: float) -> str:
    """A stretch of time in its largest whole unit: `3 d`."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now" if seconds < 1 else f"{int(seconds)} s"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 object`, `2 objects`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def printable(text: str) -> str:
    """A path or a message without what would break a table or drive a terminal."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as JSON can hold it
        raw = text.encode("utf-8", "backslashreplace")
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def bar(share: float, width: int) -> str:
    """A bar of `width` cells, `share` (0 to 1) of them filled."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    return "#" * filled + "-" * (width - filled)


def width_of(stream: TextIO | None) -> int | None:
    """The columns of the terminal behind a stream; None where there is none."""
    try:
        if stream is not None and stream.isatty():
            return shutil.get_terminal_size().columns
    except ValueError:  # closed
        pass
    return None


def can_redraw(stream: TextIO | None) -> bool:
    """Whether there is a terminal behind a stream on which lines can be written over."""
    return width_of(stream) is not None and os.environ.get("TERM") not in ("dumb", "unknown")


def shorten(text: str, width: int) -> str:
    """The text in at most `width` columns: the middle gives way, names stay readable."""
    if len(text) <= width:
        return text
    head = max((width - 3) // 3, 0)
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str, width: int | None = None
) -> list[str]:
    """The lines of a table. `align` has a letter a column: `l`, `r`, or `p` for a text to the left
    that is shortened where the table is wider than `width` columns."""
    lines = [tuple(header), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    if width is not None:
        too_wide = sum(widths) + 2 * (len(widths) - 1) - width
        for i in sorted((i for i, a in enumerate(align) if a == "p"), key=lambda i: -widths[i]):
            if too_wide > 0:
                narrower = max(widths[i] - too_wide, min(widths[i], _NARROWEST))
                too_wide -= widths[i] - narrower
                widths[i] = narrower
    out = []
    for line in lines:
        cells = [
            cell.rjust(w) if a == "r" else shorten(cell, w).ljust(w)
            for cell, w, a in zip(line, widths, align)
        ]
        out.append("  ".join(cells).rstrip())
    return out


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> None:
    """Prints a table that fits the terminal."""
    print("\n".join(table(header, rows, align, width_of(sys.stdout))))


def say(sentence: str, command: str = "") -> None:
    """One sentence on stderr, as in `pyhugetext warm: no module named 'x'`."""
    name = f"pyhugetext {command}" if command else "pyhugetext"
    complain(f"{name}: {printable(sentence)}\n")


def complain(lines: str) -> None:
    """Writes to stderr as it is, where there is one that takes it: the exit status tells, too."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.write(lines)
            sys.stderr.flush()
