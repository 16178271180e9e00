"""File systems whose times are coarse: what is changed again within a second is never taken for
what it was before."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.libraries import USE_LIBRARY, two_libraries
from support.store import Store, filled_store
from support.users import namespace

# 128 bytes of inode have no place for nanoseconds.
COARSE = """
cd "{place}"
truncate -s 100M image
mkfs.ext4 -q -I 128 image > /dev/null 2>&1
mkdir mnt
mount -o loop image mnt
cd /
"""
# Early in a second: copies argv[1] to argv[3], runs from it, and copies argv[2] over it. Prints
# whether its times and size are as before.
TWICE = """
import ctypes, os, shutil, sys, time, pyhugetext
first, second, library = sys.argv[1:]
time.sleep(1.02 - time.time() % 1)
shutil.copyfile(first, library)
before = os.stat(library)
loaded = ctypes.CDLL(library)
stats = pyhugetext.remap()
(region,) = [r for r in stats.regions if r.path == library]
assert getattr(loaded, "all")(7) == 3 * 7 * 3 + 69
if os.path.exists(library + ".rename"):
    shutil.copyfile(second, library + ".new")
    os.rename(library + ".new", library)
else:
    shutil.copyfile(second, library)
after = os.stat(library)
key = lambda s: (s.st_dev, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
print(region.backing, region.reason, int(key(before) == key(after)), flush=True)
os._exit(0)  # what is loaded was written to
"""
AGAIN = """
import ctypes, sys, pyhugetext
library = ctypes.CDLL(sys.argv[1])
for step in (pyhugetext.remap, pyhugetext.restore, pyhugetext.remap):
    step()
    assert getattr(library, "all")(7) == 3 * 7 * 5 + 69, step
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two_libraries(tmp_path_factory.mktemp("libraries"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    filled_store(tmp_path / "store")
    with namespace(COARSE.format(place=tmp_path)) as space:
        (space.sees(tmp_path / "mnt") / "probe").touch()
        if (space.sees(tmp_path / "mnt") / "probe").stat().st_ctime_ns % 10**9:
            pytest.skip("this kernel keeps nanoseconds for such an ext4")
        yield Store(tmp_path / "store", space.prefix)


def test_library_changed_twice_within_a_second_is_not_the_first_one(
    store: Store, libraries: tuple[Path, Path], tmp_path: Path
) -> None:
    library = tmp_path / "mnt" / "libvictim.so"
    for _ in range(5):
        result = store.run(TWICE, *map(str, (*libraries, library)))
        assert (result.returncode, result.stderr) == (0, "")
        backing, *reason, same = result.stdout.split()
        if same == "1":
            break
    else:
        pytest.skip("two changes never came within one second")
    assert backing == "none", "built from a file that may change without a trace"
    assert "a moment ago" in " ".join(reason) or "could not be made" in " ".join(reason)
    store.run(AGAIN, str(library), PYHUGETEXT_BUILD="never").check_returncode()
    assert len(store.copies) == 1
    (note,) = [path for path in store.records if path.read_bytes().startswith(b"PHTNONE\n")]
    assert b"changed a moment ago" in note.read_bytes()
    left = 24 * 60 * 60 - (time.time() - note.stat().st_mtime)
    assert 0 < left <= 60

    time.sleep(2.2)
    os.utime(note, (1, 1))
    report = store.start(USE_LIBRARY, str(library), "5")
    assert report.region("libvictim.so")["backing"] == "store", report.region("libvictim.so")
    report = store.start(USE_LIBRARY, str(library), "5")
    assert report.region("libvictim.so")["backing"] == "store"
    assert not report.built
    store.run(AGAIN, str(library)).check_returncode()


@pytest.mark.parametrize("how", ["in place", "by rename"])
def test_old_code_never_runs_whatever_was_built(
    store: Store, libraries: tuple[Path, Path], tmp_path: Path, how: str
) -> None:
    library = tmp_path / "mnt" / "libvictim.so"
    if how == "by rename":
        store.run(f"open({str(library) + '.rename'!r}, 'w')", PYHUGETEXT="0")
    for _ in range(3):
        result = store.run(TWICE, *map(str, (*libraries, library)))
        assert (result.returncode, result.stderr) == (0, "")
        for building in ("never", "auto"):
            told = store.run(AGAIN, str(library), PYHUGETEXT_BUILD=building)
            assert (told.returncode, told.stderr) == (0, "")
