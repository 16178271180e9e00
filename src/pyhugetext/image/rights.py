"""Whether a file may be replaced by a changed one: whose it is, who else has it, who vouches for it."""

from __future__ import annotations

import array
import fcntl
import os
import stat
from typing import NamedTuple

from pyhugetext.process import elf

# linux/fs.h
_GET_FLAGS = 0x80086601
_FLAGS = {0x10: "it is immutable", 0x20: "it is append-only", 0x100000: "it is sealed by fs-verity"}
# Attributes that sign content, and sections of the same use.
_SIGNING = ("security.ima", "security.evm")
_SECTIONS = (".sig", ".signature", ".gnu.sig", ".gnu_sig", ".note.signature", ".module_sig")


class Left(Exception):
    """A file stays as it is; the text says why. `failed` where that was not its own doing: no room,
    no rights, a layer that cannot be written."""

    def __init__(self, reason: str, failed: bool = False) -> None:
        super().__init__(reason)
        self.failed = failed


def check_owner(status: os.stat_result) -> None:
    """Left unless a file is a plain one of ours and of nobody else's."""
    if not stat.S_ISREG(status.st_mode):
        raise Left("it is no regular file")
    if status.st_uid != os.geteuid():
        raise Left(f"it belongs to user {status.st_uid}")
    if status.st_nlink > 1:
        raise Left(
            f"it has {status.st_nlink} names (hard links, as uv makes; UV_LINK_MODE=copy does not)"
        )
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise Left("it is set-user-ID or set-group-ID")


def check_place(directory: int) -> None:
    """Left where a directory takes no new file."""
    if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        raise Left("it is on a read-only file system", failed=True)
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
        raise Left("its directory cannot be written", failed=True)


def check_signatures(fd: int) -> None:
    """Left where something vouches for the content of a file."""
    for name in attributes(fd):
        if name in _SIGNING:
            raise Left(f"it is signed ({name})")
    for name in elf.section_names(fd):
        if name.startswith(_SECTIONS):
            raise Left(f"it is signed (section {name})")
    flags = array.array("L", [0])
    try:
        fcntl.ioctl(fd, _GET_FLAGS, flags)
    except OSError:  # a file system without such
        return
    for flag, reason in _FLAGS.items():
        if flags[0] & flag:
            raise Left(reason)


def attributes(fd: int) -> list[str]:
    """The extended attributes of a file."""
    try:
        return os.listxattr(fd)
    except OSError:
        return []


class Kept(NamedTuple):
    """What a file is known by, to see whether it was changed meanwhile."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, status: os.stat_result) -> Kept:
        times = status.st_mtime_ns, status.st_ctime_ns
        return cls(status.st_dev, status.st_ino, status.st_size, *times)
