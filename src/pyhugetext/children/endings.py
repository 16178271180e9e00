"""How processes end, in words, and ending them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


def ending(status: int) -> str:
    """How a process ended, from subprocess's status: `ended with exit status 3`."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"


def tail(file: IO[bytes], most: int = 64 << 10) -> bytes:
    """The last of what was written there."""
    file.seek(max(file.seek(0, os.SEEK_END) - most, 0))
    return file.read()


def last_line(file: IO[bytes]) -> str:
    """`: ` and the last line of what was written there, or nothing."""
    lines = tail(file, 4096).decode("utf-8", "backslashreplace").split("\n")
    shown = [line.strip() for line in lines if line.strip()]
    return f": {shown[-1]}" if shown else ""


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that leads a session, and all that it started and left in it."""
    with uninterrupted():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the end of the block: a process that was just started must be known
    before anything else happens."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C does not come here
        return
    held: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held and callable(previous):
        previous(signal.SIGINT, None)  # which raises KeyboardInterrupt, as a rule
