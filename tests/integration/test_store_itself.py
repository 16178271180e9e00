"""What the kernel takes itself, without a copy, needs no entry: whatever was stored before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from support.cli import need_tool, wait_for
from support.common import TESTS, tool
from support.older import as_on
from support.record import Record
from support.store import Store, lock_held, require_huge_disk, waits_for_lock
from support.users import Namespace, namespace

LOADS = """
import ctypes, sys, pyhugetext
for library in sys.argv[1:]:
    ctypes.CDLL(library)
pyhugetext.remap()
"""
ANOTHER = 1  # some other kernel, as a record names it
ALIGNED = "-Wl,-z,max-page-size=2097152"
TEXT = '__asm__(".text; .skip 5 << 20, 0x90");'


@dataclass
class Place:
    """A library, in memory, where this kernel collapses files, or not; and a store on disk."""

    library: str
    store: Store

    def start(
        self,
        backing: str = "auto",
        prefix: tuple[str, ...] = (),
        more: str = "",
        **settings: str,
    ) -> dict[str, Any]:
        settings |= {"PYHUGETEXT_INCLUDE": self.library, "PYHUGETEXT_BACKING": backing}
        report = self.store.start(LOADS + more, self.library, prefix=prefix, **settings)
        region = report.region(os.path.basename(self.library))
        if (region["reason"] or "").startswith("the layout"):
            pytest.skip("the dynamic linker does not align this library")
        return region

    def take(
        self, backing: str = "auto", prefix: tuple[str, ...] = (), **settings: str
    ) -> tuple[str, str]:
        region = self.start(backing, prefix, **settings)
        return region["backing"], region["status"]

    def warm(self, backing: str = "auto") -> str:
        """What became of the library."""
        result = subprocess.run(
            [*self.store.prefix, sys.executable, "-m", "pyhugetext", "warm", self.library],
            env=self.store.environment(PYHUGETEXT_BACKING=backing),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        (row,) = (line for line in result.stdout.splitlines() if self.library in line)
        return row.split()[0]

    def fill(self, refused_by: int | None) -> Record:
        """An entry that was asked for; with another kernel as the one that was asked, if named."""
        for path in self.store.records:
            self.store.forget(path)
        for _ in range(2):
            assert self.take("store") == ("store", "huge")
        record = Record.read(self.store.record)
        assert record.refused_by == 0
        if refused_by is not None:
            record = replace(record, refused_by=refused_by)
            mode = self.store.record.stat().st_mode
            self.store.record.write_bytes(record.pack())
            self.store.record.chmod(mode)
        return record


Make = Callable[..., Place]


@pytest.fixture
def place(tmp_path: Path, compile_library: Callable[..., Path]) -> Iterator[Make]:
    require_huge_disk(tmp_path)
    with namespace() as space:
        yield lambda *flags: make(space, tmp_path, compile_library(TEXT, *flags), bool(flags))


def make(space: Namespace, tmp_path: Path, library: Path, aligned: bool) -> Place:
    store = Store(tmp_path / "store", space.prefix, "auto")
    if not aligned:
        return Place(str(library), store)
    copy = space.sees(f"/dev/shm/{library.name}")
    shutil.copy(library, copy)
    return Place(f"/dev/shm/{library.name}", store)


def test_entry_of_another_kernel_gives_way_and_goes(place: Make) -> None:
    here = place(ALIGNED)
    here.fill(ANOTHER)
    region = here.start()
    assert (region["backing"], region["status"]) == ("file", "huge"), region
    assert (here.store.records, here.store.copies) == ([], [])
    assert here.take() == ("file", "huge")
    assert here.store.records == []


def test_who_waited_for_another_builder_builds_nothing_of_it_either(
    place: Make, compile_library: Callable[..., Path]
) -> None:
    """What is wanted is listed once more, when the other one is done."""
    here = place(ALIGNED)
    here.fill(ANOTHER)
    wanting = compile_library(TEXT, name="wanting")  # which is what it waits for
    settings = {
        "PYHUGETEXT_INCLUDE": f"{here.library}:{wanting}",
        "PYHUGETEXT_BACKING": "auto",
        "PYHUGETEXT_BUILD": "always",
    }
    with lock_held(here.store.root):
        child = subprocess.Popen(
            [*here.store.prefix, sys.executable, "-c", LOADS, here.library, str(wanting)],
            env=here.store.environment(**settings),
        )
        wait_for(lambda: waits_for_lock(child, here.store.root) or child.poll() is not None)
        time.sleep(0.1)  # it was refused once
        assert child.poll() is None
    assert child.wait(timeout=60) == 0
    origins = [Record.read(path).origin for path in here.store.records]
    assert origins == [str(wanting)]


def test_entry_that_was_asked_for_stays(place: Make) -> None:
    here = place(ALIGNED)
    before = here.fill(None)
    assert here.take() == ("file", "huge")
    assert Record.read(here.store.record) == before
    assert here.take("store") == ("store", "huge")


@pytest.mark.parametrize("flags", [(ALIGNED,), ()], ids=["taken", "refused"])
def test_store_is_opened_for_it_once(place: Make, tmp_path: Path, flags: tuple[str, ...]) -> None:
    need_tool("strace")
    here = place(*flags)
    trace = tmp_path / "trace"

    def locks(more: str) -> int:
        here.fill(None)
        prefix = ("strace", "-f", "-o", str(trace), "-e", "trace=fcntl,flock")
        here.start(prefix=prefix, more=more)
        return trace.read_text().count("F_OFD_SETLK")

    assert locks("") == locks("pyhugetext.remap()\n" * 3) > 0


def test_entry_serves_who_may_build_nothing(place: Make) -> None:
    here = place(ALIGNED)
    here.fill(ANOTHER)
    assert here.take(PYHUGETEXT_BUILD="never") == ("store", "huge")
    assert Record.read(here.store.record).refused_by == ANOTHER


def test_kernel_that_cannot_take_it_is_asked_once(place: Make) -> None:
    here = place()
    before = here.fill(ANOTHER)
    assert here.take() == ("store", "huge")
    record = Record.read(here.store.record)
    assert record.refused_by not in (0, ANOTHER)
    assert replace(record, refused_by=ANOTHER) == before
    status = here.store.record.stat()
    region = here.start()
    assert (region["backing"], region["status"]) == ("store", "huge")
    assert not any(one.startswith("file") for one in region["fallbacks"]), region["fallbacks"]
    after = here.store.record.stat()
    assert (after.st_ino, after.st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


FILTERED = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
from support import harm
harm.install(harm.refuse_rule((9999, None, 1)))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_under_a_filter_which_may_kill_nothing_is_asked(place: Make, tmp_path: Path) -> None:
    here = place(ALIGNED)
    here.fill(ANOTHER)
    trace = tmp_path / "trace"
    strace = (tool("strace"), "-f", "-o", str(trace), "-e", "trace=uname")
    filtered = (sys.executable, "-S", "-c", FILTERED, str(TESTS), *strace)
    counts = []
    for prefix in (strace, filtered):
        assert here.take(prefix=prefix, PYHUGETEXT_BUILD="never") == ("store", "huge")
        counts.append(trace.read_text().count("uname("))
    assert counts[1] < counts[0]
    assert here.take(prefix=filtered) == ("store", "huge")
    assert Record.read(here.store.record).refused_by == ANOTHER


def test_entry_with_more_pages_than_the_file_stays(place: Make, tmp_path: Path) -> None:
    here = place(ALIGNED)
    here.fill(ANOTHER)
    assert here.take(prefix=as_on("FIRST", tmp_path)) == ("store", "huge")
    assert Record.read(here.store.record).refused_by not in (0, ANOTHER)
    assert here.take() == ("store", "huge")  # the kernel is not asked again


def test_start_notes_what_the_kernel_said_when_it_builds(place: Make) -> None:
    here = place()
    assert here.take() == ("store", "huge")
    assert Record.read(here.store.record).refused_by


def test_warm_makes_nothing_of_what_the_kernel_takes(place: Make) -> None:
    here = place(ALIGNED)
    assert here.warm() == "unneeded"
    assert not any(one.name == "libsample.so" for one in here.store.copies)
    assert here.take() == ("file", "huge")
    assert here.warm("store") == "built"
    assert here.warm() == "unneeded"  # and what somebody asked for stays
    assert here.take("store") == ("store", "huge")


def test_warm_removes_the_entry_of_another_kernel(place: Make) -> None:
    here = place(ALIGNED)
    here.fill(ANOTHER)
    assert here.warm() == "unneeded"
    origins = [Record.read(path).origin for path in here.store.records]
    assert here.library not in origins


def test_warm_notes_that_the_kernel_was_asked(place: Make) -> None:
    here = place()
    here.fill(ANOTHER)
    assert here.warm() == "promoted"
    (record,) = (
        record for record in map(Record.read, here.store.records) if record.origin == here.library
    )
    assert record.refused_by not in (0, ANOTHER)
