"""What a store at its limit lets go, and for whom: what is in use stays, however many want room."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from support.libraries import USE_LIBRARY, make_library
from support.record import NOTE_MAGIC, Note, Record
from support.store import Report, Store
from support.users import namespace


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Libraries of the same size and different content."""
    return [
        make_library(tmp_path_factory.mktemp("library"), factor=3, build_id=0x1000 + number)
        for number in range(4)
    ]


def age(record: Path, days: float) -> None:
    """Makes the last use of an entry so long ago: its record tells, and its copy's access time."""
    then = time.time() - days * 86400
    os.utime(record, (then, then))
    copy = record.parents[1] / Record.read(record).path
    os.utime(copy, (then, copy.stat().st_mtime))


def used(store: Store) -> int:
    return sum(copy.stat().st_blocks * 512 for copy in store.copies)


def newest(store: Store, known: list[Path]) -> Path:
    (record,) = set(store.records) - set(known)
    return record


def test_least_recently_used_entry_goes_when_the_limit_is_reached(
    store: Store, shelf: list[Path]
) -> None:
    store.fill()
    records = [store.record]
    for library in shelf[:2]:
        store.start(USE_LIBRARY, str(library))
        records.append(newest(store, records))
    limit = used(store) + (1 << 20)
    age(records[0], 1.1)
    age(records[1], 1.5)
    age(records[2], 1.3)
    for library in shelf[2:]:
        store.start(USE_LIBRARY, str(library), PYHUGETEXT_STORE_LIMIT=str(limit))
        assert used(store) <= limit
        assert len(store.copies) == len(store.records) == 3
    assert records[0] in store.records
    assert records[1] not in store.records
    assert records[2] not in store.records
    store.is_good()


def test_use_is_noted_once_a_day(store: Store) -> None:
    store.fill()
    age(store.record, 3)
    store.start()
    first = store.record.stat().st_mtime_ns
    assert time.time() - first / 1e9 < 3600
    store.start()
    assert store.record.stat().st_mtime_ns == first


def test_library_in_use_may_be_evicted(store: Store, shelf: list[Path]) -> None:
    """Its text is mapped, also what was never touched; only the names go."""
    store.fill()
    store.start(USE_LIBRARY, str(shelf[0]))
    code = """
    import ctypes, shutil, sys, pyhugetext
    library = ctypes.CDLL(sys.argv[1])
    pyhugetext.remap()
    shutil.rmtree(sys.argv[2])
    print([library[f"f{i}"](7) for i in range(50)] == [21 + i for i in range(50)])
    """
    result = store.run(code, str(shelf[0]), str(store.base))
    assert (result.stdout, result.stderr) == ("True\n", "")


def test_entry_larger_than_the_store_may_be_is_refused_and_that_is_remembered(store: Store) -> None:
    report = store.start(PYHUGETEXT_STORE_LIMIT="1M")
    assert "larger than the store may be" in report.reasons
    assert store.copies == []
    report = store.start(PYHUGETEXT_STORE_LIMIT="1M")
    assert "an entry could not be made" in report.reasons
    assert not report.built


def test_shared_memory_has_a_limit_of_its_own(tmp_path: Path, shelf: list[Path]) -> None:
    with namespace() as space:
        store = space.shm_store()
        store.fill()
        first = used(store)
        for library in shelf[:3]:
            store.start(USE_LIBRARY, str(library))
        assert used(store) >= first + 3 * shelf[0].stat().st_size
    with namespace() as space:
        store = space.shm_store()
        limit = first + 5 * shelf[0].stat().st_size // 2
        for library in shelf:
            for record in store.records:
                age(record, 2)
            store.start(USE_LIBRARY, str(library), PYHUGETEXT_SHM_LIMIT=str(limit))
            assert used(store) <= limit
        report = store.start(USE_LIBRARY, str(shelf[-1]), PYHUGETEXT_SHM_LIMIT=str(limit))
        assert report.region("libvictim.so")["backing"] == "shm"
    with namespace() as space:
        store = space.shm_store()
        assert "larger than the store may be" in store.start(PYHUGETEXT_SHM_LIMIT="0").reasons
        report = store.start(PYHUGETEXT_SHM_LIMIT="0")
        assert not report.built
        assert store.copies == []


# Entries in use.


def with_library(store: Store, library: Path, **settings: str) -> Report:
    return store.start(USE_LIBRARY, str(library), **settings)


def room_for_two(store: Store, library: Path) -> dict[str, str]:
    """Builds the interpreter's entry and the library's; settings that leave room for no other."""
    store.fill()
    with_library(store, library)
    assert len(store.copies) == 2
    return {"PYHUGETEXT_STORE_LIMIT": str(used(store) + (1 << 20))}


def backing(report: Report) -> str:
    return str(report.region("libvictim.so")["backing"])


def test_programs_that_do_not_fit_together_do_not_build_over_each_other(
    store: Store, shelf: list[Path]
) -> None:
    """The second goes without and knows why; neither builds at its later starts."""
    limit = room_for_two(store, shelf[0])
    copies = store.copies
    report = with_library(store, shelf[1], **limit)
    assert backing(report) == "none"
    (note,) = (record for record in store.records if record.read_bytes().startswith(NOTE_MAGIC))
    assert "is taken up by entries in use" in Note.read(note).reason
    for _ in range(2):
        for library, expected in ((shelf[0], "store"), (shelf[1], "none")):
            report = with_library(store, library, **limit)
            assert backing(report) == expected
            assert not report.built
    assert store.copies == copies


