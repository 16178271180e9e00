"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator

STDOUT = "-"


def write(path: str, content: str) -> int:
    """Writes the text to a file, or to stdout where the path is `-`; returns its bytes.

    A file that was there is replaced in one step, with its permissions, and stays as it is when
    anything fails; see rename(2). What is no regular file (a pipe, /dev/null) is written to.
    OSError says what went wrong.
    """
    data = content.encode("utf-8")
    if path == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return len(data)
    if path.endswith("/"):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    # Behind a symbolic link it is the file that is replaced.
    target = os.path.realpath(path)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        _replace(path, target, data, None)
        return len(data)
    if stat.S_ISREG(mode):
        _replace(path, target, data, stat.S_IMODE(mode))
    else:
        with _told_of(path), open(path, "wb") as file:  # a directory says here that it is one
            file.write(data)
    return len(data)


@contextlib.contextmanager
def _told_of(path: str) -> Iterator[None]:
    """An error is told of the file that was named, and not of another one behind it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _replace(path: str, target: str, data: bytes, mode: int | None) -> None:
    if mode is not None and not os.access(target, os.W_OK):
        # Replacing needs the directory's permission only, but who took the file's meant it.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    name = f".pyhugetext-{secrets.token_hex(6)}.tmp"
    temporary = os.path.join(os.path.dirname(target), name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with _told_of(path):
        descriptor = os.open(temporary, flags, 0o666)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
