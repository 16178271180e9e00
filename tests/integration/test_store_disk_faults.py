"""Disks that lose what was written, within one boot: what was lost is never executed."""

from __future__ import annotations

import ctypes
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.store import Store, filled_store, require_huge_disk
from support.users import Namespace, namespace

# A file system in a file on a tmpfs, which may become full: then writing back fails.
THIN = """
cd "{place}"
mkdir back mnt
mount -t tmpfs -o size=100M tmpfs back
truncate -s 200M back/image
mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=1,nodiscard back/image
mount -o loop back/image mnt
cd /
"""
CLEAN = 0o200  # the bit that the mode of a record loses once its copy was seen on disk


@pytest.fixture
def thin(tmp_path: Path) -> Iterator[Namespace]:
    require_huge_disk(tmp_path)
    with namespace(THIN.format(place=tmp_path)) as space:
        yield space


def lose(space: Namespace, tmp_path: Path, copy: Path) -> None:
    """Lets the write-back of a copy fail, for want of space below, but for its beginning, where
    the headers are."""
    write_and_wait = 7  # of sync_file_range(2)
    offset = ctypes.c_int64
    with open(copy, "rb") as file:
        sync = ctypes.CDLL(None, use_errno=True).sync_file_range
        assert sync(file.fileno(), offset(0), offset(1 << 20), write_and_wait) == 0
    space.run("sh", "-c", f'dd if=/dev/zero of="{tmp_path}/back/ballast" bs=64K; true')
    space.run("sh", "-c", f'sync -f "{tmp_path}/mnt"; true')


def drop(copy: Path) -> None:
    """What memory pressure does to clean pages."""
    with open(copy, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def lost(thin: Namespace, tmp_path: Path) -> Store:
    """A store whose only copy was not written back, though nobody has been told."""
    store = thin.store(tmp_path / "mnt" / "store", "store")
    report = store.start()
    assert report.interpreter["backing"] == "store", report.reasons
    lose(thin, tmp_path, store.copy)
    return store


@pytest.mark.parametrize("starts", ["never", "auto"])
def test_copy_that_was_lost_is_not_executed(lost: Store, starts: str) -> None:
    before = lost.copy.stat().st_size
    drop(lost.copy)
    for _ in range(3):  # the kernel tells of the error once
        report = lost.start(PYHUGETEXT_BUILD=starts)
        if starts == "never":
            assert report.mapped_below(lost.root) == []
    if starts == "never":
        assert lost.copy.stat().st_size == before
        assert b"\0" * (1 << 20) in lost.copy.read_bytes(), "nothing was lost: no test"


def test_error_told_once_is_remembered_when_the_pages_go_later(lost: Store) -> None:
    lost.start(PYHUGETEXT_BUILD="never")
    drop(lost.copy)
    lost.copy.read_bytes()  # a backup: the zeros are in memory now, and clean
    for _ in range(2):
        report = lost.start(PYHUGETEXT_BUILD="never")
        assert report.mapped_below(lost.root) == []
        assert report.interpreter["backing"] == "none"


def test_lost_copy_is_not_taken_for_the_content_that_is_still_in_memory(lost: Store) -> None:
    """Who builds compares with pages that are right, and go later."""
    copy = lost.copy.stat().st_mtime_ns
    for _ in range(2):
        lost.start()
    assert [path for path in lost.copies if path.stat().st_mtime_ns == copy] == []


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled_store(tmp_path / "store")


def is_proven(store: Store) -> bool:
    return not store.record.stat().st_mode & CLEAN


def make_old(store: Store, seconds: float = 3600) -> None:
    os.sync()
    then = time.time() - seconds
    os.utime(store.copy, (then, then))


def test_copy_that_was_seen_on_disk_is_remembered_as_such(store: Store) -> None:
    if is_proven(store):
        pytest.skip("the copy was written back at once")
    inode = store.record.stat().st_ino
    os.sync()
    store.start()
    if not is_proven(store):
        pytest.skip("this kernel has no cachestat(2)")
    assert store.record.stat().st_ino == inode
    assert stat.S_IMODE(store.record.stat().st_mode) == 0o400
    drop(store.copy)
    make_old(store)
    store.is_good()


def test_old_copy_that_nobody_saw_on_disk_is_compared_anew(store: Store) -> None:
    store.record.chmod(0o600)
    make_old(store)
    drop(store.copy)
    inodes = store.record.stat().st_ino, store.copy.stat().st_ino
    assert "seen to be on disk" in store.refuses()
    store.recovers()
    assert store.copy.stat().st_ino == inodes[1]
    assert store.record.stat().st_ino != inodes[0]
    assert stat.S_IMODE(store.record.stat().st_mode) == 0o400
    drop(store.copy)
    store.is_good()


@pytest.mark.parametrize("ahead", [60, 10 * 365 * 24 * 3600])
def test_copy_of_a_clock_that_was_set_back_is_compared_anew(store: Store, ahead: int) -> None:
    store.record.chmod(0o600)
    make_old(store, -ahead)
    drop(store.copy)
    assert "seen to be on disk" in store.refuses()
    store.recovers()
    store.is_good()


def test_young_copy_whose_pages_went_is_compared_anew(store: Store) -> None:
    """Only what was written back goes, or what was lost."""
    store.record.chmod(0o600)
    os.sync()
    drop(store.copy)
    assert "seen to be on disk" in store.refuses()
    store.recovers()
    assert len(store.records) == len(store.copies) == 1
