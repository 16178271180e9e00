"""Entries made ahead of their use: on disk for good, and on 2 MiB pages at the next fault."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from pyhugetext import _native, _words
from pyhugetext.store import places
from pyhugetext.store.places import Store

# What became of one object.
BUILT, PROMOTED, PRESENT = "built", "promoted", "present"
UNNEEDED, REFUSED = "unneeded", "refused"


class Made(NamedTuple):
    """What prepare() did for one object. Sizes in bytes."""

    path: str
    bias: int
    store: str
    # built; promoted: made durable; present: nothing to do; unneeded: the kernel takes the file
    # itself, without a copy; refused: reason says why
    status: str
    reason: str | None = None
    size: int = 0  # of the copy; 0 where there is none
    written: int = 0  # 0 too where a copy of the same content was there
    huge: int | None = None  # of the copy, in 2 MiB pages now; None where that was not looked at
    seconds: float = 0.0
    failed: bool = False  # for want of room or rights: not the object's fault


class Warmer:
    """Fills one store. What it made is not evicted for what it makes next.

    With `files`, nothing is made of what the kernel takes itself, as `auto` would; with `used`, no
    text is added to what programs have stored.
    """

    def __init__(self, store: Store, files: bool = False, used: bool = False) -> None:
        self._store = store
        self._files = files and not used
        self._used = used
        self._kept = bytearray()  # names of records, each ended by a NUL

    def prepare(self, path: str, bias: int) -> Made:
        """Makes sure that the store has a lasting entry of one file for one load bias.

        What is there already is not written again. Never raises for what one object meets: it is
        `refused`. Takes the store's lock for this object only, so that others get their turn.
        """
        began = time.perf_counter()
        made = self._prepare(path, bias)
        return made._replace(seconds=time.perf_counter() - began)

    def _prepare(self, path: str, bias: int) -> Made:
        root = self._store.root
        try:
            os.stat(path)
        except OSError as error:
            return Made(path, bias, root, REFUSED, _words.reason(error))

        def call() -> tuple[places.Problem | None, _native.RawMade]:
            made = _native.store_warm(
                self._store.spec,
                os.fsencode(path),
                bias,
                bytes(self._kept),
                self._files,
                self._used,
            )
            return made["problem"], made

        try:
            made = places.patiently(call)
        except places.Trouble as error:
            failed = error.kind not in (places.REFUSED, places.CHANGED)
            return Made(path, bias, root, REFUSED, _words.reason(error), failed=failed)
        if made["name"]:
            self._kept += made["name"] + b"\0"
        small = "the kernel gave it small pages" if made["small"] else None
        sizes = made["size"], made["written"], made["huge"]
        return Made(path, bias, root, made["status"], small, *sizes)
