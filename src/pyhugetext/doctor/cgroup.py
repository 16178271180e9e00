"""The memory limit of this process's control group, version 1 or 2; see cgroups(7)."""

from __future__ import annotations

import os
from typing import NamedTuple

from pyhugetext.doctor.check import read_number, read_text

# Version 1 says "no limit" with the largest multiple of the page size.
_NONE = 1 << 62


class Memory(NamedTuple):
    """The tightest limit on the way up from this process's group. Sizes in bytes."""

    version: int
    path: str  # of the group whose limit it is, below the mount point
    limit: int | None  # None where no group on the way has one
    used: int | None  # of the group with the limit, page cache included


class _Mount(NamedTuple):
    point: str
    root: str  # what of the hierarchy is mounted there


def _mounts() -> list[tuple[str, frozenset[str], _Mount]]:
    """(file system type, its options, where) of what is mounted; see proc_pid_mountinfo(5)."""
    out = []
    for line in (read_text("/proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) > 4 and len(after) > 2 and after[0].startswith("cgroup"):
            root, point = (_unescape(text) for text in before[3:5])
            out.append((after[0], frozenset(after[2].split(",")), _Mount(point, root)))
    return out


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _groups() -> dict[str, str]:
    """Controller -> path of this process's group; version 2 under the empty name."""
    out = {}
    for line in (read_text("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            out[controller] = path
    return out


def _directory(mount: _Mount, path: str) -> str:
    """Where a group is found: what is mounted may be a part of the hierarchy only."""
    if path.startswith(mount.root.rstrip("/") + "/"):
        path = path[len(mount.root.rstrip("/")) :]
    elif path == mount.root:
        path = "/"
    found = os.path.normpath(mount.point + path)
    return found if os.path.isdir(found) else mount.point


def memory() -> Memory | None:
    """What limits this process; None where no memory controller is seen."""
    groups = _groups()
    for kind, options, mount in _mounts():
        if kind == "cgroup" and "memory" in options and "memory" in groups:
            found = _tightest(1, mount, groups["memory"])
        elif kind == "cgroup2" and "" in groups:
            found = _tightest(2, mount, groups[""])
        else:
            continue
        if found is not None:
            return found
    return None


def _tightest(version: int, mount: _Mount, path: str) -> Memory | None:
    limit_file, used_file = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if version == 1
        else ("memory.max", "memory.current")
    )
    directory = _directory(mount, path)
    found: Memory | None = None
    while directory.startswith(mount.point):
        if read_text(os.path.join(directory, used_file)) is not None:
            limit = read_number(os.path.join(directory, limit_file))
            used = read_number(os.path.join(directory, used_file))
            name = directory[len(mount.point.rstrip("/")) :] or "/"
            if limit is not None and limit >= _NONE:
                limit = None
            tighter = limit is not None and (found is None or found.limit is None)
            if found is None or tighter or _less(limit, found.limit):
                found = Memory(version, name, limit, used)
        above = os.path.dirname(directory)
        if above == directory:
            break
        directory = above
    return found


def _less(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one < other
