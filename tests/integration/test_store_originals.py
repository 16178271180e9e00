"""Libraries that change after their entry was made: the entry is never taken for the new one's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import wait_for
from support.common import tool
from support.libraries import USE_LIBRARY, two_libraries
from support.record import Note
from support.store import Store, filled_store


@pytest.fixture
def disk_store(tmp_path: Path) -> Store:
    return filled_store(tmp_path / "store")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two_libraries(tmp_path_factory.mktemp("libraries"))


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


LOAD = """
import ctypes, sys, pyhugetext
library = ctypes.CDLL(sys.argv[1])
pyhugetext.remap()
"""
WARM = """
import sys
from pyhugetext.store import places, warm
made = warm.Warmer(places.Store(sys.argv[2], 1 << 30)).prepare(sys.argv[1], 0)
assert made.status == "refused"
"""


# What is loaded cannot be truncated without harm, to whomever.
@pytest.mark.parametrize(
    ("change", "code"), [(append, LOAD), (edit, LOAD), (append, WARM), (truncate, WARM)]
)
def test_library_that_changes_while_it_is_copied_gets_no_entry(
    disk_store: Store, library: Path, change: Callable[[Path], None], code: str, tmp_path: Path
) -> None:
    """Whoever copies is stopped at its first write to the copy; the library changes, and it goes
    on. A start has nobody try again for a minute."""
    interpreter = disk_store.record
    if disk_store.run("pass", prefix=(tool("strace"), "-o", "/dev/null")).stderr:
        pytest.skip("strace may not trace here")
    pid = tmp_path / "pid"
    code = (
        f"import os, sys\nwith open(sys.argv[3], 'w') as file: file.write(str(os.getpid()))\n{code}"
    )
    stops = ("-e", "trace=pwrite64", "-e", "inject=pwrite64:signal=SIGSTOP:when=1")
    command = [tool("strace"), "-f", "-qq", "-o", "/dev/null", *stops, sys.executable, "-c", code]
    child = subprocess.Popen(
        [*command, str(library), str(disk_store.root), str(pid)],
        env=disk_store.environment(PYHUGETEXT="1" if code.endswith(LOAD) else "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: any(copy.stat().st_blocks for copy in disk_store.base.glob("tmp/*/*")))
    change(library)
    os.kill(int(pid.read_text()), signal.SIGCONT)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    assert len(disk_store.copies) == 1
    assert disk_store.leftovers == []
    notes = [path for path in disk_store.records if path != interpreter]
    assert len(notes) == (1 if code.endswith(LOAD) else 0)
    for path in notes:
        note = Note.read(path)
        assert (note.origin, note.reason) == (str(library), "was changed while it was copied")
        left = 24 * 60 * 60 - (time.time() - path.stat().st_mtime)
        assert 0 < left <= 60


def test_library_is_not_read_within_the_tick_of_its_last_change(
    disk_store: Store, library: Path, tmp_path: Path
) -> None:
    """A change in the same tick of the kernel's clock would leave its identity as it was."""
    if disk_store.run("pass", prefix=(tool("strace"), "-o", "/dev/null")).stderr:
        pytest.skip("strace may not trace here")
    log = tmp_path / "log"
    prefix = (tool("strace"), "-qq", "-ttt", "-o", str(log), "-e", "trace=pread64,utimensat")
    code = """
    import os, sys
    from pyhugetext.store import places, warm
    warmer = warm.Warmer(places.Store(sys.argv[2], 1 << 30))
    os.utime(sys.argv[1])
    print(warmer.prepare(sys.argv[1], 0).status)
    """
    arguments = (str(library), str(disk_store.root))
    result = disk_store.run(code, *arguments, prefix=prefix, PYHUGETEXT="0")
    assert (result.stdout, result.stderr) == ("built\n", "")
    lines = log.read_text().splitlines()
    changed = next(i for i, line in enumerate(lines) if str(library) in line)
    read = next(line for line in lines[changed:] if "pread64" in line and "ELF" in line)
    # Twenty milliseconds after the time that the file has, which is a tick old at most.
    assert float(read.split()[0]) - float(lines[changed].split()[0]) >= 0.009


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
