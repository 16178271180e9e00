"""How a command ends."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130  # as a shell tells of SIGINT


class Failure(Exception):
    """Ends the command: the text is one sentence for stderr, `status` the exit status."""

    def __init__(self, sentence: str, status: int = FAILED) -> None:
        super().__init__(sentence)
        self.status = status
