"""The memory limit of this process's control groups, as the core reads it before it copies."""

from __future__ import annotations

from typing import NamedTuple

from pyhugetext import _native, _words


class Memory(NamedTuple):
    """The tightest limit on the way up from this process's group. Sizes in bytes."""

    version: int
    path: str | None  # of the group whose limit it is, below the mount point
    limit: int | None  # None where no group on the way has one
    used: int | None  # of that group, without page cache that can be dropped
    left: int | None  # the least that a group on the way leaves
    unknown: str  # what could not be read


def memory() -> Memory | None:
    """What limits this process; None where no memory controller is seen."""
    room = _native.memory_room()
    status, call, number = room["known"]
    failed = _native.STATUSES[status] == "memory_limit"
    if not room["version"] and not failed:
        return None
    limited = room["limit"] is not None
    return Memory(
        room["version"],
        room["group"] or None,
        room["limit"],
        room["used"] if limited else None,
        room["free"],
        _words.failed_call(call, number) if failed else "",
    )
