"""Pieces for the tests of the shared text store: children that start from one, and what they map."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from support.common import OWN, clean_environment

SYSTEM_STORE = "/var/cache/pyhugetext"

# Ends a child: the answer of a computation that runs through the interpreter's text, what the
# process maps, which modules it has, and where the text in memory differs from the original file.
REPORT = """
import json, sys
modules = sorted(name for name in sys.modules if name.startswith("pyhugetext"))
import struct

def load_headers(path):
    with open(path, "rb") as file:
        data = file.read(4096)
    at, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for i in range(count):
        kind, flags, offset, address, _, length, _, _ = struct.unpack_from(
            "<IIQQQQQQ", data, at + i * size)
        if kind == 1:
            yield flags, offset, address, length

def wrong_text(path, maps):
    headers = list(load_headers(path))
    for start, _, _, offset, name in maps:
        base = [a - o for _, o, a, n in headers if o & -4096 <= offset < o + n]
        if name == path and base:
            bias = start - offset - base[0]
            break
    else:
        return ["no mapping of " + path]
    wrong = []
    with open(path, "rb", 0) as file, open("/proc/self/mem", "rb", 0) as memory:
        for flags, offset, address, length in headers:
            if flags & 1:
                head = 0 if offset else 4096  # the copy's own ELF headers
                file.seek(offset + head)
                memory.seek(bias + address + head)
                left = length - head
                while left > 0:  # a little at a time, in buffers that are there
                    size = min(left, 1 << 16)
                    if file.read(size) != memory.read(size):
                        wrong.append(f"{path} at {address + length - left:#x}")
                    left -= size
    return wrong

def read_maps():
    with open("/proc/self/maps", errors="surrogateescape") as file:
        for line in file:
            span, permissions, offset, _, _, *name = line.split(None, 5)
            start, end = (int(part, 16) for part in span.split("-"))
            yield start, end, permissions, int(offset, 16), name[0].rstrip("\\n") if name else ""

import pyhugetext
from pyhugetext import _native
answer = sum(map(len, sorted(str(i) for i in range(3000))))
stats = pyhugetext.stats().as_dict()
maps = list(read_maps())
wrong = []
for region in stats["regions"]:
    if region["swapped_bytes"]:
        wrong += wrong_text(region["path"], maps)
print(json.dumps({"answer": answer, "modules": modules, "maps": maps, "wrong": wrong,
                  "stats": stats, "refusals": _native.snapshot()["reasons"]}))
"""
ANSWER = sum(map(len, sorted(str(i) for i in range(3000))))


@dataclass(frozen=True)
class Report:
    """What a child told at its end."""

    stats: dict[str, Any]
    modules: frozenset[str]  # of the package, loaded before the child asked for statistics
    maps: list[tuple[int, int, str, int, str]]  # start, end, permissions, offset, path
    refusals: list[str]  # why something was not built now
    wrote: bool | None = None  # to a store; None where nobody looked

    @property
    def interpreter(self) -> dict[str, Any]:
        """The region with the interpreter's text: of the executable or of libpython."""
        found: dict[str, Any] = max(
            (r for r in self.stats["regions"] if "python" in os.path.basename(r["path"])),
            key=lambda region: region["coverable_bytes"],
        )
        return found

    def region(self, name: str) -> dict[str, Any]:
        """The region of the library with this basename."""
        (found,) = (r for r in self.stats["regions"] if os.path.basename(r["path"]) == name)
        return dict(found)

    @property
    def reasons(self) -> str:
        """All that is told of why the interpreter's text is not on a better backing."""
        region = self.interpreter
        return "; ".join([region["reason"] or "", *region["fallbacks"], *self.stats["problems"]])

    @property
    def built(self) -> bool:
        """Whether it tried to build: a warm start neither writes to a store nor says why not."""
        assert self.wrote is not None
        return self.wrote or bool(self.refusals)

    def mapped_below(self, root: str | Path) -> list[str]:
        return [path for *_, path in self.maps if path.startswith(f"{root}/")]


