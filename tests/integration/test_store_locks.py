"""Who may keep whom from writing to a store: its own users, and nobody for ever."""

from __future__ import annotations

import contextlib
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import Cli, in_namespace, need_root, need_tool, public_directory, wait_for
from support.common import STRANGER, clean_environment
from support.host import Host
from support.store import Store, lock_held, require_huge_disk, waits_for_lock
from support.users import as_user

# Takes every lock there is on all that it can open of a store, and holds them.
HOLD = """
import fcntl, os, sys
held = []
for place, names, files in os.walk(sys.argv[1]):
    for name in (".", *files):
        path = os.path.join(place, name)
        for flags in (os.O_RDWR, os.O_RDONLY):
            try:
                fd = os.open(path, flags)
            except OSError:
                continue
            for call in (fcntl.flock, fcntl.lockf):
                for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                    try:
                        call(fd, kind | fcntl.LOCK_NB)
                        held.append(path)
                    except OSError:
                        pass
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def system() -> Iterator[Cli]:
    """A Cli with a system's store of its own, which is filled."""
    need_root()
    need_tool("unshare", "setpriv")
    with public_directory() as cache:
        require_huge_disk(cache / "store")
        cli = Cli(cache / "pyhugetext")
        cli.prefix = in_namespace(f'mount --bind "{cache}" /var/cache')
        result = cli("warm", "--system")
        assert result.returncode == 0, result.stderr
        yield cli


def test_other_users_cannot_keep_root_from_writing(system: Cli) -> None:
    lock = system.store / "v1" / "lock"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    holder = subprocess.Popen(
        [*as_user(STRANGER), "env", sys.executable, "-S", "-c", HOLD, str(system.store)],
        env=clean_environment(PYHUGETEXT="0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert int(holder.stdout.readline()) > 5
        for path in system.store.glob("v1/index/*"):
            path.unlink()
        for command in (("warm",), ("store", "prune"), ("store", "verify"), ("store", "clear")):
            began = time.monotonic()
            result = system(*command, "--system")
            assert result.returncode == 0, (command, result.stderr)
            assert "another process" not in result.stderr
            assert time.monotonic() - began < 60
    finally:
        holder.communicate("")


def test_lock_of_others_mode_is_taken_back(tmp_path: Path) -> None:
    """One that an earlier version, or a hand, made readable."""
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    store.fill()
    lock = store.base / "lock"
    lock.chmod(0o644)
    store.record.unlink()
    store.start()
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def wait_at_lock(store: Store, *arguments: str) -> subprocess.Popen[str]:
    """A command that waits for the store's lock."""
    child = subprocess.Popen(
        [sys.executable, "-m", "pyhugetext", *arguments],
        env=store.environment(PYHUGETEXT="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: waits_for_lock(child, store.root) or child.poll() is not None)
    return child


@pytest.mark.parametrize("then", ["made anew", "gone", "cleared"])
def test_writer_that_waited_for_a_store_that_is_no_more_writes_to_the_new_one(
    tmp_path: Path, then: str
) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    store.fill()
    old = tmp_path / "old"
    with contextlib.ExitStack() as held:
        held.enter_context(lock_held(store.root))
        store.record.unlink()
        child = wait_at_lock(store, "warm")
        if then == "cleared":
            shutil.rmtree(store.base)
        else:
            store.root.rename(old)
        if then == "made anew":
            store.fill()
            # Another builder's, which nobody else may sweep.
            writing = store.base / "tmp" / "1-being-written"
            writing.mkdir()
            with lock_held(store.root):
                held.close()
                with pytest.raises(subprocess.TimeoutExpired):
                    child.wait(1)
                assert writing.is_dir(), "two writers: the other's work was swept"
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    if then != "cleared":
        assert list((old / "v1" / "index").iterdir()) == []
        assert list((old / "v1" / "tmp").iterdir()) == []
    assert len(store.records) == len(store.copies) == 1
    assert store.leftovers == []


def test_clear_while_warm_waits_ends_both_in_a_sentence_or_none(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    for _ in range(3):
        store.fill()
        with lock_held(store.root):
            store.record.unlink()
            children = [wait_at_lock(store, "warm"), wait_at_lock(store, "store", "clear")]
            time.sleep(0.1)
        for child in children:
            out, errors = child.communicate(timeout=60)
            assert "Traceback" not in out + errors
            assert child.returncode == 0, errors
        shutil.rmtree(store.root, ignore_errors=True)


# Forks beside a build.

FORKS = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
root = os.environ["PYHUGETEXT_STORE"]
done, children = threading.Event(), []

def fork():
    while not done.is_set() and len(children) < 200:
        child = os.fork()
        if child == 0:
            held = []
            for name in os.listdir("/proc/self/fd"):
                try:
                    path = os.readlink("/proc/self/fd/" + name)
                except OSError:
                    continue
                if path.startswith(root + "/v1"):
                    held.append(path)
            if held: print(*held, file=sys.stderr)
            os._exit(len(held))
        children.append(os.waitpid(child, 0)[1])

thread = threading.Thread(target=fork)
thread.start()
import hosthuge
done.set()
thread.join()
child = os.fork()
if child == 0:
    import hostbig
    assert hostbig.triple(4) == 12
    os._exit(0)
children.append(os.waitpid(child, 0)[1])
print(len(children), sum(map(bool, children)), hosthuge.triple(5))
"""


def test_children_forked_beside_a_build_hold_nothing_of_the_store(tmp_path: Path) -> None:
    host = Host(tmp_path)
    try:
        most = 0
        for _ in range(3):
            host.clear()
            code = FORKS.replace("sys.argv[1]", repr(host.modules))
            status, out, errors = host.run(code, env=host.environment())
            assert (status, errors) == (0, "")
            forked, held, answer = map(int, out.split())
            assert (held, answer) == (0, 15)
            most = max(most, forked)
            for name in ("hosthuge", "hostbig"):
                assert host.backing(name)[0] == "store", host.backing(name)
        assert most > 1
    finally:
        host.end()


def test_signal_ends_the_wait_of_a_command(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    store.fill()
    with lock_held(store.root):
        store.record.unlink()
        for number in (signal.SIGTERM, signal.SIGINT):
            child = wait_at_lock(store, "warm")
            child.send_signal(number)
            child.communicate(timeout=60)
            assert child.returncode != 0
