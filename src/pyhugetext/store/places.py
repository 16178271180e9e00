"""Where stores are, and whom to trust with one."""

import os
import stat

VERSION = "v1"
NOBODY = 65534  # kNobody in core/trust.cpp: what is nobody's may be anybody's


class Untrusted(Exception):
    """A directory that somebody else could write; the text says which and why."""


def check_trust(path: str) -> None:
    """Makes sure that only this user or root can put names into the directory `path` or change
    the way there. Untrusted otherwise; the core checks the same before it maps anything."""
    if _check_steps(path, False):
        _check_steps(os.path.realpath(path), False)


def check_before_making(path: str) -> None:
    """As check_trust for a directory that may have to be made: as far as there is one. Before
    anything is made, lest root leaves its directories in somebody else's home."""
    missing = False
    while not os.path.lexists(path):
        path, missing = os.path.dirname(path), True
    if _check_steps(path, missing):
        _check_steps(os.path.realpath(path), missing)


def check_own(path: str) -> None:
    """Makes sure of one directory below a trusted one: no symbolic link, ours, nobody else's to
    write."""
    status = os.lstat(path)
    _check_directory(path, status, False)


def _check_steps(path: str, above: bool) -> bool:
    """Checks each step; whether there is a symbolic link among them, whose way counts too. `above`
    when the store itself is not there yet."""
    step, links = "/", False
    parts = [part for part in path.split("/") if part]
    for i in range(len(parts) + 1):
        if i:
            step = os.path.join(step, parts[i - 1])
        status = os.lstat(step)
        if stat.S_ISLNK(status.st_mode):
            _check_owner(step, status)
            links = True
        else:
            _check_directory(step, status, above or i < len(parts))
    return links


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid()) and status.st_uid != NOBODY


def _check_owner(path: str, status: os.stat_result) -> None:
    if not _is_ours(status):
        raise Untrusted(f"{path} belongs to user {status.st_uid}")


def _check_directory(path: str, status: os.stat_result, above: bool) -> None:
    _check_owner(path, status)
    if not stat.S_ISDIR(status.st_mode):
        raise Untrusted(f"{path} is no directory")
    # What is sticky and root's, as /tmp and /dev/shm are, will do above the store.
    sticky = above and status.st_mode & stat.S_ISVTX and status.st_uid == 0
    if status.st_mode & 0o022 and not sticky:
        raise Untrusted(f"{path} is writable by others (mode {status.st_mode & 0o7777:o})")


def open_trusted(path: str) -> int:
    """Opens a file of a store for reading: a regular one that only this user or root can write.
    Other names of it are no danger, owner and mode being the file's own. Untrusted, OSError; never
    waits for a FIFO's writer."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags)
    try:
        status = os.fstat(fd)
        _check_owner(path, status)
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted(f"{path} is no plain file")
        if status.st_mode & 0o022:
            raise Untrusted(f"{path} is writable by others (mode {status.st_mode & 0o7777:o})")
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_trusted_file(status: os.stat_result) -> bool:
    """Whether lstat(2) tells of a plain file that nobody but this user or root can write; the core
    maps no other."""
    return stat.S_ISREG(status.st_mode) and _is_ours(status) and not status.st_mode & 0o022


def make_directory(path: str, mode: int) -> None:
    """Makes a directory, its parents too, with exactly this mode where it is new. OSError as
    mkdir(2)."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_directory(parent, 0o755 if mode & 0o055 else 0o700)
    try:
        os.mkdir(path, mode)
        os.chmod(path, mode)  # whatever the umask
    except FileExistsError:
        if not os.path.isdir(path):
            raise