def parse_report(output: str) -> Report:
    """Reads what REPORT printed, and checks that the child computed and mapped what is right."""
    told = json.loads(output.splitlines()[-1])
    assert told["answer"] == ANSWER
    assert told["wrong"] == []
    maps = [tuple(mapping) for mapping in told["maps"]]
    return Report(told["stats"], frozenset(told["modules"]), maps, told["refusals"])


@dataclass
class Store:
    """A store's directory and how children are started with it."""

    root: Path
    prefix: tuple[str, ...] = ()
    backing: str = "store"
    seen: Path | None = None  # where this process finds the root, when it is mounted elsewhere
    other: Path | None = None  # where it finds that of the store that follows this one

    @property
    def base(self) -> Path:
        return (self.seen or self.root) / "v1"

    @property
    def records(self) -> list[Path]:
        index = self.base / "index"
        return sorted(index.iterdir()) if index.is_dir() else []

    @property
    def copies(self) -> list[Path]:
        return sorted((self.base / "objects").glob("*/*"))

    @property
    def leftovers(self) -> list[Path]:
        return sorted((self.base / "tmp").iterdir())

    @property
    def record(self) -> Path:
        """The one record there is."""
        (record,) = self.records
        return record

    @property
    def copy(self) -> Path:
        """The one copy there is."""
        (copy,) = self.copies
        return copy

    def fingerprint(self) -> list[object]:
        """What differs once somebody has written to the store: whatever is put there is made in a
        directory and renamed into another. Of a file in use the times change."""
        out: list[object] = []
        for base in (self.base, *([self.other / "v1"] if self.other else [])):
            for directory in (base, *(base / name for name in ("index", "objects", "tmp"))):
                try:
                    status, names = directory.stat(), os.listdir(directory)
                    inodes = [directory.joinpath(name).lstat().st_ino for name in names]
                except OSError as error:
                    out.append(error.errno)
                else:
                    out.append((status.st_ino, status.st_mtime_ns, sorted(inodes)))
        return out

    def environment(self, **settings: str) -> dict[str, str]:
        environ = clean_environment(
            HOME="/nonexistent", PYHUGETEXT_STORE=str(self.root), PYHUGETEXT_BACKING=self.backing
        )
        environ.pop("XDG_CACHE_HOME", None)
        environ.update(settings)
        return {name: value for name, value in environ.items() if value != UNSET}

    def run(
        self,
        code: str,
        *arguments: str,
        prefix: tuple[str, ...] | None = None,
        executable: str = sys.executable,
        **settings: str,
    ) -> subprocess.CompletedProcess[str]:
        """Runs code in a child; `prefix` (a command in front) goes behind the store's own."""
        return subprocess.run(
            [*self.prefix, *(prefix or ()), executable, "-c", textwrap.dedent(code), *arguments],
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(
        self,
        code: str = "",
        *arguments: str,
        prefix: tuple[str, ...] | None = None,
        executable: str = sys.executable,
        **settings: str,
    ) -> Report:
        """Runs code in a child that must succeed and say nothing, and returns its report."""
        before = self.fingerprint()
        result = self.run(
            textwrap.dedent(code) + REPORT,
            *arguments,
            prefix=prefix,
            executable=executable,
            **settings,
        )
        assert (result.returncode, result.stderr) == (0, ""), (
            f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
        return replace(parse_report(result.stdout), wrote=self.fingerprint() != before)

    def fill(self, **settings: str) -> None:
        """Builds the interpreter's entry, and makes sure that the next start maps it."""
        # The second adds what is not urgent: debug information.
        for _ in range(2):
            built = self.run("", **settings)
            assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
        report = self.start(**settings)
        if report.interpreter["backing"] != self.backing:
            # The kernel may be out of 2 MiB pages for a moment; that is noted for a minute.
            notes = [self.forget(note) for note in self.records]
            self.start(**settings)
            report = self.start(**settings)
            assert report.interpreter["backing"] == self.backing, (report.reasons, notes)
        assert report.mapped_below(self.root)
        assert not report.built

    def is_filled_by_warm_only(self) -> None:
        """From now on, for a day: its file system gives huge pages to files, but to no new ones."""
        verdict = self.base / "verdict"
        told, _, last = verdict.read_text().rpartition(" ")
        assert last == "written\n"
        verdict.write_text(f"{told} evicted\n")

    def forget(self, record: Path) -> bytes:
        """Removes a record or a note; returns what was in it."""
        content = record.read_bytes()
        record.unlink()
        return content

    def refuses(self, **settings: str) -> str:
        """Starts a child that may not build: it must map nothing of this store. Returns why."""
        report = self.start(PYHUGETEXT_BUILD="never", **settings)
        assert report.mapped_below(self.root) == []
        assert report.interpreter["backing"] != self.backing
        return report.reasons

    def recovers(self, **settings: str) -> None:
        """Two starts that may build: the second maps a good entry again, without building."""
        first = self.start(**settings)
        assert first.interpreter["backing"] == self.backing, first.reasons
        self.is_good(**settings)

    def is_good(self, **settings: str) -> None:
        report = self.start(**settings)
        assert report.interpreter["backing"] == self.backing, report.reasons
        assert not report.built, ("an entry is there, and was built again", self.records)
        assert self.leftovers == []


def filled_store(root: Path) -> Store:
    """A store on disk with the interpreter's entry; skips where that cannot be."""
    require_huge_disk(root)
    store = Store(root)
    store.fill()
    return store


def read_in_small_pieces(copy: Path, offset: int = 0) -> None:
    """What an ordinary program that reads the copy leaves in the page cache, from an offset on; what
    is mapped stays."""
    with open(copy, "rb") as file:
        os.posix_fadvise(file.fileno(), offset, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(offset, os.fstat(file.fileno()).st_size, 4096):
            os.pread(file.fileno(), 4096, at)


class Refilled:
    """One filled store for many tests. What they do to it the package mends, mostly: it is emptied and
    filled again only where a test left it another than it was."""

    def __init__(self, area: Path, store: Store) -> None:
        self._area = area  # with all that tests may change
        self._store = store
        self._good: list[object] = []

    def get(self) -> Store:
        if not self._good or self._state() != self._good:
            for path in self._area.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            self._store.fill()
            self._good = self._state()
        return replace(self._store)

    def _state(self) -> list[object]:
        """Names, modes, owners, links and sizes, and what is in the copies."""
        out: list[object] = []
        copies = {copy: str(i) for i, copy in enumerate(self._store.copies)}
        for place, directories, files in os.walk(self._area):
            for path in (Path(place, name) for name in directories + files):
                status = path.lstat()
                facts = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink)
                if path in copies:
                    out.append((copies[path], facts, zlib.crc32(path.read_bytes())))
                elif (
                    path.parent != self._store.base / "objects"
                ):  # these names are new ones each time
                    out.append((path, facts, 0 if path.is_dir() else status.st_size))
        return sorted(out, key=str)


UNSET = "\0unset"


@contextlib.contextmanager
def lock_held(root: Path) -> Iterator[None]:
    """Holds the writer's lock of a store, as a builder does."""
    fd = os.open(root / "v1" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole)
        yield
    finally:
        os.close(fd)


def waits_for_lock(process: subprocess.Popen[str], root: Path) -> bool:
    """Whether a process has opened the lock of a store, which somebody else holds."""
    wanted = os.stat(root / "v1" / "lock")
    for fd in Path(f"/proc/{process.pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if os.path.samestat(fd.stat(), wanted):
                return True
    return False


def require_no_system_store() -> None:
    if os.path.exists(SYSTEM_STORE):
        pytest.skip(f"{SYSTEM_STORE} exists, and would be looked at first")


_disk_problems: dict[int, str] = {}  # by file system


def require_huge_disk(directory: Path) -> None:
    """Skips where files in `directory`, which may yet have to be made, get no huge pages."""
    require_no_system_store()
    while not directory.exists():
        directory = directory.parent
    device = directory.stat().st_dev
    if device not in _disk_problems:
        # The directory may be somebody else's, where there is no store of ours.
        ours = OWN.name if os.stat(OWN.name).st_dev == device else directory
        with tempfile.TemporaryDirectory(dir=ours) as place:
            report = Store(Path(place) / "probe").start()
            good = report.interpreter["backing"] == "store"
            _disk_problems[device] = "" if good else report.reasons
    if _disk_problems[device]:
        pytest.skip(f"no store on disk below {directory}: {_disk_problems[device]}")
