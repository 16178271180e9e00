"""Stores by name: where one is, whether it can be used, and what its file system does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from pyhugetext import _native
else:

    class _Later:
        """The native part. Commands say what they do where there is none, too."""

        def __getattr__(self, name):
            from pyhugetext import _native

            return getattr(_native, name)

    _native = _Later()

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
    def records(self) -> str:
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
