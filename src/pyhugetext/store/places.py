"""Stores by name: where one is, whether it can be used, and what its file system does."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pyhugetext import _native

VERSION = "v1"

# What a file system does with new files: huge right after writing; only after write-back and
# eviction; never. UNKNOWN where that was not found out for this kernel, or too long ago.
WRITTEN, EVICTED, NEVER, UNKNOWN = "written", "evicted", "never", "unknown"

# Kinds of Trouble; see src/native/builder/trouble.h.
REFUSED, CHANGED, UNTRUSTED, GONE = "refused", "changed", "untrusted", "gone"
_INTERRUPTED = "interrupted"

Problem = tuple[str, int, str]  # kind, errno or 0, sentence
_T = TypeVar("_T")


class Trouble(OSError):
    """What a store could not do; `kind` says of which sort that is, the text is a sentence."""

    def __init__(self, kind: str, number: int, sentence: str) -> None:
        super().__init__(number, sentence)
        self.kind = kind


class Store(NamedTuple):
    """A store at `root`, whose copies may take `limit` bytes."""

    root: str
    limit: int
    shared_memory: bool  # on tmpfs: copies are collapsed
    public: bool = False  # the system's: read by everyone, found in container images too

    @property
    def base(self) -> str:
        return os.path.join(self.root, VERSION)

    @property
    def index(self) -> str:
        return os.path.join(self.base, "index")

    @property
    def objects(self) -> str:
        return os.path.join(self.base, "objects")

    @property
    def tmp(self) -> str:
        return os.path.join(self.base, "tmp")

    @property
    def spec(self) -> tuple[bytes, int, bool, bool]:
        """As the binding takes it."""
        return os.fsencode(self.root), self.limit, self.shared_memory, self.public


def check(problem: Problem | None) -> None:
    """Raises what the binding tells of as Trouble."""
    if problem is not None:
        raise Trouble(*problem)


def patiently(call: Callable[[], tuple[Problem | None, _T]]) -> _T:
    """What a call that waits for a store's lock comes to. A signal ends the wait, so that its
    handler runs: whatever that does not raise lets it be tried again. Trouble."""
    while True:
        problem, result = call()
        if problem is None or problem[0] != _INTERRUPTED:
            check(problem)
            return result


def open_store(store: Store, make: bool = False) -> None:
    """Makes sure that a store can be used, and makes what is missing of it if told so. Trouble:
    GONE where there is none, UNTRUSTED where somebody else could write there, or where one is to
    be."""
    check(_native.store_open(store.spec, make))


def used_bytes(store: Store) -> int:
    """Disk (or memory) that the copies take. Trouble."""
    problem, used = _native.store_used(store.spec)
    check(problem)
    return used


def free_bytes(directory: str) -> int:
    """Bytes that copies may take of the file system of a directory: what is free above a floor;
    below 0 where it is less. OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        problem, free = _native.free_bytes(fd)
    finally:
        os.close(fd)
    check(problem)
    return free


def judge(store: Store) -> str:
    """What the store's file system does: as remembered, else tried with a small file. Trouble."""
    return patiently(lambda: _native.store_judge(store.spec))


def remembered_verdict(store: Store) -> str:
    """What was found out for this kernel and file system, or UNKNOWN."""
    return _native.store_verdict(store.spec)


def remember(store: Store, verdict: str) -> None:
    """Writes down what judge() is to answer on this kernel and file system. Trouble."""
    patiently(lambda: (_native.store_remember(store.spec, verdict), None))


def try_file(fd: int) -> str:
    """Writes 4 MiB to an empty file as a copy is written, and returns the verdict on its file
    system. Trouble."""
    problem, verdict = _native.try_file(fd)
    check(problem)
    return verdict


# Until the builder in Python goes.
NOBODY = 65534


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
