"""Libraries that change after their entry was made: the entry is never taken for the new one's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers_store import Store, require_huge_disk


@pytest.fixture
def disk_store(tmp_path: Path) -> Store:
    require_huge_disk(tmp_path)
    filled = Store(tmp_path / "store")
    filled.fill()
    return filled


SOURCE = """
#define F(n) int f##n(int x) {{ if (x == -1) __asm__ volatile(".skip 131072, 0x90"); \\
                               return x * {factor} + n; }}
F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15) F(16) F(17)
F(18) F(19) F(20) F(21) F(22) F(23) F(24) F(25) F(26) F(27) F(28) F(29) F(30) F(31) F(32) F(33)
F(34) F(35) F(36) F(37) F(38) F(39) F(40) F(41) F(42) F(43) F(44) F(45) F(46) F(47) F(48) F(49)
long all(int x) {{ return f0(x) + f20(x) + f49(x); }}
"""
USE_LIBRARY = """
import ctypes, sys, pyhugetext
library = ctypes.CDLL(sys.argv[1])
pyhugetext.remap()
factor = int(sys.argv[2]) if len(sys.argv) > 2 else 3
assert getattr(library, "all")(7) == 3 * 7 * factor + 69, "another library's code"
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two libraries of the same size that compute different things."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) on the path")
    made = []
    for factor in (3, 5):
        directory = tmp_path_factory.mktemp("library")
        target = directory / "libvictim.so"
        source = directory / "victim.c"
        source.write_text(SOURCE.format(factor=factor))
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-Wl,--build-id=0x1234", "-o", target, source],
            check=True,
        )
        made.append(target)
    assert made[0].stat().st_size == made[1].stat().st_size
    return made[0], made[1]


@pytest.fixture
def library(libraries: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(libraries[0], tmp_path / "libvictim.so"))


@pytest.fixture
def library_store(disk_store: Store, library: Path) -> Store:
    """A store with the library's entry too."""
    disk_store.start(USE_LIBRARY, str(library))
    report = disk_store.start(USE_LIBRARY, str(library))
    assert report.region("libvictim.so")["backing"] == "store", report.region("libvictim.so")
    assert not report.built
    return disk_store


def overwrite(library: Path, other: Path) -> None:
    """In place, with the modification time put back."""
    before = library.stat()
    library.write_bytes(other.read_bytes())
    os.utime(library, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange(library: Path, other: Path) -> None:
    """Another file under the same name, with the same size and modification time."""
    before = library.stat()
    fresh = library.with_name("fresh")
    shutil.copy(other, fresh)
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.rename(library)


@pytest.mark.parametrize("change", [overwrite, exchange], ids=lambda change: change.__name__)
def test_changed_library_is_not_taken_for_its_predecessor(
    library_store: Store,
    library: Path,
    libraries: tuple[Path, Path],
    change: Callable[[Path, Path], None],
) -> None:
    change(library, libraries[1])
    arguments = (USE_LIBRARY, str(library), "5")
    report = library_store.start(*arguments, PYHUGETEXT_BUILD="never")
    region = report.region("libvictim.so")
    assert region["backing"] == "none"
    assert "has no entry" in region["reason"]
    assert library_store.start(*arguments).region("libvictim.so")["backing"] == "store"
    report = library_store.start(*arguments)
    assert report.region("libvictim.so")["backing"] == "store"
    assert not report.built


def test_touched_library_s_entry_is_compared_and_kept_once(
    library_store: Store, library: Path
) -> None:
    copies = library_store.copies
    for _ in range(6):
        os.utime(library)
        library_store.start(USE_LIBRARY, str(library))
        report = library_store.start(USE_LIBRARY, str(library))
        assert report.region("libvictim.so")["backing"] == "store"
        assert not report.built
    assert library_store.copies == copies
    assert len(library_store.records) == 2


def test_library_deleted_while_it_is_loaded_keeps_its_text(
    library_store: Store, library: Path
) -> None:
    code = """
    import ctypes, os, sys, pyhugetext
    library = ctypes.CDLL(sys.argv[1])
    os.unlink(sys.argv[1])
    stats = pyhugetext.remap()
    (region,) = [r for r in stats.regions if "libvictim" in r.path]
    print(region.backing, region.reason, getattr(library, "all")(7))
    """
    result = library_store.run(code, str(library))
    assert result.stderr == ""
    reason = "the original file was deleted or replaced: open failed with ENOENT"
    assert result.stdout == f"none {reason} {3 * 7 * 3 + 69}\n"


def test_record_of_another_file_under_this_name_is_not_believed(
    disk_store: Store, library: Path
) -> None:
    record = disk_store.record
    good = record.read_bytes()
    disk_store.start(USE_LIBRARY, str(library))
    (other,) = (path for path in disk_store.records if path != record)
    record.write_bytes(other.read_bytes())
    assert "not what was written" in disk_store.refuses()
    disk_store.recovers()
    assert record.read_bytes() == good


def test_same_library_in_two_environments_has_one_copy(disk_store: Store, library: Path) -> None:
    for environment in ("one", "two", "three"):
        place = library.parent / environment
        place.mkdir()
        twin = shutil.copy(library, place)
        disk_store.start(USE_LIBRARY, twin)
        report = disk_store.start(USE_LIBRARY, twin)
        assert report.region("libvictim.so")["backing"] == "store"
        assert not report.built
    assert len(disk_store.records) == 4
    assert len(disk_store.copies) == 2


def test_libraries_of_one_build_id_and_different_content_have_their_own_copies(
    disk_store: Store, libraries: tuple[Path, Path]
) -> None:
    """As patchelf makes them."""
    for _ in range(2):
        for library, factor in zip(libraries, ("3", "5")):
            report = disk_store.start(USE_LIBRARY, str(library), factor)
            assert report.region("libvictim.so")["backing"] == "store"
    assert not report.built
    assert len(disk_store.copies) == 3


def test_library_with_a_name_that_begins_with_a_dot_is_found_again(
    disk_store: Store, library: Path
) -> None:
    hidden = library.rename(library.with_name(".hidden libé.so"))
    disk_store.start(USE_LIBRARY, str(hidden))
    report = disk_store.start(USE_LIBRARY, str(hidden))
    assert [r["backing"] for r in report.stats["regions"] if "hidden" in r["path"]] == ["store"]
    assert not report.built
