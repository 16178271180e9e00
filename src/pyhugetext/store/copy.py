"""Writing a copy, and comparing one with its original."""

# What `signal` wraps in enumerations, whose import takes longer.
import _signal  # type: ignore[import-not-found]
import errno
import mmap
import os
from bisect import bisect_right

from pyhugetext.store.elf import HUGE, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MADV_HUGEPAGE, MADV_POPULATE_READ = 14, 22

_STEP = 64 << 10  # bytes compared at a time

# Start-up blocks signals while it builds. Who presses Ctrl-C does not wait for a large library.
_STOPPING = {_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT}


def buffer() -> mmap.mmap:
    """2 MiB of zeros. Not from malloc: what is freed there raises the size from which the program's
    own blocks are mappings of theirs, and the heap keeps the room; see mallopt(3)."""
    return mmap.mmap(-1, HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _fill(fd: int, view: memoryview, offset: int) -> None:
    while view:
        got = os.preadv(fd, [view], offset)
        if not got:
            raise OSError(errno.EIO, "the file ended early")
        view = view[got:]
        offset += got


def _is_hole(fd: int, offset: int, length: int) -> bool:
    """Whether nothing was ever written there."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        # No data up to the end; or the file ends earlier by now, which reading will tell.
        return error.errno == errno.ENXIO and os.fstat(fd).st_size >= offset + length


def _chunks(layout: Layout, source: int) -> "Iterator[tuple[int, memoryview, bool]]":
    """Yields (offset, bytes, whether they come from holes) of the copy in 2 MiB steps; what lies
    between the parts is blank. The bytes are a view of one buffer that the next step reuses."""
    pieces = sorted(layout.pieces)
    starts = [piece[0] for piece in pieces]
    view, blank = memoryview(buffer()), memoryview(buffer())
    for start in range(0, layout.size, HUGE):
        end = min(start + HUGE, layout.size)
        covered = 0
        parts = []
        for i in range(max(bisect_right(starts, start) - 1, 0), bisect_right(starts, end - 1)):
            at, origin, length = pieces[i]
            a, b = max(at, start), min(at + length, end)
            if a < b and not _is_hole(source, origin + a - at, b - a):
                parts.append((a, b, origin + a - at))
                covered += b - a
        if covered < end - start:
            view[:] = blank
        for a, b, origin in parts:
            _fill(source, view[a - start : b - start], origin)
        hole = not parts
        for at, data in layout.patches:
            a, b = max(at, start), min(at + len(data), end)
            if a < b:
                view[a - start : b - start] = data[a - at : b - at]
                hole = False
        yield start, view[: end - start], hole


def write_copy(layout: Layout, source: int, target: int) -> None:
    """Writes the copy of the open file `source` to the open and empty file `target`, in aligned
    writes of 2 MiB: what makes a file system use 2 MiB folios. Holes stay holes where nothing can
    be mapped huge. OSError as write(2), InterruptedError when a signal waits that ends programs."""
    for start, data, hole in _chunks(layout, source):
        if _STOPPING & _signal.sigpending():
            raise InterruptedError(errno.EINTR, "a signal came meanwhile")
        if hole and not any(at <= start < at + n for _, n, at in layout.ranges):
            continue
        while data:
            done = os.pwrite(target, data, start)
            data = data[done:]
            start += done
    os.ftruncate(target, layout.size)


def same_copy(layout: Layout, source: int, target: int) -> "int | None":
    """Compares a copy with what would be written now: None when every byte is the same, else the
    offset of the 2 MiB step that differs. OSError as read(2).

    The copy is read through a mapping: read(2) would fill the page cache with small folios where
    it was evicted, and whoever maps the copy afterwards would get small pages.
    """
    if os.fstat(target).st_size != layout.size:
        return 0
    with mmap.mmap(target, layout.size, mmap.MAP_SHARED, mmap.PROT_READ) as there:
        _advise(there, MADV_HUGEPAGE, 0, layout.size)
        for start, data, hole in _chunks(layout, source):
            if hole and _is_hole(target, start, len(data)):
                continue
            # Answers with an error where touching would raise SIGBUS.
            _advise(there, MADV_POPULATE_READ, start, len(data))
            for at in range(0, len(data), _STEP):
                part = data[at : at + _STEP]
                # Not as memoryviews: those compare byte by byte.
                if there[start + at : start + at + len(part)] != part.tobytes():
                    return start
    return None


def read_copy(fd: int, length: int, at: int = 0) -> bytes:
    """A few bytes of a copy, read through a mapping for the same reason. OSError as read(2)."""
    size = os.fstat(fd).st_size
    if not 0 <= at <= at + length <= size or not length:
        return b""
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as there:
        _advise(there, MADV_HUGEPAGE, 0, size)
        start = at & -mmap.PAGESIZE
        _advise(there, MADV_POPULATE_READ, start, at + length - start)
        return there[at : at + length]


def _advise(there: mmap.mmap, advice: int, start: int, length: int) -> None:
    try:
        there.madvise(advice, start, length)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel that does not know it
            raise
