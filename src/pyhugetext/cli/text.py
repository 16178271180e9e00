"""Plain text: sizes, ages, paths, tables, bars. Complete and aligned without any library."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from pyhugetext._words import printable as printable
from pyhugetext._words import shorten as shorten
from pyhugetext._words import size as size
from pyhugetext._words import table as table


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


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> None:
    """Prints a table that fits the terminal."""
    print("\n".join(table(header, rows, align, width_of(sys.stdout))))


def say(sentence: str, command: str = "") -> None:
    """One sentence on stderr, as in `pyhugetext warm: no module named 'x'`."""
    name = f"pyhugetext {command}" if command else "pyhugetext"
    complain(f"{name}: {printable(sentence)}\n")


def complain(lines: str) -> None:
    """Writes to stderr as it is, where there is one that takes it: the exit status tells, too."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(lines)
        sys.stderr.flush()
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """What is still to be written there goes nowhere: Python would end with 120 for it."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
