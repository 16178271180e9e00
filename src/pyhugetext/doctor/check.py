"""One thing that was looked at."""

from __future__ import annotations

from typing import Any, NamedTuple

# What a check says: fine; it costs something; nothing works with it; neither good nor bad; the
# kernel does not tell.
OK, LIMIT, PROBLEM, INFO, UNKNOWN = "ok", "limit", "problem", "info", "unknown"

CHILD_SECONDS = 20.0  # a python that is started to see how it fares has so long


class Check(NamedTuple):
    """What was found: `text` for people, `facts` the same as plain values (sizes in bytes, times
    in nanoseconds)."""

    group: str  # kernel, process, machine, tried, start
    name: str
    state: str
    text: str
    facts: dict[str, Any]
