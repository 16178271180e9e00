"""Reading `/proc/PID/smaps`; see proc_pid_smaps(5)."""

from __future__ import annotations

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


def parse(lines: Iterable[str]) -> Iterator[Mapping]:
    """Yields the mappings of a smaps file in order. ValueError for a line that is none."""
    head: tuple[int, int, str, int, int, str] | None = None
    sizes: dict[str, int] = {}
    for line in lines:
        first, _, rest = line.partition(" ")
        if first.endswith(":"):
            value = rest.split()
            if len(value) == 2 and value[1] == "kB":
                sizes[first[:-1]] = int(value[0]) * 1024
            continue
        if head:
            yield _mapping(head, sizes)
        start, _, end = first.partition("-")
        fields = rest.split(None, 4)
        path = fields[4].rstrip("\n") if len(fields) == 5 else ""
        head = (int(start, 16), int(end, 16), fields[0], int(fields[1], 16), int(fields[3]), path)
        sizes = {}
    if head:
        yield _mapping(head, sizes)


def _mapping(head: tuple[int, int, str, int, int, str], sizes: dict[str, int]) -> Mapping:
    return Mapping(
        *head,
        resident=sizes.get("Rss", 0),
        huge=sum(size for name, size in sizes.items() if name in _HUGE),
        private=sum(size for name, size in sizes.items() if name in _PRIVATE),
        private_dirty=sizes.get("Private_Dirty", 0),
        anonymous=sizes.get("Anonymous", 0),
    )


def read(pid: int | str = "self") -> list[Mapping]:
    """The mappings of a process. OSError where it is gone or not ours."""
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="surrogateescape") as file:
        return list(parse(file))
