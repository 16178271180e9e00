"""How a command ends."""

from __future__ import annotations

import os

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130  # as a shell tells of SIGINT


class Failure(Exception):
    """Ends the command: the text is one sentence for stderr, `status` the exit status."""

    def __init__(self, sentence: str, status: int = FAILED) -> None:
        super().__init__(sentence)
        self.status = status


def reason_of(error: BaseException) -> str:
    """An exception as a person reads it: what failed, on what."""
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        return f"{name}: {error.strerror}" if name else error.strerror
    return str(error) or type(error).__name__
