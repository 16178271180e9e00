"""Entries that grow: what is used first, a page at a time if need be, and nothing that is not there."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from support.common import HUGE
from support.growing import (
    FAR,
    USE_FAR,
    bits,
    chunks_of,
    filled,
    make_far,
    record_of,
    texts,
    use,
    verify,
)
from support.libraries import USE_LIBRARY, make_library
from support.record import Note, Record
from support.store import REPORT, Store, require_huge_disk
from support.users import namespace

KILLS = int(os.environ.get("KILLS", "20"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_library(tmp_path_factory.mktemp("library"))


def test_of_much_text_what_is_used_is_built(auto: Store, far: Path) -> None:
    told = use(auto, far, "3,30")
    used = chunks_of(far, 3, 30)
    _, record = record_of(auto, far)
    built = bits(record.present) & texts(far)
    assert used <= built
    assert len(built) < len(texts(far)) / 2
    assert told["backing"] == "store"
    assert told["status"] == "partial"
    assert told["private"] == 0
    copy = auto.base / record.path
    assert copy.stat().st_blocks * 512 < copy.stat().st_size / 2
    verify(auto)


def test_pages_that_two_processes_add_are_both_there(store: Store, far: Path) -> None:
    use(store, far, "3")
    command = [*store.prefix, sys.executable, "-c", USE_FAR, str(far)]
    children = [
        subprocess.Popen([*command, str(n)], env=store.environment(), stdout=subprocess.DEVNULL)
        for n in (10, 18, 26, 34)
    ]
    assert {child.wait(timeout=120) for child in children} == {0}
    # Who found another one building leaves its part to the next start.
    use(store, far, "3,10,18,26,34")
    _, record = record_of(store, far)
    assert chunks_of(far, 3, 10, 18, 26, 34) <= bits(record.present)
    verify(store)


def test_killed_builders_of_growing_entries_leave_nothing_that_is_mapped(
    store: Store, library: Path
) -> None:
    chance = random.Random(5)
    command = [sys.executable, "-c", USE_LIBRARY + REPORT, str(library)]
    for kill in range(KILLS):
        if kill % 8 == 0 and store.base.exists():
            shutil.rmtree(store.base)
        settings = {"PYHUGETEXT_BUILD_TIME": "0"} if kill % 2 else {}
        child = subprocess.Popen(
            command, env=store.environment(**settings),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(chance.uniform(0, 0.15))
        child.kill()
        assert child.wait() in (-signal.SIGKILL, 0)
        # What was left is either not mapped or right: the report compares it with the originals.
        store.start(
            USE_LIBRARY, str(library), PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0"
        )
        store.start(USE_LIBRARY, str(library), PYHUGETEXT_BUILD_TIME="0")
    store.start(USE_LIBRARY, str(library))
    report = store.start(USE_LIBRARY, str(library))
    assert report.region("libvictim.so")["status"] == "huge"
    assert not report.built
    verify(store)


def test_page_that_cannot_be_added_leaves_the_entry_as_it_is(store: Store, far: Path) -> None:
    told = use(store, far, "3")
    path, before = record_of(store, far)
    again = use(store, far, "3,20", PYHUGETEXT_STORE_LIMIT="1M")
    assert again["swapped_bytes"] == told["swapped_bytes"]
    _, record = record_of(store, far)
    assert replace(record, rests_until=0, lacking=0) == before
    assert time.time() < record.rests_until <= time.time() + 86400
    # For a day nothing is tried, whatever there is room for.
    use(store, far, "3,20")
    assert bits(record_of(store, far)[1].present) == bits(before.present)
    # A clock that was ahead makes nothing rest.
    path.write_bytes(replace(record, rests_until=int(time.time()) + 40 * 86400).pack())
    use(store, far, "3,20")
    assert chunks_of(far, 20) <= bits(record_of(store, far)[1].present)


def test_page_that_the_file_does_not_have_is_not_mapped(store: Store, far: Path) -> None:
    use(store, far, "3")
    path, record = record_of(store, far)
    (missing,) = chunks_of(far, 20)
    assert missing not in bits(record.present)
    present = bytearray(record.present)
    present[missing // 8] |= 1 << missing % 8
    path.write_bytes(replace(record, present=bytes(present)).pack())
    result = store.run(
        USE_LIBRARY, str(far), PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0"
    )
    assert (result.returncode, result.stderr) == (0, "")
    told = use(store, far, "3,20", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")
    assert told["backing"] == "none"
    assert any("not what was written" in line for line in [told["reason"], *told["fallbacks"]])
    # It is found out, and mended, by whoever builds next.
    use(store, far, "3,20")
    told = use(store, far, "3,20")
    assert told["backing"] == "store"
    verify(store)


def test_what_lies_in_a_page_that_no_record_tells_of_is_compared(store: Store, far: Path) -> None:
    use(store, far, "3")
    _, record = record_of(store, far)
    copy = store.base / record.path
    (missing,) = chunks_of(far, 20)
    copy.chmod(0o600)
    with open(copy, "r+b") as file:
        file.seek(missing * HUGE)
        file.write(b"\xcc" * HUGE)
    copy.chmod(0o400)
    use(store, far, "3,20")
    told = use(store, far, "3,20", after="21")
    assert told["backing"] == "store"
    _, record = record_of(store, far)
    assert store.base / record.path != copy or copy.stat().st_ino
    assert chunks_of(far, 20) <= bits(record.present)
    assert len(store.copies) == len({Record.read(path).path for path in store.records})
    verify(store)


def test_files_that_differ_where_nothing_was_built_yet_get_copies_of_their_own(
    store: Store, tmp_path: Path
) -> None:
    libraries = [make_far(tmp_path / "a"), make_far(tmp_path / "b", g20="x * 5 + 20")]
    assert libraries[0].stat().st_size == libraries[1].stat().st_size
    for library in libraries:
        use(store, library, "3")
    records = [record_of(store, library)[1] for library in libraries]
    assert records[0].path == records[1].path
    code = USE_FAR.replace("21 + int(n)", "(35 if library_is_b and n == '20' else 21) + int(n)")
    code = code.replace(
        "import pyhugetext\n", "import pyhugetext\nlibrary_is_b = '/b/' in sys.argv[1]\n"
    )
    for _ in range(2):
        for library in libraries:
            result = store.run(code, str(library), "3,20", "20")
            assert (result.returncode, result.stderr) == (0, "")
    records = [record_of(store, library)[1] for library in libraries]
    assert records[0].path != records[1].path
    assert all(chunks_of(libraries[0], 20) <= bits(record.present) for record in records)
    verify(store)


def test_entry_of_another_boot_keeps_what_is_the_same(store: Store, far: Path) -> None:
    use(store, far, "3,30")
    path, record = record_of(store, far)
    inode = (store.base / record.path).stat().st_ino
    path.write_bytes(record.of_another_boot().pack())
    use(store, far, "3,30")
    _, after = record_of(store, far)
    assert (store.base / after.path).stat().st_ino == inode
    assert bits(after.present) >= chunks_of(far, 3, 30)
    assert use(store, far, "3,30")["backing"] == "store"


def test_small_private_budget_goes_to_what_is_used(auto: Store, far: Path) -> None:
    told = use(
        auto, far, "3,30", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="16M",
        PYHUGETEXT_INCLUDE="*libvictim.so",
    )  # fmt: skip
    assert told["backing"] in ("memfd", "thp")
    assert 2 * HUGE <= told["swapped_bytes"] == told["private"] <= 16 << 20
    assert "PYHUGETEXT_PRIVATE_LIMIT" in told["reason"]


def warm(store: Store, library: Path) -> None:
    code = f"import ctypes; ctypes.CDLL({str(library)!r}); import pyhugetext; pyhugetext.remap()"
    command = [sys.executable, "-m", "pyhugetext", "warm", "--", sys.executable, "-c", code]
    subprocess.run(command, env=store.environment(), check=True, capture_output=True, text=True)


def test_warm_goes_on_where_a_start_had_written_what_no_record_tells_of_yet(
    store: Store, far: Path
) -> None:
    """A start names what it adds to an entry on disk only once that is on disk, too."""
    every = ",".join(str(n) for n in range(0, FAR, 3))
    for _ in range(30):
        use(store, far, every, PYHUGETEXT_BUILD_TIME="1ms")
        os.sync()
        if not any(Record.read(path).origin == str(far) for path in store.records):
            continue
        _, record = record_of(store, far)
        blank = texts(far) - filled(store.base / record.path)
        if blank and filled(store.base / record.path) - bits(record.present):
            break
    else:
        pytest.fail("no start left anything for the next one")
    warm(store, far)
    assert texts(far) <= bits(record_of(store, far)[1].present)


def test_warm_builds_all_of_the_text(store: Store, far: Path) -> None:
    use(store, far, "3")
    warm(store, far)
    _, record = record_of(store, far)
    assert texts(far) <= bits(record.present)
    assert record.boot_id == bytes(16)
    assert use(store, far, "3")["status"] == "huge"


def test_what_one_process_left_in_shared_memory_does_not_keep_others_from_the_disk(
    tmp_path: Path,
) -> None:
    require_huge_disk(tmp_path)
    with namespace() as space:
        store = replace(space.store(tmp_path / "store"), backing="auto")
        first = store.start(PYHUGETEXT_STORE="/proc/nonexistent")
        assert first.interpreter["backing"] == "shm", first.reasons
        assert not store.base.exists()
        second = store.start()
        assert second.interpreter["backing"] == "shm"
        # What is not urgent, the debug information of an interpreter that was not stripped, is added
        # by the next ones.
        for _ in range(4):
            later = store.start()
            assert later.interpreter["backing"] == "store", later.reasons
            if not later.built:
                break
        assert not later.built


def test_what_the_disk_has_leaves_shared_memory_when_nobody_maps_it(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    with namespace() as space:
        store = replace(space.store(tmp_path / "store"), backing="auto")
        memory = space.sees(f"/dev/shm/pyhugetext-{os.geteuid()}") / "v1"
        service = subprocess.Popen(
            [*store.prefix, sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
            env=store.environment(PYHUGETEXT_STORE="/proc/nonexistent"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert service.stdin
        assert service.stdout
        with service, service.stdin, service.stdout:
            service.stdout.readline()
            replace(store, backing="store").fill()
            os.utime(memory, (0, 0))
            assert store.start().interpreter["backing"] == "store"
            assert any(memory.glob("objects/*/*"))
        assert service.returncode == 0
        store.start()  # somebody has just looked
        assert any(memory.glob("objects/*/*"))
        os.utime(memory, (0, 0))
        store.start()
        assert not memory.parent.exists()


def test_note_of_why_there_is_no_entry_is_no_record(store: Store, far: Path) -> None:
    """An object that is larger than the store may be has a note."""
    use(store, far, "3", PYHUGETEXT_STORE_LIMIT="1M")
    notes = [Note.read(path) for path in store.records]
    assert str(far) in {note.origin for note in notes}


def test_entry_stays_durable_when_its_file_gets_another_link(store: Store, tmp_path: Path) -> None:
    """As uv makes them: the change time is another one, the bytes are compared once."""
    library = make_library(tmp_path)
    warm = [sys.executable, "-m", "pyhugetext", "warm", "--", sys.executable, "-c"]
    subprocess.run(
        [*warm, f"import ctypes, pyhugetext; ctypes.CDLL({str(library)!r}); pyhugetext.remap()"],
        env=store.environment(), check=True, capture_output=True, text=True,
    )  # fmt: skip
    _, before = record_of(store, library)
    assert before.boot_id == bytes(16)
    os.link(library, tmp_path / "another")
    store.start(USE_LIBRARY, str(library))
    _, after = record_of(store, library)
    assert after.identity.ctime_ns != before.identity.ctime_ns or after != before
    assert after.boot_id == bytes(16)
    assert after.path == before.path
    assert after.present == before.present
    report = store.start(USE_LIBRARY, str(library))
    assert report.region("libvictim.so")["backing"] == "store"
    assert not report.built


def test_entry_that_is_not_wholly_cached_is_compared_once(store: Store, far: Path) -> None:
    """Not at each start: what was seen to be on disk is remembered."""
    use(store, far, "3,30")
    _, record = record_of(store, far)
    copy = store.base / record.path
    with open(copy, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    # As long as something is added, that is not on disk at once.
    for _ in range(4):
        use(store, far, "3,30")
        os.sync()
    _, record = record_of(store, far)
    use(store, far, "3,30")
    assert bits(record.present) >= chunks_of(far, 3, 30)
    before = store.fingerprint()
    assert use(store, far, "3,30")["backing"] == "store"
    assert store.fingerprint() == before
