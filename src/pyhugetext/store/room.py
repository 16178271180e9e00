"""Room for a new copy: how much a store may take, and which copies go for others."""

import os
import time

from pyhugetext.store import files, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyhugetext.store.catalogue import Catalogue

FREE_FLOOR = 1 << 30  # bytes of disk that stay free
# Seconds after which entries may go for others: use is noted once a day (kDay in core/record.cpp),
# so no less. Of a file that seems gone or changed, which it may be in one container and not in
# another, an hour.
USED_STAYS, LOST_STAYS = 24 * 60 * 60, 60 * 60


class Full(Exception):
    """No room: the size cap, the free-disk floor, or the file system says so."""


def used_bytes(store: "Catalogue") -> int:
    """Disk (or memory) the copies take."""
    total = 0
    for name in os.listdir(store.objects):
        directory = os.path.join(store.objects, name)
        try:
            for base in os.listdir(directory):
                total += files.file_bytes(os.path.join(directory, base))
        except OSError:
            continue
    return total


def free_bytes(status: os.statvfs_result) -> int:
    """Bytes of a file system that copies may take: what is free above a floor; below 0 where
    it is less."""
    free = status.f_bavail * status.f_frsize
    # A small file system keeps a tenth of itself free, a large one the floor.
    floor = min(FREE_FLOOR, status.f_blocks * status.f_frsize // 10)
    return free - floor


def make_room(store: "Catalogue", size: int) -> None:
    """Evicts what was least recently used until `size` bytes fit. Full where they cannot, and
    nothing is evicted then: programs that need more than there is room for must not build
    their entries over each other's at every start."""
    if size > store.limit:
        raise Full(f"its copy of {size >> 20} MiB is larger than the store may be")

    def lacking() -> int:
        free = free_bytes(os.statvfs(store.base))
        return max(used_bytes(store) + size - store.limit, size - free)

    lack = lacking()
    if lack > 0:
        store.drop_orphan_copies()
        lack = lacking()
    if lack <= 0:
        return
    victims = []
    for path, names in _evictable(store):
        victims.append((path, names))
        lack -= files.file_bytes(os.path.join(store.base, path))
        if lack <= 0:
            break
    else:
        if used_bytes(store) + size <= store.limit:
            raise Full("the file system has too little free space")
        raise Full(f"the store's limit of {store.limit >> 20} MiB is taken up by entries in use")
    for path, names in victims:
        store.drop_copy(path, names)


def _evictable(store: "Catalogue") -> "list[tuple[str, list[str]]]":
    """Copies that may go for others, with the names of their records: first what no process
    can map any more, then what was used least recently."""
    now = time.time()
    out = []
    for path, entries in store.copies():
        names = [name for name, _ in entries]
        ages = [now - os.lstat(os.path.join(store.index, name)).st_mtime for name in names]
        lost = all(_is_lost(name, entry) for name, entry in entries)
        stays = LOST_STAYS if lost else USED_STAYS
        # A clock that was ahead makes nothing last.
        lately = any(0 <= age < stays for age in ages)
        if store.keep.isdisjoint(names) and (store.evicts_used or not lately):
            out.append((not lost, -min(ages), path, names))
    return [(path, names) for *_, path, names in sorted(out)]


def _is_lost(name: str, entry: record.Record) -> bool:
    """Whether no process can map an entry any more, as far as this one sees."""
    if not entry.counts():
        return True
    if not entry.origin or name.startswith("image-"):
        return False
    try:
        return record.key(os.stat(entry.origin), entry.bias) != name
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