def test_what_does_not_fit_even_so_evicts_nothing(store: Store, shelf: list[Path]) -> None:
    """Only the library may go, and that makes not room enough."""
    limit = room_for_two(store, shelf[0])
    limit["PYHUGETEXT_STORE_LIMIT"] = str(int(limit["PYHUGETEXT_STORE_LIMIT"]) - (4 << 20))
    copies = store.copies
    for record in store.records:
        if "libvictim" in record.read_bytes().decode("latin1"):
            age(record, 2)
    with_library(store, shelf[1], **limit)
    assert store.copies == copies


@pytest.mark.parametrize("ending", ["removed", "replaced"])
def test_entry_of_a_library_that_is_gone_makes_room_before_those_in_use(
    store: Store, shelf: list[Path], tmp_path: Path, ending: str
) -> None:
    """As after an upgrade, on the same day."""
    old = Path(shutil.copy(shelf[0], tmp_path))
    limit = room_for_two(store, old)
    (old_record,) = [r for r in store.records if os.fsencode(old) in r.read_bytes()]
    if ending == "removed":
        old.unlink()
    else:
        shutil.copy(shelf[1], tmp_path / "new")
        os.rename(tmp_path / "new", old)
    new = shelf[1] if ending == "removed" else old
    assert backing(with_library(store, new, **limit)) == "none", "it was used within the hour"
    for record in store.records:
        if record.read_bytes().startswith(b"PHTNONE"):
            record.unlink()
        else:
            age(record, 0.1)
    assert backing(with_library(store, new, **limit)) == "store"
    assert old_record not in store.records
    store.is_good()


def test_copy_of_several_environments_stays_while_one_of_them_uses_it(
    store: Store, shelf: list[Path], tmp_path: Path
) -> None:
    twin = Path(shutil.copy(shelf[0], tmp_path))
    with_library(store, twin)
    limit = room_for_two(store, shelf[0])
    records = store.records
    assert len(records) == 3
    (of_twin,) = [record for record in records if os.fsencode(twin) in record.read_bytes()]
    age(of_twin, 3)
    assert backing(with_library(store, shelf[1], **limit)) == "none"
    assert set(records) <= set(store.records)
    for record in set(store.records) - set(records):
        record.unlink()
    for record in records:
        age(record, 3)
    assert backing(with_library(store, shelf[1], **limit)) == "store"
    assert len(store.records) == len(store.copies) == 2, "both records go with their copy"


def test_clock_that_was_ahead_keeps_nothing_for_ever(store: Store, shelf: list[Path]) -> None:
    limit = room_for_two(store, shelf[0])
    for record in store.records:
        age(record, -400)
    assert backing(with_library(store, shelf[1], **limit)) == "store"
    assert len(store.copies) == 2


def test_what_is_asked_for_evicts_what_is_in_use(store: Store, shelf: list[Path]) -> None:
    """pyhugetext warm."""
    limit = room_for_two(store, shelf[0])["PYHUGETEXT_STORE_LIMIT"]
    code = """
    import sys
    from pyhugetext.store import places, warm
    warmer = warm.Warmer(places.Store(sys.argv[1], int(sys.argv[2])))
    print(*(warmer.prepare(path, 0).status for path in sys.argv[3:]))
    """
    paths = [str(library) for library in shelf[1:3]]
    result = store.run(code, str(store.root), limit, *paths, PYHUGETEXT="0")
    assert (result.stdout, result.stderr) == ("built built\n", "")
    assert used(store) <= int(limit)


# Memory.


@pytest.mark.parametrize("version", [1, 2])
def test_control_group_s_memory_limits_what_shared_memory_takes(
    library: Path, version: int
) -> None:
    """What is in shared memory is not reclaimed: the kernel would kill the program."""
    size = library.stat().st_size
    top = "/sys/fs/cgroup/memory" if version == 1 else "/sys/fs/cgroup"
    setup = f"""
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir -p {top}
    echo {4 * size} | tee {top}/memory.limit_in_bytes > {top}/memory.max
    echo 0 | tee {top}/memory.usage_in_bytes > {top}/memory.current
    echo total_shmem 0 > {top}/memory.stat
    """
    with open("/proc/self/cgroup") as file:
        groups = file.read().replace(",", ":")
    if version != (1 if ":memory:" in groups else 2 if "0::" in groups else 0):
        pytest.skip("this machine's control groups are of another version")
    with namespace(setup) as space:
        store = space.shm_store()
        store.backing = "auto"
        unset = {"PYHUGETEXT_STORE": "/proc/none", "PYHUGETEXT_PRIVATE_LIMIT": "unlimited"}
        report = with_library(store, library, **unset)
        assert backing(report) == "none"
        assert "is larger than the store may be" in str(report.stats["problems"])
        assert "memory limit" in str(report.stats["regions"])
        assert used(store) <= size // 2
        space.run("umount", "/sys/fs/cgroup")
        for record in store.records:
            # Of that group only, so for a minute: others have more memory.
            if record.read_bytes().startswith(b"PHTNONE"):
                at = record.stat().st_mtime - 61
                os.utime(record, (at, at))
        assert backing(with_library(store, library, **unset)) == "shm"
