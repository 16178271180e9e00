"""Where stores are, and whom to trust with one."""

import os
import stat

VERSION = "v1"


class Untrusted(Exception):
    """A directory that somebody else could write; the text says which and why."""


def check_trust(path: str) -> None:
    """Makes sure that only this user or root can put names into the directory `path` or change
    the way there. Untrusted otherwise; the core checks the same before it maps anything."""
    us = (0, os.geteuid())
    step = "/"
    parts = [part for part in path.split("/") if part]
    for i in range(len(parts) + 1):
        if i:
            step = os.path.join(step, parts[i - 1])
        status = os.lstat(step)
        if status.st_uid not in us:
            raise Untrusted(f"{step} belongs to user {status.st_uid}")
        if stat.S_ISLNK(status.st_mode):
            continue
        if not stat.S_ISDIR(status.st_mode):
            raise Untrusted(f"{step} is no directory")
        if status.st_mode & 0o022:
            sticky = i < len(parts) and status.st_mode & stat.S_ISVTX and status.st_uid == 0
            if not sticky:
                raise Untrusted(f"{step} is writable by others (mode {status.st_mode & 0o7777:o})")


def is_trusted_file(status: os.stat_result) -> bool:
    """Whether lstat(2) tells of a plain file that nobody but this user or root can write, under
    no other name; the core maps no other."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid in (0, os.geteuid())
        and not status.st_mode & 0o022
        and status.st_nlink == 1
    )


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
