"""Writing a copy, and comparing one with its original."""

import os

from pyhugetext import _boot
from pyhugetext.store.elf import HUGE, Layout


def _fill(fd: int, view: memoryview, offset: int) -> None:
    while view:
        got = os.preadv(fd, [view], offset)
        if not got:
            raise OSError(5, "the file ended early")
        view = view[got:]
        offset += got


def _chunks(layout: Layout, source: int):  # type: ignore[no-untyped-def]
    """Yields (offset, bytes) of the copy in 2 MiB steps; holes outside the ranges are left out.

    The bytes are a view of one buffer that the next step reuses.
    """
    pieces = sorted(layout.pieces)
    buffer = bytearray(HUGE)
    view = memoryview(buffer)
    blank = bytes(HUGE)
    first = 0
    for start in range(0, layout.size, HUGE):
        end = min(start + HUGE, layout.size)
        while first < len(pieces) and pieces[first][0] + pieces[first][2] <= start:
            first += 1
        covered = 0
        parts = []
        for at, origin, length in pieces[first:]:
            if at >= end:
                break
            a, b = max(at, start), min(at + length, end)
            if a < b:
                parts.append((a, b, origin + a - at))
                covered += b - a
        patches = [p for p in layout.patches if p[0] < end and p[0] + len(p[1]) > start]
        in_range = any(o < end and o + n > start for _, n, o in layout.ranges)
        if not parts and not patches and not in_range:
            continue
        if covered < end - start:
            buffer[:] = blank
        for a, b, origin in parts:
            _fill(source, view[a - start : b - start], origin)
        for at, data in patches:
            a, b = max(at, start), min(at + len(data), end)
            view[a - start : b - start] = data[a - at : b - at]
        yield start, view[: end - start]


def write_copy(layout: Layout, source: int, target: int) -> None:
    """Writes the copy of the open file `source` to the open file `target`, in aligned writes of
    2 MiB: what makes a file system use 2 MiB folios. OSError as write(2)."""
    for start, data in _chunks(layout, source):
        while data:
            done = os.pwrite(target, data, start)
            data = data[done:]
            start += done
    os.ftruncate(target, layout.size)


def _bring_back(fd: int, size: int) -> None:
    """Reads an evicted copy back on 2 MiB pages: read(2) would do so in small folios, and whoever
    maps it afterwards would get small pages."""
    try:
        _boot.probe(fd, 0, size & -HUGE, False)
    except OSError:
        return  # noexec, or no such memory: it is compared all the same


def same_copy(layout: Layout, source: int, target: int) -> "int | None":
    """Compares a copy with what would be written now: None when every byte is the same, else the
    offset of the 2 MiB step that differs. OSError as read(2)."""
    if os.fstat(target).st_size != layout.size:
        return 0
    _bring_back(target, layout.size)
    there = bytearray(HUGE)
    view = memoryview(there)
    for start, data in _chunks(layout, source):
        part = view[: len(data)]
        _fill(target, part, start)
        if part != data:
            return start
    return None
