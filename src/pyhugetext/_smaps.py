"""Reading `/proc/PID/smaps`; see proc_pid_smaps(5)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_HUGE = frozenset(
    ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Private_Hugetlb", "Shared_Hugetlb")
)
_PRIVATE = frozenset(("Private_Clean", "Private_Dirty", "Private_Hugetlb"))


class Mapping(NamedTuple):
    """One mapping: addresses and sizes in bytes, `permissions` as in `r-xp`."""

    start: int
    end: int
    permissions: str
    offset: int
    inode: int
    path: str
    resident: int
    huge: int  # in 2 MiB pages, whatever they are backed by
    private: int  # mapped by no other process
    private_dirty: int
    anonymous: int
    device: str  # as in `fe:00`
    advised: bool  # MADV_HUGEPAGE was called on it


def parse(lines: Iterable[str]) -> Iterator[Mapping]:
    """Yields the mappings of a smaps file in order. ValueError for a line that is none."""
    head: tuple[int, int, str, int, int, str] | None = None
    device = ""
    advised = False
    sizes: dict[str, int] = {}
    for line in lines:
        first, _, rest = line.partition(" ")
        if first.endswith(":"):
            if rest.endswith(" kB\n"):
                sizes[first[:-1]] = int(rest[:-4]) * 1024
            elif first == "VmFlags:":
                advised = " hg " in f" {rest.rstrip()} "
            continue
        if head:
            yield _mapping(head, sizes, device, advised)
        start, _, end = first.partition("-")
        fields = rest.split(None, 4)
        path = fields[4].rstrip("\n") if len(fields) == 5 else ""
        head = (int(start, 16), int(end, 16), fields[0], int(fields[1], 16), int(fields[3]), path)
        device = fields[2]
        advised = False
        sizes = {}
    if head:
        yield _mapping(head, sizes, device, advised)


def _mapping(
    head: tuple[int, int, str, int, int, str], sizes: dict[str, int], device: str, advised: bool
) -> Mapping:
    return Mapping(
        *head,
        resident=sizes.get("Rss", 0),
        huge=sum(size for name, size in sizes.items() if name in _HUGE),
        private=sum(size for name, size in sizes.items() if name in _PRIVATE),
        private_dirty=sizes.get("Private_Dirty", 0),
        anonymous=sizes.get("Anonymous", 0),
        device=device,
        advised=advised,
    )


def read(path: str = "/proc/self/smaps", directory: int | None = None) -> list[Mapping]:
    """The mappings of a process, from its maps (no sizes then) or smaps; `path` may be relative to
    an open directory. OSError where the process is gone or not ours."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    # The kernel escapes nothing but the newline: a carriage return in a name ends no line.
    with open(fd, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return list(parse(file))
