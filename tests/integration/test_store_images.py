"""Entries that container images find by content, and whose files the system's store takes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile

from support.cli import Cli, need_root, need_tool, public_directory
from support.common import HUGE
from support.libraries import make_library
from support.store import Store, require_huge_disk
from support.users import Namespace, namespace

ANSWER = {3: 3 * 7 * 3 + 69, 5: 3 * 7 * 5 + 69}
SETUP = """
mount --bind "{place}/cache" /var/cache
truncate -s 200M "{place}/image"
mkfs.ext4 -q "{place}/image"
mkdir "{place}/other"
mount -o loop "{place}/image" "{place}/other"
"""


class System:
    """A system's store of its own in a namespace, and another file system beside."""

    def __init__(self, space: Namespace, place: Path) -> None:
        self.space, self.place = space, place
        self.cli = Cli(place / "cache" / "pyhugetext")
        self.cli.prefix = space.prefix
        self.here, self.there = place / "here", place / "other" / "here"
        self.here.mkdir()
        self.library = self.here / "libvictim.so"

    def warm(self) -> dict[str, str]:
        """What becomes of each object, by path."""
        (self.here / "sample.py").write_text(f"import ctypes\nctypes.CDLL({str(self.library)!r})\n")
        result = self.cli("warm", "--system", "--json", "sample", PYTHONPATH=str(self.here))
        if "never gives" in result.stderr:
            pytest.skip("the file system of the temporary directory has no huge pages for files")
        assert result.returncode == 0, result.stderr
        return {one["path"]: one["status"] for one in json.loads(result.stdout)["objects"]}

    def copy_tree(self) -> Path:
        """Unpacks the image elsewhere: all as it is, but for device, inode and change time."""
        self.space.run("cp", "-a", str(self.here), str(self.there))
        return self.there / "libvictim.so"

    def run(self, library: Path) -> tuple[str, str | None, int]:
        """The library's backing, why it has none, and what it computes."""
        code = """
        import ctypes, json, sys, pyhugetext
        library = ctypes.CDLL(sys.argv[1])
        stats = pyhugetext.remap()
        (region,) = [r for r in stats.regions if r.path == sys.argv[1]]
        print(json.dumps([region.backing, region.reason, getattr(library, "all")(7)]))
        """
        store = Store(self.place / "none", self.space.prefix)
        result = store.run(code, str(library), PYHUGETEXT_BUILD="never")
        assert (result.returncode, result.stderr) == (0, "")
        backing, reason, answer = json.loads(result.stdout)
        return backing, reason, answer

    @property
    def images(self) -> list[Path]:
        return sorted(self.cli.store.glob("v1/index/image-*"))


@pytest.fixture
def system() -> Iterator[System]:
    need_root()
    need_tool("mkfs.ext4")
    with public_directory() as place:
        require_huge_disk(place / "cache")
        (place / "cache").mkdir(mode=0o755)
        with namespace(SETUP.format(place=place)) as space:
            yield System(space, place)


@pytest.fixture
def warm(system: System) -> System:
    shutil.copy(make_library(system.place), system.library)
    time.sleep(0.1)
    assert system.warm()[str(system.library)] == "built"
    assert system.run(system.library)[::2] == ("store", ANSWER[3])
    assert any(b"libvictim" in path.read_bytes() for path in system.images)
    return system


@pytest.fixture
def changed(system: System) -> Path:
    """The library with other code, of the same size and build-id."""
    place = system.place / "changed"
    place.mkdir()
    return make_library(place, 5)


def overwrite(library: Path, other: Path) -> None:
    library.write_bytes(other.read_bytes())


def exchange(library: Path, other: Path) -> None:
    fresh = library.with_name("fresh")
    shutil.copy(other, fresh)
    fresh.rename(library)


def back_in_time(change: Callable[[Path, Path], None], library: Path, other: Path) -> None:
    """Changes a library and puts its times back, to the nanosecond."""
    before = library.stat()
    change(library, other)
    os.utime(library, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert library.stat().st_size == before.st_size


@pytest.mark.parametrize("change", [overwrite, exchange], ids=lambda change: change.__name__)
def test_image_entry_is_not_used_where_the_file_itself_is_known(
    warm: System, changed: Path, change: Callable[[Path, Path], None]
) -> None:
    """On the device that it was made on, another change time is another file."""
    back_in_time(change, warm.library, changed)
    backing, reason, answer = warm.run(warm.library)
    assert answer == ANSWER[5], "the code of the file that was there before"
    assert backing == "none", reason
    # Made anew, it is the new file's.
    assert warm.warm()[str(warm.library)] == "built"
    assert warm.run(warm.library)[::2] == ("store", ANSWER[5])


def test_image_entry_is_used_on_another_device(warm: System) -> None:
    library = warm.copy_tree()
    assert warm.run(library) == ("store", None, ANSWER[3])


def test_one_other_byte_of_the_text_is_enough(warm: System) -> None:
    """Wherever it is: what only size, time and build-id are known of is compared byte by byte."""
    library = warm.copy_tree()
    seen = warm.space.sees(library)
    original = seen.read_bytes()
    with seen.open("rb") as file:
        (text,) = [
            (segment["p_offset"], segment["p_filesz"])
            for segment in ELFFile(file).iter_segments("PT_LOAD")
            if segment["p_flags"] & P_FLAGS.PF_X
        ]
    start, size = text
    places = [start + HUGE, start + size // 2 // HUGE * HUGE - 1]
    places += [start + size * part // 97 + 3 for part in (31, 41, 59)]
    other = warm.place / "other-content"
    for at in places:
        content = bytearray(original)
        content[at] ^= 0x40
        other.write_bytes(content)
        back_in_time(overwrite, seen, other)
        backing, reason, _ = warm.run(library)
        assert (backing, reason) == ("none", "the store has no entry for this file"), at
    other.write_bytes(original)
    back_in_time(overwrite, seen, other)
    assert warm.run(library) == ("store", None, ANSWER[3])


# What everybody reads must have been readable for everybody.


def close_file(system: System) -> None:
    system.library.chmod(0o600)


def close_directory(system: System) -> None:
    system.here.chmod(0o700)


@pytest.mark.parametrize("close", [close_file, close_directory], ids=lambda close: close.__name__)
def test_what_only_root_may_read_is_not_given_to_everybody(
    system: System, close: Callable[[System], None]
) -> None:
    shutil.copy(make_library(system.place), system.library)
    close(system)
    time.sleep(0.1)
    (system.here / "sample.py").write_text(f"import ctypes\nctypes.CDLL({str(system.library)!r})\n")
    environ = {"PYTHONPATH": str(system.here)}
    result = system.cli("warm", "--system", "sample", **environ)
    if "never gives" in result.stderr:
        pytest.skip("the file system of the temporary directory has no huge pages for files")
    assert "cannot be read by everyone" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    told = [path for path in system.cli.store.rglob("*") if path.is_file()]
    assert told, "the interpreter is everybody's"
    for path in told:
        assert "libvictim" not in path.name
        assert b"libvictim" not in path.read_bytes(), path
    # An own store takes it.
    own = Cli(system.place / "own")
    own.prefix = system.space.prefix
    assert own("warm", "sample", **environ).returncode == 0
    assert any(path.name == "libvictim.so" for path in own.store.rglob("objects/*/*"))


def test_what_was_closed_later_is_refused_when_it_is_made_anew(warm: System) -> None:
    os.utime(warm.library)
    warm.library.chmod(0o600)
    assert warm.warm()[str(warm.library)] == "refused"
