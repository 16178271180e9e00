"""What was huge in the store and is not any more: mended where it can be, told of where not."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli
from support.libraries import aged_library
from support.store import Store, filled_store, read_in_small_pieces

HUGE = 2 << 20

# Says what becomes of a library, after the start and after each line of input: `remap` calls it
# before. With `drop` the library's pages leave this process's page table and are used again.
RUN = """
import ctypes, json, mmap, os, sys, pyhugetext
library = ctypes.CDLL(sys.argv[1])
pyhugetext.remap()
libc = ctypes.CDLL(None, use_errno=True)

def region():
    (found,) = (r for r in pyhugetext.stats().regions if r.path == sys.argv[1])
    return found

def use(found):
    for at in range(found.start, found.end, 4096):
        ctypes.string_at(at, 1)

def tell():
    found = region()
    print(json.dumps({**found._asdict(), "small": pyhugetext.stats().small_bytes}), flush=True)

use(region())
tell()
for line in sys.stdin:
    found = region()
    if line == "leave\\n":
        libc.madvise(ctypes.c_void_p(found.start), ctypes.c_size_t(found.end - found.start), 4)
    elif line == "use\\n":
        use(found)
    else:
        pyhugetext.remap()
        use(region())
    tell()
assert library.all(7) == 3 * 7 * 3 + 69
"""


class Running:
    """A process that runs from the store until it is told to end."""

    def __init__(self, store: Store, library: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RUN), str(library)],
            env=store.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.told = self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0


@contextlib.contextmanager
def running(store: Store, library: Path) -> Iterator[Running]:
    process = Running(store, library)
    try:
        yield process
    finally:
        process.end()


@pytest.fixture
def library() -> Path:
    return aged_library()


@pytest.fixture
def store(tmp_path: Path, library: Path) -> Store:
    """A store with entries of the interpreter and a library, on disk."""
    store = filled_store(tmp_path / "store")
    for _ in range(2):
        with running(store, library) as process:
            told = process.told
    if told["backing"] != "store":
        pytest.skip(f"the library gets no entry: {told['reason']}")
    for copy in store.copies:
        with open(copy, "rb") as file:
            os.fsync(file.fileno())
    # Seen to be on disk.
    for record in store.records:
        record.chmod(0o400)
    assert is_huge(told)
    return store


def is_huge(told: dict[str, Any]) -> bool:
    return bool(
        told["backing"] == "store"
        and told["status"] == "huge"
        and told["huge_bytes"] == told["swapped_bytes"] > 0 == told["small_bytes"]
    )


def copy_of(store: Store, library: Path) -> Path:
    (copy,) = (copy for copy in store.copies if copy.name == library.name)
    return copy


def copied(store: Store, to: Path) -> Store:
    """As `cp -a` copies it: in small pieces, and not on disk yet."""
    shutil.copytree(store.root, to, symlinks=True, copy_function=copy_in_small_pieces)
    return Store(to)


def copy_in_small_pieces(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "wb", buffering=0) as new:
        while piece := old.read(65536):
            new.write(piece)
    shutil.copystat(source, target)


def test_copied_store_is_huge_at_the_second_start_while_the_first_runs(
    store: Store, library: Path, tmp_path: Path
) -> None:
    fresh = copied(store, tmp_path / "copied")
    with running(fresh, library) as first:
        assert first.told["small_bytes"] == 0
        for copy in fresh.copies:
            with open(copy, "rb") as file:
                os.fsync(file.fileno())
        with running(fresh, library) as second:
            assert is_huge(second.told), second.told
            assert is_huge(first.ask("remap"))


def test_what_waits_for_the_store_says_so(store: Store, library: Path) -> None:
    """And not what a rung below it met."""
    copy = copy_of(store, library)
    read_in_small_pieces(copy)
    auto = replace(store, backing="auto")
    with open(copy, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as held:
        assert sum(held[at] for at in range(0, len(held), 4096)) > 0
        with running(auto, library) as process:
            told = process.told
    assert (told["backing"], told["private_bytes"]) == ("none", 0), told
    assert "its copy in the store is cached in small pages for now" in told["reason"]


@pytest.mark.parametrize("offset", [0, HUGE])
def test_next_start_mends_what_others_read_small(store: Store, library: Path, offset: int) -> None:
    for copy in store.copies:
        read_in_small_pieces(copy, offset)
    # All of it: who starts uses a part, and what is not used yet is dropped.
    for _ in range(2):
        with running(store, library) as process:
            assert process.told["status"] == "huge", process.told
            assert process.told["small_bytes"] == 0
    assert is_huge(process.told), process.told
    assert store.start().interpreter["small_bytes"] == 0


def test_remap_mends_what_became_small_under_a_running_process(store: Store, library: Path) -> None:
    with running(store, library) as process:
        assert is_huge(process.told)
        process.ask("leave")
        read_in_small_pieces(copy_of(store, library))
        told = process.ask("use")
        # Looking for statistics reads the headers, so the first page never left.
        assert told["small_bytes"] == told["small"] >= told["swapped_bytes"] - HUGE > 0
        assert told["small_bytes"] + told["huge_bytes"] == told["swapped_bytes"]
        assert told["status"] == "partial"
        assert "in 2 MiB pages" in told["reason"]
        told = process.ask("remap")
        assert is_huge(told), told
        assert process.ask("remap") == {**told, "elapsed_ns": process.ask("use")["elapsed_ns"]}


def test_what_another_process_keeps_small_stays_on_the_original(
    store: Store, library: Path
) -> None:
    with running(store, library) as holder:
        holder.ask("leave")
        read_in_small_pieces(copy_of(store, library))
        assert holder.ask("use")["small_bytes"]
        with running(store, library) as other:
            assert other.told["small_bytes"] == 0
            assert other.told["swapped_bytes"] <= HUGE
            assert "another process runs from them" in other.told["reason"]
            assert other.told["private_bytes"] == 0
            assert is_huge(holder.ask("remap"))
            assert is_huge(other.ask("remap"))


def test_heal_mends_all_entries(store: Store, library: Path) -> None:
    cli = Cli(store.root)
    for copy in store.copies:
        read_in_small_pieces(copy)
    (document,) = cli.json("store", "heal")["stores"]
    assert len(document["entries"]) == len(store.copies) == 2
    for entry in document["entries"]:
        assert 0 < entry["cached"] <= entry["pages"]
        assert entry["huge_before"] < entry["cached"] == entry["huge_after"], entry
        assert entry["reason"] is None
    (document,) = cli.json("store", "heal")["stores"]
    assert all(e["huge_before"] == e["cached"] == e["huge_after"] for e in document["entries"])
    with running(store, library) as process:
        assert is_huge(process.told)
    assert "huge before" in cli("store", "heal").stdout


def test_heal_tells_of_what_a_process_keeps_small(store: Store, library: Path) -> None:
    cli = Cli(store.root)
    with running(store, library) as process:
        process.ask("leave")
        read_in_small_pieces(copy_of(store, library))
        process.ask("use")
        (document,) = cli.json("store", "heal", status=1)["stores"]
        (entry,) = (e for e in document["entries"] if e["original"] == str(library))
        assert entry["huge_after"] < entry["cached"]
        assert "another process runs from them" in entry["reason"]
        assert is_huge(process.ask("remap"))
    cli.json("store", "heal")


def test_heal_of_no_store_does_nothing(tmp_path: Path) -> None:
    (document,) = Cli(tmp_path / "none").json("store", "heal")["stores"]
    assert document["entries"] == []
    assert not document["exists"]


@pytest.mark.parametrize(
    "fault",
    [
        "fadvise64:error=EINVAL",
        "sync_file_range:error=ENOSYS",
        "madvise:error=ENOMEM:when=2+",
        "madvise:error=EINVAL:when=4+",
    ],
)
def test_mending_that_fails_harms_nothing(store: Store, tmp_path: Path, fault: str) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    call = fault.partition(":")[0]
    flags = ("-f", "-qqq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={fault}")
    if subprocess.run(
        [strace, "-o", os.devnull, "true"], capture_output=True, check=False
    ).returncode:
        pytest.skip("strace does not work here")
    for copy in store.copies:
        read_in_small_pieces(copy, HUGE)
    result = store.run("print(sum(range(10)))", prefix=(strace, *flags))
    assert (result.returncode, result.stdout, result.stderr) == (0, "45\n", "")
    for _ in range(2):
        report = store.start()
    assert report.interpreter["small_bytes"] == 0
    assert report.interpreter["backing"] == "store"
