"""Which entries of the system's store go first: those that no user's programs use."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import Cli
from support.common import PREFIX, STRANGER
from support.libraries import USE_LIBRARY, aged_library
from support.store import Store, require_huge_disk
from support.users import as_user, require_root

NO_ATIME = 0x400  # ST_NOATIME of statvfs(2)
LONG_AGO = 10 * 24 * 60 * 60


@pytest.fixture
def public() -> Iterator[Path]:
    require_root()
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir="/tmp") as directory:
        place = Path(directory)
        place.chmod(0o755)
        require_huge_disk(place / "store")
        if os.statvfs(place).f_flag & NO_ATIME:
            pytest.skip("this file system keeps no access times (noatime)")
        yield place


@pytest.fixture
def filled(public: Path) -> Store:
    """A store of root's that everybody may read, with entries that were last used long ago."""
    library = aged_library()
    store = Store(public / "store")
    store.fill()
    store.start(USE_LIBRARY, str(library))
    assert len(store.copies) == 2
    then = time.time() - LONG_AGO
    for path in (store.root, *store.root.rglob("*")):
        # That its copies are on disk was seen: a record's mode tells.
        path.chmod(0o755 if path.is_dir() else 0o444)
        if path.is_file():
            os.utime(path, (then, then))
    return store


def use(store: Store) -> None:
    """Another user's program runs from the interpreter's entry, which it cannot write to."""
    theirs = Store(store.root, as_user(STRANGER))
    report = theirs.start(PYHUGETEXT_BUILD="never")
    assert report.interpreter["backing"] == "store", report.reasons


def test_use_by_an_ordinary_user_counts_as_use(filled: Store) -> None:
    cli = Cli(filled.root)
    assert {entry["unused_seconds"] > LONG_AGO / 2 for entry in cli.entries()} == {True}
    use(filled)
    unused = {Path(entry["copy"]).name: entry["unused_seconds"] for entry in cli.entries()}
    (library,) = (unused.pop(name) for name in list(unused) if name.startswith("libvictim"))
    (interpreter,) = unused.values()
    assert library > LONG_AGO / 2
    assert interpreter < LONG_AGO / 2


def test_looking_through_the_store_is_no_use(filled: Store) -> None:
    cli = Cli(filled.root)
    assert cli("store", "verify").returncode == 0
    assert cli("store", "list").returncode == 0
    assert cli("warm").returncode == 0  # which finds the interpreter's entry, and keeps it
    unused = {Path(entry["copy"]).name: entry["unused_seconds"] for entry in cli.entries()}
    assert unused["libvictim.so"] > LONG_AGO / 2


def test_entry_that_ordinary_users_use_outlasts_one_that_nobody_does(filled: Store) -> None:
    later = time.time() - LONG_AGO / 2
    for path in (*filled.records, *filled.copies):
        if b"libvictim" in path.read_bytes() or path.name == "libvictim.so":
            os.utime(path, (later, later))
    use(filled)
    limit = max(copy.stat().st_size for copy in filled.copies) + (1 << 20)
    result = Cli(filled.root)("store", "prune", PYHUGETEXT_STORE_LIMIT=str(limit))
    assert result.returncode == 0, result.stderr
    assert [copy.name for copy in filled.copies if copy.name == "libvictim.so"] == []
    assert len(filled.copies) == 1
