"""Looking through a store: what it holds, what of it is still good, and what can go."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from pyhugetext import _native
from pyhugetext.store import places
from pyhugetext.store.places import Store

# Of an entry: ready to be mapped; its original was changed or is gone; never known to be on disk
# and of another boot; not what was written.
READY, STALE, EXPIRED, DAMAGED = "ready", "stale", "expired", "damaged"


class Entry(NamedTuple):
    """A record and its copy, or a note. Sizes in bytes, times in seconds since the epoch.

    A note says why a file has no entry. It is believed for a day on the kernel it was written on,
    and stale where that was another one, or too long ago, or its original changed.
    """

    note: bool
    name: str
    original: str  # empty where it is not known
    copy: str  # empty where the record is unreadable
    bias: int
    size: int
    disk: int  # allocated
    built: float
    used: float  # to the day; when it was written of a note
    pages: int  # 2 MiB pages of text that the original has
    present: int  # of them, those that the copy has so far
    durable: bool
    image: bool  # found by what a container image keeps of a file
    state: str
    reason: str
    kernel: str  # of a note


class Healed(NamedTuple):
    """What heal() came to for one entry, in 2 MiB pages of its copy."""

    pages: int
    cached: int  # of them, those that were in memory: the others come at their first use
    before: int  # of these, huge
    after: int
    reason: str  # why some are small still; empty where none is


class Removed(NamedTuple):
    """What prune() or clear() removed. `freed` in bytes."""

    path: str
    why: str
    freed: int


def contents(store: Store) -> tuple[list[Entry], list[Entry]]:
    """All entries and all notes, sorted by name, without comparing content. Trouble where they
    cannot be read."""
    told = places.result_of(_native.store_entries(store.spec))
    found = sorted((_entry(store, raw) for raw in told), key=lambda entry: entry.name)
    return [one for one in found if not one.note], [one for one in found if one.note]


def _entry(store: Store, raw: dict[str, Any]) -> Entry:
    entry = Entry(**raw)
    return entry._replace(copy=os.path.join(store.base, entry.copy) if entry.copy else "")


def verify(store: Store, entry: Entry) -> tuple[Entry | None, bool]:
    """Compares an entry with its original, byte for byte, and removes it where it is damaged.

    Returns the entry with what was found (None where it is gone) and whether it was removed.
    Trouble.
    """
    problem, raw, removed = _native.store_verify(store.spec, os.fsencode(entry.name))
    places.check(problem)
    return (None if raw is None else _entry(store, raw)), removed


def heal(store: Store, entry: Entry) -> Healed | None:
    """Gets what is in memory of an entry's copy back onto 2 MiB pages: writes it back, drops what is
    small, makes room, reads it again. None where the entry is gone. Trouble."""
    problem, raw = _native.store_heal(store.spec, os.fsencode(entry.name))
    if problem is not None and problem[0] == places.GONE:
        return None
    places.check(problem)
    return Healed(**raw)


def prune(store: Store) -> Iterator[Removed]:
    """Removes what no process can use any more, leftovers, and the least recently used entries
    above the size cap. Yields each with the reason. Trouble where something cannot be removed."""
    problem: places.Problem | None = None

    def call() -> tuple[places.Problem | None, list[tuple[str, str, int]]]:
        nonlocal problem
        problem, told = _native.store_prune(store.spec)
        return (None if told else problem), told

    for what, why, freed in places.patiently(call):
        own = what.startswith(f"{places.VERSION}/")
        yield Removed(os.path.join(store.root, what) if own else what, why, freed)
    places.check(problem)


def forget(store: Store, originals: Collection[str]) -> int:
    """Removes the entries of some files, and what prune() removes. Returns of how many files there
    were entries. Trouble."""
    entries, _ = contents(store)
    found = [entry for entry in entries if entry.original in originals]
    index = os.open(store.records, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for entry in found:
            try:
                os.unlink(entry.name, dir_fd=index)
            except FileNotFoundError:
                continue
    finally:
        os.close(index)
    list(prune(store))  # copies that no record tells of
    return len({entry.original for entry in found})


def clear(store: Store) -> int:
    """Removes the whole store. Returns the bytes freed. Processes that run from it go on: their
    copies stay until they end. Trouble."""
    return places.patiently(lambda: _native.store_clear(store.spec))
