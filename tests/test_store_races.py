"""Many processes at one store, killed ones among them."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers_store import (
    REPORT,
    USE_LIBRARY,
    Report,
    Store,
    make_library,
    namespace,
    parse_report,
    require_huge_disk,
)
from pyhugetext.store import catalogue

AT_ONCE = 100
KILLS = int(os.environ.get("KILLS", "40"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    require_huge_disk(tmp_path)
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_library(tmp_path_factory.mktemp("library"))


def start_at_once(store: Store, count: int, gate: Path, code: str, *arguments: str) -> list[Report]:
    """Starts children that wait for one another at a FIFO before they become python."""
    os.mkfifo(gate)
    waiting = ["sh", "-c", f'read line < "{gate}"; exec "$@"', "sh"]
    command = [*store.prefix, *waiting, sys.executable, "-c", code + REPORT, *arguments]
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen(command, env=store.environment(), stdout=pipe, stderr=pipe, text=True)
        for _ in range(count)
    ]
    with open(gate, "w") as opened:
        time.sleep(0.5)  # the last ones reach the gate; those that do not come a little later
        opened.write("go\n" * count)
    results = [(*child.communicate(timeout=300), child.returncode) for child in children]
    gate.unlink()
    assert {(errors, status) for _, errors, status in results} == {("", 0)}
    return [parse_report(output) for output, _, _ in results]


def test_hundred_processes_on_a_cold_store_build_one_entry(store: Store, tmp_path: Path) -> None:
    reports = start_at_once(store, AT_ONCE, tmp_path / "gate", "")
    backings = [report.interpreter["backing"] for report in reports]
    assert "store" in backings
    for report in reports:
        if report.interpreter["backing"] != "store":
            assert "is being written by another process" in report.reasons
    assert len(store.records) == len(store.copies) == 1
    store.is_good()


def test_processes_that_wait_for_a_builder_make_no_second_copy_in_shared_memory(
    tmp_path: Path,
) -> None:
    require_huge_disk(tmp_path)
    with namespace() as space:
        store = space.store(tmp_path / "store")
        reports = start_at_once(store, 20, tmp_path / "gate", "")
        assert {report.interpreter["backing"] for report in reports} <= {"store", "memfd"}
        assert space.shm_store().copies == []
        assert len(store.copies) == 1


def test_many_processes_with_a_library_build_two_entries(
    store: Store, tmp_path: Path, library: Path
) -> None:
    start_at_once(store, 20, tmp_path / "gate", USE_LIBRARY, str(library))
    store.start(USE_LIBRARY, str(library))
    assert len(store.records) == len(store.copies) == 2
    report = store.start(USE_LIBRARY, str(library))
    assert report.region("libvictim.so")["backing"] == "store"
    assert not report.built
    assert store.leftovers == []


def test_killed_builders_leave_nothing_that_is_mapped(store: Store, library: Path) -> None:
    """Whatever a moment they are killed at, alone or several at once."""
    chance = random.Random(3)
    command = [sys.executable, "-c", USE_LIBRARY + REPORT, str(library)]
    for kill in range(KILLS):
        spoil(store, kill % 4)
        children = [
            subprocess.Popen(
                command,
                env=store.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(chance.choice((1, 1, 3)))
        ]
        time.sleep(chance.uniform(0, 0.15))
        for child in children:
            child.kill()
        for child in children:
            assert child.wait() in (-signal.SIGKILL, 0)
        # What was left is either not mapped or right: the report compares it with the originals.
        store.start(USE_LIBRARY, str(library), PYHUGETEXT_BUILD="never")
        store.start(USE_LIBRARY, str(library))
        report = store.start(USE_LIBRARY, str(library))
        assert report.interpreter["backing"] == "store", report.reasons
        assert report.region("libvictim.so")["backing"] == "store"
        assert not report.built
        assert store.leftovers == []
        assert len(store.records) == len(store.copies) == 2


def spoil(store: Store, how: int) -> None:
    """Gives the next process something to build."""
    if how == 0 and store.base.exists():
        shutil.rmtree(store.base)
    for record, copy in zip(store.records, store.copies):
        if how == 1:
            record.unlink()
        elif how == 2:
            copy.chmod(0o600)
            os.truncate(copy, 1 << 20)
        elif how == 3:
            shutil.rmtree(copy.parent)


@pytest.fixture
def held(store: Store) -> Iterator[Store]:
    """A store of which somebody holds the writer's lock, as a builder does that was stopped."""
    store.fill()
    store.record.unlink()
    fd = os.open(store.base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield store
    finally:
        os.close(fd)


def test_start_waits_no_longer_than_a_moment_for_another_builder(held: Store) -> None:
    report = held.start()
    assert "is being written by another process" in report.reasons
    assert held.records == []


def test_build_always_waits_for_another_builder(held: Store) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", REPORT],
        env=held.environment(PYHUGETEXT_BUILD="always"),
        stdout=subprocess.PIPE,
        text=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.7)
    other = os.open(held.base, os.O_RDONLY | os.O_DIRECTORY)
    os.close(other)
    assert held.records == []
    for fd in os.listdir("/proc/self/fd"):
        if os.path.realpath(f"/proc/self/fd/{fd}") == str(held.base):
            fcntl.flock(int(fd), fcntl.LOCK_UN)
    output, _ = child.communicate(timeout=60)
    assert parse_report(output).interpreter["backing"] == "store"


