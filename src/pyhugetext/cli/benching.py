"""One call of `pyhugetext bench`: its options, checked, its progress, and how it is ended."""

from __future__ import annotations

import argparse
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyhugetext.cli.outcome import USAGE, Failure
from pyhugetext.cli.progress import Progress

SECONDS = 60.0
PRECISION = 0.3  # percent
FEWEST_PROCESSES, MOST_PROCESSES = 5, 15  # where --processes is left out
PER_PROCESS = 4.0  # seconds
_SLOTS = (0.001, 60.0)


def number(
    name: str, value: str | None, default: float, low: float, high: float, unit: str = "seconds"
) -> float:
    if value is None:
        return default
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not low <= found <= high:
        raise Failure(f"{name} {value!r}: allowed are {low:g} to {high:g} {unit}", USAGE)
    return found


class Call:
    """One call: the options, checked, and the progress."""

    def __init__(self, options: argparse.Namespace) -> None:
        from pyhugetext import _backing
        from pyhugetext.measure.switcher import SLOT

        self.options = options
        self.command: list[str] | None = options.command
        if bool(options.stmt) == bool(self.command):
            raise Failure("it takes a STMT, or a COMMAND behind --", USAGE)
        self.seconds = number("--seconds", options.seconds, SECONDS, 0.001, 1e6)
        self.slot = number("--slot", options.slot, SLOT, *_SLOTS)
        self.loops = self._count("-n", options.n)
        self.processes = self._count("--processes", options.processes) or min(
            max(round(self.seconds / PER_PROCESS), FEWEST_PROCESSES), MOST_PROCESSES
        )
        self.precision = self._precision(options.precision)
        unused = ("setup", "n", "slot", "processes") if self.command else ("log",)
        for name in unused:
            if getattr(options, name) is not None:
                flag = {"setup": "-s", "n": "-n"}.get(name, f"--{name}")
                what = "COMMAND" if self.command else "STMT"
                raise Failure(f"{flag} does not go with a {what}", USAGE)
        self.backing: str | None = options.backing
        if self.backing is not None and self.backing not in _backing.ALLOWED:
            raise Failure(_backing.unknown("--backing", self.backing), USAGE)
        if options.pyperf is not None:
            folder = os.path.dirname(options.pyperf) or "."
            if not os.access(folder, os.W_OK | os.X_OK):
                raise Failure(f"--pyperf {options.pyperf}: nothing can be written in {folder}")
        if options.html is not None:
            writable(options.html)
        if options.json and options.html == "-":
            raise Failure("the page and --json cannot both go to the standard output", USAGE)
        self.progress = Progress()
        self.shown = 0

    @staticmethod
    def _precision(value: str | None) -> float | None:
        """As a fraction; None where all of the time is to be measured."""
        return number("--precision", value, PRECISION, 0, 50, "percent") / 100 or None

    @staticmethod
    def _count(name: str, value: str | None) -> int | None:
        if value is None:
            return None
        if not (value.isascii() and value.isdigit()) or not 0 < int(value[:20]) < 1 << 40:
            raise Failure(f"{name} {value!r}: a number, 1 or more", USAGE)
        return int(value)

    def begin(self, label: str, whole: bool = False) -> None:
        """A phase of the progress; the `whole` one is counted in milliseconds."""
        self.shown = 0
        total = round(self.seconds * 1000) if whole else 0
        self.progress.begin(label, total, lambda ms: f"{ms / 1000:.0f} s")

    def advance(self, share: float) -> None:
        now = round(share * self.seconds * 1000)
        self.progress.advance(now - self.shown)
        self.shown = now

    def interrupted(self, measure: Callable[[], object]) -> bool:
        """Measures; whether Ctrl-C ended it."""
        try:
            measure()
        except KeyboardInterrupt:
            return True
        finally:
            self.progress.stop()
        return False


def writable(path: str) -> None:
    """Failure where a page cannot be written there: before it takes a minute to find that out."""
    if path == "-":
        return
    folder = os.path.dirname(os.path.realpath(path)) or "."
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise Failure(f"--html {path}: no file can be written there")


@contextmanager
def signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as SIGINT does: with our children. After the first Ctrl-C the
    second of an impatient finger is not heard, so that what was measured is told."""
    presses = 0

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    def interrupt(number: int, frame: object) -> None:
        nonlocal presses
        presses += 1
        if presses != 2:
            raise KeyboardInterrupt

    handlers = {signal.SIGTERM: leave, signal.SIGHUP: leave, signal.SIGINT: interrupt}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if presses:
            # What is left is to print and to end; in that, Python would be killed by another one.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
