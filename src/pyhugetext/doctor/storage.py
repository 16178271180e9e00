"""The stores: where they are, whether they can be used, and what is free there."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from pyhugetext import _native, _words
from pyhugetext._settings import Settings
from pyhugetext.store import places
from pyhugetext.store.places import Store

# statfs(2) has numbers only.
_NAMES = {
    0x01021994: "tmpfs", 0x58465342: "xfs", 0xEF53: "ext4", 0x794C7630: "overlayfs",
    0x9123683E: "btrfs", 0x6969: "nfs", 0xF2F52010: "f2fs", 0x2FC12FC1: "zfs", 0x65735546: "fuse",
    0xCA451A4E: "bcachefs", 0x61756673: "aufs", 0x01021997: "9p", 0xFF534D42: "cifs",
}  # fmt: skip


class Storage(NamedTuple):
    """One store as this process finds it. Sizes in bytes."""

    kind: str  # system, user, shm
    path: str | None  # None where nothing says where it is
    exists: bool = False
    trusted: bool = False
    writable: bool = False
    reason: str | None = None  # why it cannot be used, or not written
    entries: int = 0
    used: int = 0  # what the copies take
    limit: int = 0
    free: int | None = None  # that new copies may take; None where that cannot be told
    file_system: str | None = None
    remembered: str | None = None  # the verdict on file for this kernel: written, evicted, never


def stores(settings: Settings) -> list[Storage]:
    """The three stores, the system's first, as a process looks through them."""
    own = places.user(settings)
    why = "neither HOME nor PYHUGETEXT_STORE says where it is"
    return [
        _look(places.system(settings)),
        _look(own) if own else Storage("user", None, reason=why, limit=settings.store_limit),
        _look(places.shared_memory(settings)),
    ]


def nearest(path: str) -> str:
    """The directory itself, or the nearest above it that is there."""
    while not os.path.isdir(path):
        above = os.path.dirname(path)
        if above == path:
            break
        path = above
    return path


def _look(store: Store) -> Storage:
    here = nearest(store.root)
    exists = os.path.isdir(store.records)
    reason = _distrust(store)
    trusted = reason is None
    writable = False
    if trusted:
        reason = _why_not_written(store, here)
        writable = reason is None
    entries = used = 0
    if exists and trusted:
        try:
            entries = sum(not name.startswith("image-") for name in os.listdir(store.records))
            used = places.used_bytes(store)
        except OSError as error:
            reason = reason or _words.sentence(error, coded=True)
    free: int | None = None
    with contextlib.suppress(OSError):
        free = places.free_bytes(here)
    if writable and free is not None and free < 0:
        reason = "too little free space"
    remembered = places.UNKNOWN if store.kind == "shm" else places.remembered_verdict(store)
    return Storage(
        store.kind, store.root, exists, trusted, writable, reason, entries, used, store.limit, free,
        file_system(here), None if remembered == places.UNKNOWN else remembered,
    )  # fmt: skip


def _distrust(store: Store) -> str | None:
    """Why nothing is mapped from this store, or None."""
    try:
        places.open_store(store)
    except places.Trouble as error:
        return None if error.kind == places.GONE else error.strerror
    return None


def _why_not_written(store: Store, here: str) -> str | None:
    """Why nothing can be built into it, or None."""
    for path in (store.base, store.records, store.objects, store.tmp):
        directory = nearest(path)
        # The effective user counts, not the real one.
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
            readonly = _flags(directory) & os.ST_RDONLY
            return f"{directory} is {'on a read-only file system' if readonly else 'not writable'}"
    if os.path.lexists(store.root) and not os.path.isdir(store.root):
        return f"{store.root} is no directory"
    if _flags(here) & os.ST_NOEXEC:
        return f"{here} is mounted noexec"
    if store.kind == "shm" and file_system(os.path.dirname(store.root)) != "tmpfs":
        return f"{os.path.dirname(store.root)} is no tmpfs"
    return None


_EFFECTIVE = os.access in os.supports_effective_ids


def _flags(path: str) -> int:
    try:
        return os.statvfs(path).f_flag
    except OSError:
        return 0


def file_system(path: str) -> str | None:
    """The kind of the file system of a directory; None where it cannot be told."""
    try:
        number = _native.filesystem(os.fsencode(path))
    except OSError:
        return None
    return _NAMES.get(number, f"{number:#x}")
