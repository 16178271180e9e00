"""Copies of ELF objects: as the package's layout describes them, put together here once more, and
as the package writes them into a store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pyhugetext import _native
from pyhugetext.store import places, upkeep, warm

HUGE = 2 << 20
HEAD, TEXT, TOOLS, DEBUG = 1, 2, 4, 8


class Refused(Exception):
    """The file cannot be represented; the text says why."""


@dataclass(frozen=True)
class Layout:
    """Where in the copy is what."""

    pieces: list[tuple[int, int, int]]  # offset in the copy, offset in the original, bytes
    patches: list[tuple[int, bytes]]  # offset in the copy; they go over the pieces
    ranges: list[tuple[int, int, int]]  # what can be mapped huge: virtual address, bytes, offset
    size: int
    build_id: bytes
    build_id_at: int
    header_size: int
    uses: bytes  # of each 2 MiB: HEAD, TEXT, TOOLS; 0: nothing maps or reads it

    @property
    def patched(self) -> list[tuple[int, int]]:
        """What of the original is edited in the copy: offset in the original, bytes."""
        out = []
        for at, data in self.patches:
            for start, origin, length in self.pieces:
                a, b = max(at, start), min(at + len(data), start + length)
                if a < b:
                    out.append((origin + a - start, b - a))
        return out

    def compose(self, original: bytes) -> bytes:
        """All of the copy, byte for byte, whatever it is used for."""
        out = bytearray(self.size)
        for at, origin, length in self.pieces:
            out[at : at + length] = original[origin : origin + length]
        for at, data in self.patches:
            out[at : at + len(data)] = data
        assert len(out) == self.size
        return bytes(out)

    def written(self, original: bytes) -> bytes:
        """The copy as it is written: nothing where nobody uses it."""
        out = bytearray(self.compose(original))
        for chunk, use in enumerate(self.uses):
            if not use:
                end = min((chunk + 1) * HUGE, self.size)
                out[chunk * HUGE : end] = bytes(end - chunk * HUGE)
        return bytes(out)


def lay_out_file(fd: int, size: int, bias: int = 0) -> Layout:
    """The layout of the copy of an open file. Refused, OSError."""
    made = _native.lay_out(fd, size, bias)
    reason = made.pop("refused")
    if reason is not None:
        raise Refused(reason)
    return Layout(**made)


def lay_out(path: Path, bias: int = 0) -> Layout:
    """The layout of the copy of a file."""
    with open(path, "rb") as file:
        return lay_out_file(file.fileno(), os.fstat(file.fileno()).st_size, bias)


def lay_out_bytes(head: bytes, bias: int = 0, size: int | None = None) -> Layout:
    """The layout of the copy of a file with these bytes, and blank behind them up to the size."""
    fd = os.memfd_create("original")
    try:
        os.write(fd, head)
        if size is not None:
            os.ftruncate(fd, size)
        return lay_out_file(fd, len(head) if size is None else size, bias)
    finally:
        os.close(fd)


def store_at(root: Path) -> places.Store:
    return places.Store(str(root), 1 << 40)


def copy_into(root: Path, original: Path, bias: int = 0) -> Path:
    """Has the package write the copy of a file into a store; where it is. Refused."""
    store = store_at(root)
    made = warm.Warmer(store).prepare(str(original), bias)
    if made.reason and made.status == warm.REFUSED:
        raise Refused(made.reason)
    entries, _ = upkeep.contents(store)
    (entry,) = (e for e in entries if (e.original, e.bias) == (str(original), bias))
    assert entry.state == upkeep.READY
    return Path(entry.copy)
