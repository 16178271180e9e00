"""Looking through a store: what it holds, what of it is still good, and what can go."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from pyhugetext.store import ahead, catalogue, copy, elf, files, record, room
from pyhugetext.store.catalogue import Catalogue

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
    reason: str
    kernel: str
    noted: float
    state: str  # ready: believed; stale: of another kernel, too old, or its original changed


class Removed(NamedTuple):
    """What prune() or verify() removed. `freed` in bytes."""

    path: str
    why: str
    freed: int


def contents(store: Catalogue) -> tuple[list[Entry], list[Note]]:
    """All entries and notes, without comparing content. OSError where they cannot be read."""
    entries, notes = [], []
    for name, found in store.records():
        try:
            status = os.lstat(os.path.join(store.index, name))
        except FileNotFoundError:
            continue  # evicted meanwhile
        if isinstance(found, record.Note):
            notes.append(_note(name, found, status.st_mtime))
        else:
            entries.append(_entry(store, name, found, status.st_mtime))
    return entries, notes


def _entry(store: Catalogue, name: str, found: record.Record | None, used: float) -> Entry:
    image = name.startswith("image-")
    if found is None:
        broken = "its record is not what was written"
        return Entry(name, "", "", 0, 0, 0, used, used, False, image, DAMAGED, broken)
    path = os.path.join(store.base, found.path)
    size = disk = 0
    built = used
    try:
        status = os.lstat(path)
        size, disk, built = status.st_size, status.st_blocks * 512, status.st_mtime
    except OSError:
        pass  # _state() says so
    state, reason = _state(store, name, found)
    return Entry(
        name, found.origin, path, found.bias, size, disk, built, used, found.durable, image,
        state, reason,
    )  # fmt: skip


def _state(store: Catalogue, name: str, found: record.Record) -> tuple[str, str | None]:
    if not found.is_named(name):
        return DAMAGED, "its record is of another file"
    if not found.counts():
        return EXPIRED, "the machine was started since, and it was never known to be on disk"
    broken = ahead.why_not_mapped(store, found)
    if broken:
        return DAMAGED, broken
    return _original(name, found.origin, found.bias)


def _original(name: str, origin: str, bias: int) -> tuple[str, str | None]:
    """Whether the original is still the file that a name of the index stands for."""
    if not origin:
        return READY, "the path of its original was not recorded"
    try:
        status = os.stat(origin)
    except PermissionError:
        return READY, "its original cannot be looked at"
    except OSError as error:
        return STALE, f"its original is gone: {error.strerror}"
    if name.startswith("image-"):
        # The build-id in the name is the copy's; a change of it changes the time as well.
        build_id = bytes.fromhex(name.split("-")[3])
        same = record.image_key(status, bias, build_id) == name
    else:
        same = record.key(status, bias) == name
    return (READY, None) if same else (STALE, "its original was changed")


def _note(name: str, found: record.Note, noted: float) -> Note:
    state = READY
    try:
        bias = int(name.rpartition("-")[2], 16)
    except ValueError:
        bias = -1
    if found.kernel != os.uname().release or not 0 <= time.time() - noted < catalogue.NOTE_LASTS:
        state = STALE
    elif found.origin:
        state = _original(name, found.origin, bias)[0]
    return Note(name, found.origin, found.reason, found.kernel, noted, state)


def verify(store: Catalogue, entry: Entry) -> tuple[Entry | None, Removed | None]:
    """Compares an entry with its original, byte for byte, and removes it where it is damaged.

    Returns the entry with what was found (None where it is gone) and what was removed.
    """
    checked = _compare(store, entry)
    if checked is None or checked.state != DAMAGED:
        return checked, None
    try:
        lock = store.lock(wait=True)
        try:
            # Looked at again: a builder may have been at it just then.
            checked = _compare(store, entry)
            if checked is None or checked.state != DAMAGED:
                return checked, None
            return checked, _remove(store, checked)
        finally:
            store.unlock(lock)
    except OSError as error:
        reason = f"{checked.reason if checked else ''}; it cannot be removed: {error.strerror}"
        return (checked or entry)._replace(reason=reason), None


def _compare(store: Catalogue, entry: Entry) -> Entry | None:
    if not os.path.lexists(os.path.join(store.index, entry.name)):
        return None
    found = store.read(entry.name)
    if isinstance(found, record.Note):
        return None
    entry = _entry(store, entry.name, found, entry.used)
    if entry.state != READY or entry.reason or found is None:
        return entry
    source = target = -1
    try:
        source = os.open(entry.original, os.O_RDONLY | os.O_CLOEXEC)
        target = os.open(entry.copy, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fd, size = source, os.fstat(source).st_size
        layout = elf.lay_out(lambda n, at: os.pread(fd, n, at), size, entry.bias)
        if found.ranges != layout.ranges:
            return entry._replace(state=DAMAGED, reason="its record tells of other ranges")
        at = copy.same_copy(layout, source, target)
    except elf.Refused as error:
        return entry._replace(state=DAMAGED, reason=f"its original {error}")
    except OSError as error:
        return entry._replace(reason=f"it could not be compared: {error.strerror}")
    finally:
        for fd in (source, target):
            if fd >= 0:
                os.close(fd)
    if at is None:
        return entry
    # Not damaged where the original was replaced while it was read.
    state, reason = _original(entry.name, entry.original, entry.bias)
    if state == READY:
        state, reason = DAMAGED, f"it differs from its original in the 2 MiB at offset {at:#x}"
    return entry._replace(state=state, reason=reason)


def _remove(store: Catalogue, entry: Entry) -> Removed:
    freed = store.drop_record(entry.name)
    return Removed(entry.original or entry.name, entry.reason or entry.state, freed)


def prune(store: Catalogue) -> Iterator[Removed]:
    """Removes what no process can use any more, leftovers, and the least recently used entries
    above the size cap. Yields each with the reason. OSError where something cannot be removed."""
    lock = store.lock(wait=True, sweep=False)
    try:
        for path, freed in store.sweep():
            yield Removed(path, "left by a builder that was killed", freed)
        entries, notes = contents(store)
        for entry in entries:
            if entry.state != READY:
                yield _remove(store, entry)
        for note in notes:
            if note.state != READY:
                store.drop_record(note.name)
                yield Removed(note.original or note.name, "a note that is out of date", 0)
        freed = store.drop_orphans()
        if freed:
            yield Removed(store.objects, "copies that no record tells of", freed)
        yield from _evict(store)
    finally:
        store.unlock(lock)


def _evict(store: Catalogue) -> Iterator[Removed]:
    used = room.used_bytes(store)
    last = {entry.name: entry.used for entry in contents(store)[0]}
    by_use = sorted(store.copies(), key=lambda copy: max(last[name] for name, _ in copy[1]))
    for path, entries in by_use:
        if used <= store.limit:
            return
        freed = store.drop_copy(path, [name for name, _ in entries])
        used -= freed
        for name, entry in entries:
            yield Removed(entry.origin or name, "the store is larger than its limit", freed)
            freed = 0


def clear(store: Catalogue) -> int:
    """Removes the whole store. Returns the bytes freed. Processes that run from it go on: their
    copies stay until they end."""
    lock = store.lock(wait=True, sweep=False)
    try:
        freed = room.used_bytes(store) if os.path.isdir(store.objects) else 0
        # What leads to the copies goes first.
        for path in (store.index, store.base):
            files.remove(path)
        # Something else may be in it, or the directory above not ours.
        with contextlib.suppress(OSError):
            os.rmdir(store.root)
    finally:
        store.unlock(lock)
    return freed
