"""Looking through a store: what it holds, what of it is still good, and what can go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pyhugetext import _native
from pyhugetext.store import places
from pyhugetext.store.places import Store

if TYPE_CHECKING:
    from pyhugetext._native import RawEntry

# Of an entry: ready to be mapped; its original was changed or is gone; never known to be on disk
# and of another boot; not what was written.
READY, STALE, EXPIRED, DAMAGED = "ready", "stale", "expired", "damaged"


class Entry(NamedTuple):
    """A record and its copy. Sizes in bytes, times in seconds since the epoch."""

    name: str
    original: str  # empty where it is not known
    copy: str  # empty where the record is unreadable
    bias: int
    size: int
    disk: int  # allocated
    built: float
    used: float  # to the day
    durable: bool
    image: bool  # found by what a container image keeps of a file
    state: str
    reason: str | None


class Note(NamedTuple):
    """Why a file has no entry. Believed for a day on the kernel it was written on."""

    name: str
    original: str
    bias: int
    reason: str
    kernel: str
    noted: float
    state: str  # ready: believed; stale: of another kernel, too old, or its original changed


class Removed(NamedTuple):
    """What prune() or clear() removed. `freed` in bytes."""

    path: str
    why: str
    freed: int


def contents(store: Store) -> tuple[list[Entry], list[Note]]:
    """All entries and notes, sorted by name, without comparing content. Trouble where they cannot
    be read."""
    problem, told = _native.store_entries(store.spec)
    places.check(problem)
    told.sort(key=lambda raw: raw["name"])
    entries = [_entry(store, raw) for raw in told if not raw["note"]]
    return entries, [_note(raw) for raw in told if raw["note"]]


def _entry(store: Store, raw: RawEntry) -> Entry:
    return Entry(
        raw["name"], raw["original"], os.path.join(store.base, raw["copy"]) if raw["copy"] else "",
        raw["bias"], raw["size"], raw["disk"], raw["built"], raw["used"], raw["durable"],
        raw["image"], raw["state"], raw["reason"] or None,
    )  # fmt: skip


def _note(raw: RawEntry) -> Note:
    return Note(
        raw["name"], raw["original"], raw["bias"], raw["reason"], raw["kernel"], raw["used"],
        raw["state"],
    )  # fmt: skip


def verify(store: Store, entry: Entry) -> tuple[Entry | None, bool]:
    """Compares an entry with its original, byte for byte, and removes it where it is damaged.

    Returns the entry with what was found (None where it is gone) and whether it was removed.
    Trouble.
    """
    problem, raw, removed = _native.store_verify(store.spec, os.fsencode(entry.name))
    places.check(problem)
    return (None if raw is None else _entry(store, raw)), removed


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


def clear(store: Store) -> int:
    """Removes the whole store. Returns the bytes freed. Processes that run from it go on: their
    copies stay until they end. Trouble."""
    return places.patiently(lambda: _native.store_clear(store.spec))