def test_child_forked_while_its_parent_builds_does_not_keep_the_lock(
    store: Store, python: object
) -> None:
    code = """
    import os, sys, time
    from pyhugetext.store.catalogue import Busy, Catalogue
    catalogue = Catalogue(sys.argv[1], 1 << 30, False)
    catalogue.prepare()
    lock = catalogue.lock(wait=False)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        catalogue.lock(wait=False)
    except Busy:
        print("busy")
    catalogue.unlock(lock)
    catalogue.unlock(catalogue.lock(wait=False))
    os.close(writer)
    os.waitpid(child, 0)
    print("free")
    """
    result = store.run(code, str(store.root), PYHUGETEXT="0")
    assert (result.stdout, result.stderr) == ("busy\nfree\n", "")


def test_process_waits_a_moment_for_another_that_builds_the_same(tmp_path: Path) -> None:
    """While this one sleeps, the other one builds: no copy of its own, no second build."""
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    code = """
        import fcntl, os, subprocess, sys, time
        environ = dict(os.environ, PYHUGETEXT="1")
        v1 = os.path.join(os.environ["PYHUGETEXT_STORE"], "v1")
        os.makedirs(v1, 0o700)
        os.chmod(os.path.dirname(v1), 0o700)
        lock = os.open(v1, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        sleep, sleeps = time.sleep, []

        def let_the_other_build(seconds):
            sleeps.append(seconds)
            if len(sleeps) == 2:
                fcntl.flock(lock, fcntl.LOCK_UN)
                subprocess.run([sys.executable, "-c", "pass"], env=environ, check=True)
            sleep(seconds)

        time.sleep = let_the_other_build
        import pyhugetext
        stats = pyhugetext.remap()
        time.sleep = sleep
        print(len(sleeps), stats.backing, stats.private_bytes)
    """
    result = store.run(code, PYHUGETEXT="0")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "2 store 0\n"
    assert len(store.copies) == len(store.records) == 1


def test_sweep_that_fails_keeps_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nobody could build as long as that process lives."""
    made = catalogue.Catalogue(str(tmp_path / "store"), 1 << 30, False)
    made.prepare()

    def fail(self: catalogue.Catalogue) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as context:
        context.setattr(catalogue.Catalogue, "sweep", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            made.lock(wait=False)
    made.unlock(made.lock(wait=False))
