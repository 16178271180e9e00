"""Progress on a terminal, for what takes longer than a moment: rich's bar where rich is installed,
a line that is rewritten where it is not, nothing where stderr is no terminal that can."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pyhugetext.cli import text

_SHOW_AFTER = 1.0  # seconds: what ends sooner shows nothing
_REDRAW = 0.2


class Progress:
    """begin() starts a phase, advance() and label() say where it is, stop() takes the bar away. A
    context manager stops it at its end.

    Drawn by a thread of its own, so that one long step is seen to go on.
    """

    def __init__(self) -> None:
        self._label = ""
        self._total = 0
        self._done = 0
        self._show: Callable[[int], str] = text.size
        self._began = 0.0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def begin(self, label: str, total: int = 0, show: Callable[[int], str] = text.size) -> None:
        """A new phase; `total` is ahead, 0 where that is not known: bytes, or what `show` makes
        words of."""
        self.stop()
        self._show = show
        self._label, self._total, self._done = label, total, 0
        self._began = time.monotonic()
        if text.can_redraw(sys.stderr):
            self._end.clear()
            self._thread = threading.Thread(target=self._draw, daemon=True)
            self._thread.start()

    def label(self, label: str) -> None:
        """What is being worked on."""
        self._label = label

    def advance(self, amount: int) -> None:
        """So much more is done."""
        self._done += amount

    def stop(self) -> None:
        """Takes the bar away, so that what is printed next stands alone."""
        if self._thread is not None:
            self._end.set()
            self._thread.join()
            self._thread = None

    def _draw(self) -> None:
        if self._end.wait(_SHOW_AFTER):
            return
        try:
            import rich.progress as rich
        except ImportError:
            self._draw_line()
        else:
            self._draw_rich(rich)

    def _draw_line(self) -> None:
        while True:
            line = text.shorten(self._line(), max((text.width_of(sys.stderr) or 80) - 1, 10))
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()
            if self._end.wait(_REDRAW):
                break
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    def _line(self) -> str:
        seconds = int(time.monotonic() - self._began)
        label = text.printable(self._label)
        if not self._total:
            return f"{label} ({seconds} s)"
        share = self._done / self._total
        return f"[{text.bar(share, 24)}] {share:4.0%} {self._amount()} {seconds} s {label}"

    def _amount(self) -> str:
        return f"{self._show(self._done)} of {self._show(self._total)}" if self._total else ""

    def _draw_rich(self, rich: Any) -> None:
        from rich.console import Console

        columns = (
            rich.SpinnerColumn(),
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            rich.TextColumn("{task.fields[amount]}", markup=False),
            rich.TimeElapsedColumn(),
        )
        with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None, amount="")
            while True:
                label = text.shorten(text.printable(self._label), 40)
                total = self._total or None
                amount = self._amount()
                bar.update(
                    task, description=label, completed=self._done, total=total, amount=amount
                )
                if self._end.wait(_REDRAW):
                    break
