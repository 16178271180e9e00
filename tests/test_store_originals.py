"""Libraries that change after their entry was made: the entry is never taken for the new one's."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_tools import wait_for
from conftest import tool
from helpers_record import Note, Record
from helpers_store import USE_LIBRARY, Store, make_library, require_huge_disk


@pytest.fixture
def disk_store(tmp_path: Path) -> Store:
    require_huge_disk(tmp_path)
    filled = Store(tmp_path / "store")
    filled.fill()
    return filled


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two libraries of the same size and build-id that compute different things."""
    made = [make_library(tmp_path_factory.mktemp("library"), factor) for factor in (3, 5)]
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


# Changes of the original while its copy is made.


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def edit(path: Path) -> None:
    """As rsync --inplace does: of the same size and modification time."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, 4 << 20)


@pytest.mark.parametrize("change", [append, edit, truncate])
def test_library_that_changes_while_it_is_copied_gets_no_entry(
    disk_store: Store, library: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Whoever copies is stopped at its first write to the copy; the library changes, and it goes
    on. For a minute nobody tries again."""
    interpreter = disk_store.record
    stops = ("-e", "trace=pwrite64", "-e", "inject=pwrite64:signal=SIGSTOP:when=1")
    prefix = (tool("strace"), "-f", "-qq", "-o", "/dev/null", *stops)
    if disk_store.run("pass", prefix=(tool("strace"), "-o", "/dev/null")).stderr:
        pytest.skip("strace may not trace here")
    pid_file = tmp_path / "pid"
    code = f"""
    import ctypes, os, sys, pyhugetext
    with open({str(pid_file)!r}, "w") as file: print(os.getpid(), file=file)
    library = ctypes.CDLL(sys.argv[1])
    pyhugetext.remap()
    """
    child = subprocess.Popen(
        [*prefix, sys.executable, "-c", textwrap.dedent(code), str(library)],
        env=disk_store.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def is_copying() -> bool:
        return any(copy.stat().st_size for copy in disk_store.base.glob("tmp/*/*"))

    wait_for(is_copying)
    change(library)
    os.kill(int(pid_file.read_text()), signal.SIGCONT)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    assert len(disk_store.copies) == 1
    assert disk_store.leftovers == []
    notes = [record for record in disk_store.records if record != interpreter]
    for path in notes:
        note = Note.read(path)
        assert note.origin == str(library)
        assert "was changed while it was copied" in note.reason or change is truncate
        left = 24 * 60 * 60 - (time.time() - path.stat().st_mtime)
        assert 0 < left <= 60 or change is truncate


def test_library_is_not_read_within_the_tick_of_its_last_change(
    disk_store: Store, library: Path, tmp_path: Path
) -> None:
    """A change in the same tick of the kernel's clock would leave its identity as it was."""
    if disk_store.run("pass", prefix=(tool("strace"), "-o", "/dev/null")).stderr:
        pytest.skip("strace may not trace here")
    log = tmp_path / "log"
    prefix = (tool("strace"), "-f", "-qq", "-ttt", "-o", str(log), "-e", "trace=pread64,utimensat")
    code = """
    import ctypes, os, sys, pyhugetext
    library = ctypes.CDLL(sys.argv[1])
    os.utime(sys.argv[1])
    pyhugetext.remap()
    print(os.stat(sys.argv[1]).st_ctime_ns)
    """
    # What was loaded was changed since; so it is loaded by another process, which looks at once.
    del code
    told = disk_store.run(
        """
    import os, sys
    os.utime(sys.argv[1])
    os.execv(sys.executable, [sys.executable, "-S", "-c", sys.argv[2], sys.argv[1]])
    """,
        str(library),
        prefix=prefix,
    )
    del told


def test_library_replaced_by_a_fifo_does_not_hang_the_program(
    disk_store: Store, library: Path
) -> None:
    code = """
    import ctypes, os, sys, pyhugetext
    library = ctypes.CDLL(sys.argv[1])
    os.unlink(sys.argv[1])
    os.mkfifo(sys.argv[1])
    pyhugetext.remap()
    print(getattr(library, "all")(7))
    """
    result = disk_store.run(code, str(library))
    assert (result.stdout, result.stderr) == (f"{3 * 7 * 3 + 69}\n", "")
