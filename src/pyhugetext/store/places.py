"""Stores by name: where one is, whether it can be used, and what its file system does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pyhugetext._settings import Settings

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
COLLAPSED = "collapsed"

# Kinds of Trouble; see trouble.h.
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
    # system: read by everyone, found in container images too; user; shm: on tmpfs, copies are
    # collapsed.
    kind: str = "user"
    # Whether what is made there lasting is found by content as well, in other containers of an image.
    images: bool = False
    better: str = ""  # of one in shared memory: the root of the store on disk that is asked first

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
    def spec(self) -> tuple[bytes, int, bool, bool, bool, bytes]:
        """As the binding takes it."""
        kinds = self.kind == "shm", self.kind == "system", self.images
        return os.fsencode(self.root), self.limit, *kinds, os.fsencode(self.better)


def system(settings: Settings) -> Store:
    """The system's store."""
    return Store(settings.system_store, settings.store_limit, "system", images=True)


def user(settings: Settings) -> Store | None:
    """The user's store on disk; None where nothing says where that is."""
    return Store(settings.store, settings.store_limit) if settings.store else None


def shared_memory(settings: Settings) -> Store:
    """The user's store in shared memory."""
    return Store(settings.shm_store, settings.shm_limit, "shm", better=settings.store or "")


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


def result_of(answer: tuple[Problem | None, _T]) -> _T:
    """What the binding answers, or Trouble."""
    check(answer[0])
    return answer[1]


def used_bytes(store: Store) -> int:
    """Disk (or memory) that the copies take. Trouble."""
    return result_of(_native.store_used(store.spec))


def free_bytes(directory: str) -> int:
    """Bytes that copies may take of the file system of a directory: what is free above a floor;
    below 0 where it is less. OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return result_of(_native.free_bytes(fd))
    finally:
        os.close(fd)


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
    return result_of(_native.try_file(fd))
