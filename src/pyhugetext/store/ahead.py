"""Entries made ahead of their use: on disk for good, and on 2 MiB pages at the next fault."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from pyhugetext import _boot
from pyhugetext.store import build, copy, elf, places, record, room
from pyhugetext.store.catalogue import Catalogue

HUGE = 2 << 20

# What became of one object.
BUILT, PROMOTED, PRESENT, REFUSED = "built", "promoted", "present", "refused"


class Made(NamedTuple):
    """What prepare() did for one object. Sizes in bytes."""

    path: str
    bias: int
    status: str  # built; promoted: made durable; present: nothing to do; refused: reason says why
    reason: str | None
    size: int  # of the copy; 0 where there is none
    written: int  # 0 too where a copy of the same content was there
    huge: int | None  # of the copy, in 2 MiB pages now; None where that was not looked at
    seconds: float
    store: str
    failed: bool  # for want of room or rights: not the object's fault


def refused(path: str, bias: int, reason: str, root: str, failed: bool = False) -> Made:
    """Says why there is no entry."""
    return Made(path, bias, REFUSED, reason, 0, 0, None, 0.0, root, failed)


def unneeded(path: str, bias: int, root: str) -> Made:
    """Says that another store has the entry."""
    return Made(path, bias, PRESENT, None, 0, 0, None, 0.0, root, False)


def judge(store: Catalogue) -> str:
    """As build.judge(), and waits for whoever is writing to the store."""
    lock = store.lock(wait=True)
    try:
        return build.judge(store)
    finally:
        store.unlock(lock)


def prepare(store: Catalogue, path: str, bias: int) -> Made:
    """Makes sure that the store has a lasting entry of one file for one load bias.

    What is there already is not written again. Never raises for what one object meets: it is
    `refused`. Takes the store's lock for this object only, so that others get their turn.
    """
    began = time.perf_counter()
    try:
        made = _prepare(store, path, bias)
    except elf.Refused as error:
        made = refused(path, bias, str(error), store.root)
    except (room.Full, places.Untrusted) as error:
        made = refused(path, bias, str(error), store.root, failed=True)
    except OSError as error:
        made = refused(path, bias, error.strerror or str(error), store.root, failed=True)
    return made._replace(seconds=time.perf_counter() - began)


def _prepare(store: Catalogue, path: str, bias: int) -> Made:
    try:
        status = os.stat(path)
    except OSError as error:
        return refused(path, bias, error.strerror or str(error), store.root)
    name = record.key(status, bias)
    written = 0
    reason = huge = None
    store.evicts_used = True
    lock = store.lock(wait=True)
    try:
        entry = store.read(name)
        if isinstance(entry, record.Record) and not usable(store, name, entry):
            store.drop_record(name)
            entry = None
        if not isinstance(entry, record.Record):
            if not store.shared_memory and build.too_many(store, path):
                reason = "it is loaded at ever other addresses; its entries are bounded"
                return refused(path, bias, reason, store.root)
            where, written = store.add(path, bias, durable=not store.shared_memory)
            what = BUILT
        elif store.shared_memory or (entry.durable and _has_image(store, status, entry)):
            where, what = entry.path, PRESENT
        elif store.public:
            where, written = store.add(path, bias, durable=True)  # its record for images, too
            what = PROMOTED
        else:
            store.promote(name, entry)
            where, what = entry.path, PROMOTED
        store.keep.add(name)
        copy = os.path.join(store.base, where)
        size = os.stat(copy).st_size
        if written or what == PROMOTED:
            huge = _settle(store, copy)
            if huge < min(size & -HUGE, HUGE):
                reason = "the kernel gave it small pages"
        return Made(path, bias, what, reason, size, written, huge, 0.0, store.root, False)
    finally:
        store.unlock(lock)


def usable(store: Catalogue, name: str, entry: record.Record) -> bool:
    """Whether the core would take this entry as far as can be told without comparing content."""
    return entry.counts() and entry.is_named(name) and why_not_mapped(store, entry) is None


def why_not_mapped(store: Catalogue, entry: record.Record) -> str | None:
    """What is wrong with the copy of an entry; the core checks the same before it maps it."""
    path = os.path.join(store.base, entry.path)
    steps = entry.path.split("/")
    if len(steps) != 3 or steps[0] != "objects" or any(step.startswith(".") for step in steps):
        return "its record names an impossible path"
    try:
        places.check_trust(os.path.dirname(path))
        status = os.lstat(path)
        if not places.is_trusted_file(status):
            return "its copy could have been written by somebody else"
        if status.st_size != entry.object_size:
            return f"its copy has {status.st_size} bytes instead of {entry.object_size}"
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if copy.read_copy(fd, len(entry.header)) != entry.header:
                return "its copy begins with other headers"
        finally:
            os.close(fd)
    except places.Untrusted as error:
        return str(error)
    except OSError as error:
        return f"its copy cannot be read: {error.strerror}"
    return None


def _has_image(store: Catalogue, status: os.stat_result, entry: record.Record) -> bool:
    """Whether an entry of the system's store can be found from a container image as well."""
    if not store.public or not entry.build_id_size:
        return True
    fd = os.open(os.path.join(store.base, entry.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        build_id = copy.read_copy(fd, entry.build_id_size, entry.build_id_at)
    finally:
        os.close(fd)
    return store.read(record.image_key(status, entry.bias, build_id)) is not None


def _settle(store: Catalogue, path: str) -> int:
    """Gets a copy just written onto 2 MiB pages; the bytes of it that are, as the kernel shows."""
    if store.shared_memory:
        build.collapse(path)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size & -HUGE
        huge = _boot.probe(fd, 0, size, False)
        if huge < size and not store.shared_memory:
            # Some file systems use 2 MiB folios only when they read: what is written back and
            # dropped comes back huge. Clean pages go; what others have mapped stays.
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            huge = _boot.probe(fd, 0, size, False)
        return int(huge)
    except OSError:
        return 0
    finally:
        os.close(fd)
