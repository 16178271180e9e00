"""Programs that start workers of their own. They print what they do, stop where the workers are to be
looked at, and say who they are there; imported by path in them, so only the standard library is at hand."""

from __future__ import annotations

import sys
from collections.abc import Iterable

STOP = "look now"


def say(told: Iterable[str]) -> None:
    """Lines of application.told()."""
    for line in told:
        print(line)


def pause() -> None:
    """Until the test has looked."""
    print(STOP, flush=True)
    sys.stdin.readline()
