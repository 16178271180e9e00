"""Anonymous memory at a 2 MiB boundary, and how much of it is in huge pages."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from pyhugetext import _native
from pyhugetext._stats import smaps
from pyhugetext._units import HUGE

MADV_COLLAPSE = 25  # Linux 6.1; Python has no name for it


@contextmanager
def aligned(size: int) -> Iterator[tuple[memoryview, mmap.mmap]]:
    """Memory of `size` bytes that begins at a multiple of 2 MiB, and the mapping around it, for
    madvise(). Nothing of it is touched yet. OSError where there is none."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mapping = mmap.mmap(-1, size + HUGE, flags=flags)
    whole = memoryview(mapping)
    start = -_native.address_of(whole) % HUGE
    view = whole[start : start + size]
    try:
        yield view, mapping
    finally:
        view.release()
        whole.release()
        mapping.close()


def huge_bytes(view: memoryview) -> int:
    """Bytes of this memory in 2 MiB pages, as /proc/self/smaps tells. OSError where it cannot be
    read."""
    start = _native.address_of(view)
    end = start + view.nbytes
    huge = sum(m.huge for m in smaps.read() if m.start < end and m.end > start)
    return min(huge, view.nbytes)
