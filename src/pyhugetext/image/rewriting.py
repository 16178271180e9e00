"""Puts a changed file in the place of an old one: written beside, looked at, renamed. Whoever has the
old one open or mapped keeps it; killed at any point it leaves the old or the new one, whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyhugetext import _words
from pyhugetext.image import rights
from pyhugetext.image.alignment import Patch
from pyhugetext.image.rights import Kept, Left

_OURS = re.compile(r"\.pyhugetext-image-[0-9a-f]{16}\.tmp")
_CHUNK = 4 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Where a file cannot be cloned or copied within the kernel.
_ELSEWHERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EIO)


@contextmanager
def directory_of(path: str) -> Iterator[tuple[int, str]]:
    """The directory of a path, open, and the name in it. OSError."""
    where, name = os.path.split(path)
    fd = os.open(where or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd, name
    finally:
        os.close(fd)


def sweep(directory: int) -> int:
    """Removes what killed runs left in a directory; how many files."""
    removed = 0
    for name in os.listdir(directory):
        if not _OURS.fullmatch(name):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(name, _READ, dir_fd=directory)
            try:
                # One that is being written is held by who writes it.
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_uid == os.geteuid():
                    os.unlink(name, dir_fd=directory)
                    removed += 1
            finally:
                os.close(fd)
    return removed


class Beside:
    """A new file beside an old one, of which it has everything but the content. A context manager:
    what was not put in place is removed at its end."""

    def __init__(self, directory: int, name: str, source: int) -> None:
        self._directory, self._name, self._source = directory, name, source
        self.status = os.fstat(source)
        self.name = f".pyhugetext-image-{secrets.token_hex(8)}.tmp"
        self._held = -1
        self._placed = False

    def __enter__(self) -> Beside:
        self._held = os.open(self.name, _NEW, 0o600, dir_fd=self._directory)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if not self._placed:
            with contextlib.suppress(OSError):
                os.unlink(self.name, dir_fd=self._directory)
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def write(self, fill: Callable[[int], None]) -> None:
        """Has `fill` write the content to a descriptor, and all of it go to the disk. What else the
        old file has, the new one gets: owner, mode, attributes, times. Left, OSError."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.name, flags, dir_fd=self._directory)
        try:
            fill(fd)
            made, old = os.fstat(fd), self.status
            if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
                os.fchown(fd, old.st_uid, old.st_gid)
            self._keep_attributes(fd)
            os.fchmod(fd, stat.S_IMODE(old.st_mode))
            os.fsync(fd)
        finally:
            os.close(fd)  # or it could not be executed

    def _keep_attributes(self, fd: int) -> None:
        for name in rights.attributes(self._source):
            value = os.getxattr(self._source, name)
            try:
                if name not in rights.attributes(fd) or os.getxattr(fd, name) != value:
                    os.setxattr(fd, name, value)
            except OSError as error:
                reason = _words.reason(error)
                raise Left(f"its attribute {name} cannot be kept: {reason}") from None

    def place(self) -> None:
        """Puts the new file in place of the old one, for good. Left where that is not the same any
        more; OSError."""
        old = self.status
        os.utime(self._held, ns=(old.st_atime_ns, old.st_mtime_ns))
        now = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        if Kept.of(now) != Kept.of(old) or Kept.of(os.fstat(self._source)) != Kept.of(old):
            raise Left("it was changed meanwhile")
        os.rename(self.name, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._placed = True
        os.fsync(self._directory)


def copy(source: int, target: int, size: int) -> None:
    """Copies a whole file, cloned where the file system can. OSError."""
    at = 0
    quick = hasattr(os, "copy_file_range")
    while at < size:
        if quick:
            try:
                done = os.copy_file_range(source, target, size - at, at, at)
            except OSError as error:
                if error.errno not in _ELSEWHERE:
                    raise
                quick = False
                continue
            if done:
                at += done
                continue
            quick = False
        data = os.pread(source, min(_CHUNK, size - at), at)
        if not data:
            raise Left("it was changed meanwhile")
        write_all(target, data, at)
        at += len(data)


def write_all(fd: int, data: bytes, at: int) -> None:
    """All of it. OSError."""
    while data:
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done


def change(
    directory: int, name: str, source: int, patch: Patch, check: Callable[[str], None]
) -> None:
    """Replaces a file, open as `source`, by one with eight other bytes, when `check` has nothing
    against the new one, whose name it is given. Left, OSError."""

    def fill(fd: int) -> None:
        copy(source, fd, os.fstat(source).st_size)
        if os.pread(fd, 8, patch.at) != patch.reverse.data:
            raise Left("it was changed meanwhile")
        write_all(fd, patch.data, patch.at)

    with Beside(directory, name, source) as new:
        new.write(fill)
        check(new.name)
        new.place()
