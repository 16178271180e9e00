"""Entries that grow do a program no harm, and come to their end, whatever was done to them."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from integration.test_store_growth import SOURCE, USE_FAR, bits, chunks_of, record_of, use, verify
from support.common import HUGE
from support.libraries import USE_LIBRARY, make_library
from support.store import Store, require_huge_disk
from support.users import namespace


@pytest.fixture
def store(tmp_path: Path) -> Store:
    require_huge_disk(tmp_path)
    return Store(tmp_path / "store", backing="auto")


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_library(tmp_path_factory.mktemp("far"), more=SOURCE)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_library(tmp_path_factory.mktemp("library"))


def evict(copy: Path) -> None:
    with open(copy, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def evict_part(copy: Path, chunks: set[int]) -> None:
    with open(copy, "rb") as file:
        os.fsync(file.fileno())
        for chunk in chunks:
            os.posix_fadvise(file.fileno(), chunk * HUGE, HUGE, os.POSIX_FADV_DONTNEED)


# From now on openat(2) kills.
OPENAT = {"x86_64": 257, "aarch64": 56}.get(platform.machine())
KILL_OPEN = f"""
import ctypes, struct
libc = ctypes.CDLL(None)
code = b"".join(struct.pack("<HBBI", *i) for i in [
    (0x20, 0, 0, 0), (0x15, 0, 1, {OPENAT}), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7fff0000)])
keep = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(keep)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
"""
LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""


def test_end_of_a_program_that_all_is_there_of_makes_no_call(store: Store, library: Path) -> None:
    """It may have given itself a filter that kills for them."""
    for _ in range(2):
        store.run(USE_LIBRARY, str(library), PYHUGETEXT_BUILD_TIME="10s")
    result = store.run(USE_LIBRARY + KILL_OPEN, str(library))
    assert (result.returncode, result.stderr) == (0, "")


def test_nothing_is_noted_where_files_may_not_be_written(store: Store, far: Path) -> None:
    use(store, far, "3")
    result = store.run(USE_FAR + LIMIT, str(far), "3", "20")
    assert (result.returncode, result.stderr) == (0, "")


def test_copy_that_differs_late_is_not_taken_again_and_again(store: Store, tmp_path: Path) -> None:
    other = SOURCE.replace("x * 3 + 20;", "x * 5 + 20;")
    libraries = []
    for name, source in (("a", SOURCE), ("b", other)):
        (tmp_path / name).mkdir()
        libraries.append(make_library(tmp_path / name, more=source))
    assert libraries[0].stat().st_size == libraries[1].stat().st_size
    code = USE_FAR.replace("21 + int(n)", "(35 if library_is_b and n == '20' else 21) + int(n)")
    code = code.replace(
        "import pyhugetext\n", "import pyhugetext\nlibrary_is_b = '/b/' in sys.argv[1]\n"
    )
    for _ in range(3):
        assert store.run(code, str(libraries[0]), "3,10,20,30").returncode == 0
    wanted = chunks_of(libraries[1], 3, 10, 20, 30)
    seen = []
    for _ in range(30):
        result = store.run(code, str(libraries[1]), "3,10,20,30", PYHUGETEXT_BUILD_TIME="0")
        assert (result.returncode, result.stderr) == (0, "")
        there = bits(record_of(store, libraries[1])[1].present)
        seen.append(sorted(there))
        if wanted <= there:
            break
    assert wanted <= there, seen
    verify(store)


@pytest.mark.parametrize("known", ["durable", "proven"])
def test_entry_that_is_not_all_cached_stays_when_a_page_is_added(
    store: Store, far: Path, known: str
) -> None:
    """As after a reboot, or where other programs used the memory."""
    for _ in range(3):
        use(store, far, "3,10,15,30,36", PYHUGETEXT_BUILD_TIME="10s")
    path, record = record_of(store, far)
    copy = store.base / record.path
    there = bits(record.present)
    if known == "durable":
        path.write_bytes(replace(record, boot_id=bytes(16)).pack())
    else:
        path.chmod(0o400)
    evict(copy)
    hour = copy.stat().st_mtime - 3600
    os.utime(copy, (hour, hour))
    out = []
    for _ in range(4):
        told = use(store, far, "3,22", PYHUGETEXT_BUILD_TIME="0")
        _, record = record_of(store, far)
        evict_part(copy, chunks_of(far, 30, 36))
        told = use(store, far, "3", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")
        out.append((told["backing"], told["fallbacks"], sorted(bits(record.present))))
        evict_part(copy, chunks_of(far, 30, 36))
    assert chunks_of(far, 22) <= bits(record.present)
    assert all(backing == "store" for backing, _, _ in out), out
    assert there <= bits(record.present), out
    verify(store)


def test_cached_holes_do_not_stand_for_what_was_dropped(store: Store, far: Path) -> None:
    """A page that is gone may have been lost when it was to be written back."""
    for _ in range(3):
        use(store, far, "3,10,15,30", PYHUGETEXT_BUILD_TIME="10s")
    path, record = record_of(store, far)
    copy = store.base / record.path
    path.chmod(0o600)
    evict(copy)
    with open(copy, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while file.read(HUGE):
            pass
    evict_part(copy, chunks_of(far, 30))
    told = use(store, far, "3", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")
    assert path.stat().st_mode & 0o777 == 0o600
    assert told["backing"] == "none"
    # Whoever builds next compares it.
    use(store, far, "3", PYHUGETEXT_BUILD_TIME="10s")
    assert use(store, far, "3")["backing"] == "store"
    verify(store)


def test_page_that_the_kernel_does_not_collapse_costs_nobody_the_rest(far: Path) -> None:
    with namespace() as space:
        store = space.shm_store()
        for _ in range(2):
            use(store, far, "3,10", PYHUGETEXT_BUILD_TIME="10s")
        told = use(store, far, "3,10", PYHUGETEXT_BUILD="never")
        assert told["backing"] == "shm", told
        # PR_SET_THP_DISABLE
        disable = "ctypes.CDLL(None).prctl(41, 1, 0, 0, 0); call('30'); pyhugetext.remap()\n"
        result = store.run(USE_FAR + disable, str(far), "3,10", PYHUGETEXT_BUILD_TIME="10s")
        assert (result.returncode, result.stderr) == (0, "")
        again = use(store, far, "3,10", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")
        assert again["backing"] == "shm"
        assert again["swapped_bytes"] >= told["swapped_bytes"]
