"""Many processes at one store, killed ones among them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import wait_for
from support.host import Host
from support.libraries import USE_LIBRARY, make_library
from support.store import (
    REPORT,
    Report,
    Store,
    lock_held,
    parse_report,
    require_huge_disk,
    waits_for_lock,
)
from support.users import namespace

AT_ONCE = 100
KILLS = int(os.environ.get("KILLS", "20"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.end()


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
def cold(store: Store) -> Store:
    """A store without an entry, in which all else is found out."""
    store.fill()
    store.record.unlink()
    shutil.rmtree(store.copy.parent)
    return store


def test_start_waits_no_longer_than_a_moment_for_another_builder(cold: Store) -> None:
    with lock_held(cold.root):
        report = cold.start()
    assert "is being written by another process" in report.reasons
    assert cold.records == []


def waiting(cold: Store) -> subprocess.Popen[str]:
    """A child that waits for the lock of a store."""
    child = subprocess.Popen(
        [sys.executable, "-c", REPORT],
        env=cold.environment(PYHUGETEXT_BUILD="always"),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: waits_for_lock(child, cold.root))
    return child


def test_build_always_waits_for_another_builder(cold: Store) -> None:
    with lock_held(cold.root):
        child = waiting(cold)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.7)
        assert cold.records == []
    output, _ = child.communicate(timeout=60)
    assert parse_report(output).interpreter["backing"] == "store"
    cold.is_good()


def test_process_waits_a_moment_for_another_that_builds_the_same(cold: Store) -> None:
    """While this one waits, the other one builds: no copy of its own, no second build."""
    with lock_held(cold.root):
        child = waiting(cold)
        # As it is when another process has built it.
        away = cold.root.with_name("away")
        away.mkdir(mode=0o700)
        other = Store(away / "store")
        other.fill()
        for kind in ("objects", "index"):
            for path in (other.base / kind).iterdir():
                path.rename(cold.base / kind / path.name)
        record, inode = cold.record, cold.copies[0].stat().st_ino
        written = record.stat().st_ino
    output, _ = child.communicate(timeout=60)
    assert parse_report(output).interpreter["backing"] == "store"
    assert (cold.record.stat().st_ino, cold.copies[0].stat().st_ino) == (written, inode)


def test_child_forked_while_its_parent_builds_does_not_keep_the_lock(
    host: Host, library: Path
) -> None:
    code = """
    import os, signal, sys, threading
    tmp = os.path.join(os.environ["PYHUGETEXT_STORE"], "v1", "tmp")
    done, caught = False, []
    def fork():
        while not done:
            if os.listdir(tmp):
                child = os.fork()
                if child == 0:
                    signal.pause()
                caught.append((child, bool(os.listdir(tmp))))
                return
    thread = threading.Thread(target=fork)
    thread.start()
    import hosthuge
    done = True
    thread.join()
    for child, within in caught:
        print(child, within, flush=True)
        sys.stdin.readline()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    """
    store = Store(host.store)
    for _ in range(20):
        host.clear()
        host.run("", env=host.environment())
        parent = host.start(textwrap.dedent(code), stdin=subprocess.PIPE)
        assert parent.stdin is not None
        assert parent.stdout is not None
        told = parent.stdout.readline().split()
        if told:
            record = store.record.stat().st_ino if len(store.records) == 1 else 0
            report = store.start(USE_LIBRARY, str(library))
            parent.stdin.write("\n")
        status, _, errors = host.finish(parent)
        assert status == 0, errors
        if told and told[1] == "True":
            assert not record, "the parent's entry is not there"
            assert report.region("libvictim.so")["backing"] == "store", report.reasons
            return
    pytest.skip("no child was ever forked in the middle of a build")
