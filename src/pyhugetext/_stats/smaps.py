"""Reading `/proc/PID/smaps`; see proc_pid_smaps(5)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# The fields that are looked at, by what their lines begin with; the numbers follow in columns.
_RESIDENT, _SHARE = "Rss:     ", "Pss:     "
_PRIVATE, _ANONYMOUS, _HUGE = "Private_", "Anonymous", "huge"
_FLAGS = ("flags",)
_FIELDS = {
    "VmFlags: ": _FLAGS,
    _RESIDENT: (_RESIDENT,),
    _SHARE: (_SHARE,),
    "Private_C": (_PRIVATE,),  # Clean
    "Private_D": (_PRIVATE,),  # Dirty
    "Private_H": (_PRIVATE, _HUGE),  # Hugetlb
    _ANONYMOUS: (_ANONYMOUS,),
    "AnonHugeP": (_HUGE,),
    "ShmemPmdM": (_HUGE,),
    "FilePmdMa": (_HUGE,),
    "Shared_Hu": (_HUGE,),  # Hugetlb
}
_PREFIX = 9

DELETED = " (deleted)"  # what the kernel writes behind the name of a file that has it no more
# What is named so though it never had a name to lose.
_NAMELESS = ("/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage")


def is_replaced(path: str) -> bool:
    """Whether a mapping's path tells of a file that was deleted or replaced since."""
    return (
        path.endswith(DELETED)
        and path.startswith("/")
        and not path.startswith(_NAMELESS)
        and not os.path.lexists(path)  # it is really called so
    )


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
    anonymous: int
    device: str  # as in `fe:00`
    advised: bool  # MADV_HUGEPAGE was called on it
    undumped: bool  # MADV_DONTDUMP was called on it
    share: int = 0  # of what is resident: each page divided by the processes that map it (PSS)

    @property
    def retired(self) -> bool:
        """Whether it is text that the core moved out of the way, which nobody runs: core dumps are
        told to leave it out, and no other text of a file."""
        return self.undumped and bool(self.inode) and self.permissions == "r-xp"


def parse(lines: Iterable[str]) -> Iterator[Mapping]:
    """Yields the mappings of a maps or smaps file in order; of maps all sizes are 0."""
    head = None
    sizes = dict.fromkeys((_RESIDENT, _SHARE, _PRIVATE, _ANONYMOUS, _HUGE), 0)
    none = dict(sizes)
    flags = ""
    for line in lines:
        if "A" <= line[0] <= "Z":  # an address has small letters
            names = _FIELDS.get(line[:_PREFIX])
            if names is None:
                continue
            if names is _FLAGS:
                flags = line
                continue
            for name in names:
                sizes[name] += int(line.partition(":")[2].split()[0]) * 1024
            continue
        if head:
            yield _mapping(head, sizes, flags)
        head = line
        sizes.update(none)
        flags = ""
    if head:
        yield _mapping(head, sizes, flags)


def _unescape(path: str, inode: int) -> str:
    """The name of a mapped file. The kernel writes a newline in it as \\012, and nothing else so; a
    name that holds these four characters itself looks the same."""
    if "\\012" not in path:
        return path
    try:
        if os.lstat(path).st_ino == inode:
            return path
    except OSError:
        pass
    return path.replace("\\012", "\n")


def _mapping(head: str, sizes: dict[str, int], flags: str) -> Mapping:
    span, permissions, offset, device, rest = head.split(" ", 4)
    start, _, end = span.partition("-")
    inode, _, path = rest.partition(" ")
    return Mapping(
        int(start, 16),
        int(end, 16),
        permissions,
        int(offset, 16),
        int(inode),
        _unescape(path.lstrip(" ").rstrip("\n"), int(inode)),
        sizes[_RESIDENT],
        sizes[_HUGE],
        sizes[_PRIVATE],
        sizes[_ANONYMOUS],
        device,
        " hg" in flags,
        " dd" in flags,
        sizes[_SHARE],
    )


def read(path: str = "/proc/self/smaps", directory: int | None = None) -> list[Mapping]:
    """The mappings of a process, from its maps (no sizes then) or smaps; `path` may be relative to
    an open directory. OSError where the process is gone or not ours."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    # The kernel escapes nothing but the newline: a carriage return in a name ends no line.
    with open(fd, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return list(parse(file))
