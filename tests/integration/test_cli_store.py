"""pyhugetext store: what it tells of a store, who may see it, and how it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import (
    AS_STRANGER,
    Cli,
    Mounts,
    assert_one_sentence,
    in_namespace,
    make_module,
    need_for_others,
    need_root,
    need_tool,
    public_directory,
    wait_for,
)
from support.filled import Filled
from support.store import lock_held, waits_for_lock


def test_list_tells_sizes_age_use_and_originals(filled: Filled) -> None:
    result = filled.cli("store", "list")
    assert result.returncode == 0
    lines = [line for line in result.stdout.splitlines() if line.endswith(str(filled.one))]
    assert len(lines) == 1
    assert "durable" in lines[0]
    assert "ready" in lines[0]
    entry = filled.entry(filled.one)
    assert entry is not None
    assert entry["bytes"] > filled.one.stat().st_size
    assert 0 < entry["disk_bytes"] <= entry["bytes"] + 4096
    assert 0 <= entry["unused_seconds"] <= entry["age_seconds"] < 600


def test_listing_names_no_path_that_drives_the_terminal(filled: Filled, tmp_path: Path) -> None:
    evil = tmp_path / "evil\x1b[31m\nname"
    evil.mkdir()
    shutil.copy(filled.one, evil / "libevil.so")
    make_module(filled.directory, "evil", evil / "libevil.so")
    assert filled.warm("evil")["total"]["built"] == 1
    shown = filled.cli("store", "list").stdout
    assert "\x1b" not in shown
    assert "libevil.so" in shown
    assert filled.entry(evil / "libevil.so") is not None


def test_paths_are_told(filled: Filled) -> None:
    document = filled.cli.json("store", "path")
    by_kind = {store["kind"]: store for store in document["stores"]}
    assert by_kind["user"] == {"path": str(filled.cli.store), "kind": "user", "exists": True}
    assert by_kind["system"]["path"] == "/var/cache/pyhugetext"
    assert "shm" not in by_kind  # PYHUGETEXT_BACKING=store
    document = filled.cli.json("store", "path", PYHUGETEXT_BACKING="auto")
    assert f"/dev/shm/pyhugetext-{os.geteuid()}" in [s["path"] for s in document["stores"]]


@pytest.mark.parametrize("action", ["list", "verify", "prune", "clear"])
def test_store_that_is_not_there_is_no_failure(tmp_path: Path, action: str) -> None:
    cli = Cli(tmp_path / "none")
    result = cli("store", action)
    assert result.returncode == 0
    assert result.stderr == ""
    assert cli.json("store", action)["stores"][0]["path"] == str(cli.store)
    assert not cli.store.exists()


@pytest.mark.parametrize("action", ["list", "verify", "prune", "clear"])
def test_store_that_is_a_file_is_one_sentence(tmp_path: Path, action: str) -> None:
    cli = Cli(tmp_path / "file")
    cli.store.write_text("mine")
    result = cli("store", action)
    assert result.returncode == 1
    assert_one_sentence(result, f"{cli.store} is no directory")
    assert cli.store.read_text() == "mine"


@pytest.mark.parametrize("action", ["list", "verify", "prune", "clear"])
@pytest.mark.parametrize("place", ["", "v1", "v1/index"])
def test_store_that_others_can_write_is_refused(filled: Filled, action: str, place: str) -> None:
    (filled.cli.store / place).chmod(0o775)
    result = filled.cli("store", action)
    assert result.returncode == 1
    assert_one_sentence(result, "writable by others")
    assert filled.cli.store.exists()


# Rights, other users, shared memory


def test_read_only_store_is_one_sentence_and_can_be_listed(filled: Filled, tmp_path: Path) -> None:
    mounts = Mounts(tmp_path)
    point = mounts("ext4", 64)
    try:
        filled.cli.store = point / "store"
        filled.warm("first")
        filled.flip(filled.one, 0x200100)
        mounts.make_read_only(point)
        assert filled.entry(filled.one) is not None
        for action in ("prune", "clear"):
            os.utime(filled.two)
            result = filled.cli("store", action)
            if result.returncode:
                assert_one_sentence(result, "read-only file system")
        assert filled.cli("store", "clear").returncode == 1
        result = filled.cli("store", "verify")
        assert result.returncode == 1
        assert_one_sentence(result, "is damaged:", "cannot be removed: open v1/lock: read-only")
    finally:
        mounts.clean_up()


def test_ordinary_user_may_look_at_the_system_store_only(filled: Filled) -> None:
    need_root()
    need_tool("unshare", "setpriv")
    need_for_others()
    with public_directory() as cache:
        cli = Cli(cache / "none")
        cli.prefix = in_namespace(f"mount --bind {cache} /var/cache")
        result = cli("warm", "--system")
        assert result.returncode == 0, result.stderr
        cli.prefix += AS_STRANGER
        shown = cli("store", "list", "--system")
        assert shown.returncode == 0
        assert "durable+image" in shown.stdout
        assert cli("store", "verify", "--system").returncode == 0
        for action in ("prune", "clear"):
            result = cli("store", action, "--system")
            assert result.returncode == 1
            assert_one_sentence(result, "only root")


def test_unreadable_store_is_one_sentence(filled: Filled) -> None:
    need_root()
    need_tool("setpriv")
    need_for_others()
    with public_directory() as directory:
        cli = Cli(directory / "store")
        cli.store.mkdir(0o700)
        cli.prefix = AS_STRANGER
        result = cli("store", "list")
        assert result.returncode == 1
        assert_one_sentence(result, str(cli.store), "permission denied")


def test_store_in_shared_memory_is_listed_and_pruned(filled: Filled) -> None:
    need_root()
    need_tool("unshare", "mount")
    # One namespace for all steps: what is mounted in it goes with it.
    script = f"""
        mount -t tmpfs -o mode=1777 none /dev/shm
        pyhugetext() {{ {sys.executable} -m pyhugetext "$@"; }}
        pyhugetext warm first > /dev/null
        pyhugetext store list --json
        rm {filled.one}
        pyhugetext store prune --json
        pyhugetext store clear > /dev/null
        ls -A /dev/shm
    """
    result = subprocess.run(
        [*in_namespace(script), "true"],
        env=filled.cli.environment(PYHUGETEXT_BACKING="shm", PYTHONPATH=str(filled.directory)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    decoder = json.JSONDecoder()
    listed, end = decoder.raw_decode(result.stdout)
    pruned, end = decoder.raw_decode(result.stdout[end:].lstrip())
    (store,) = listed["stores"]
    assert store["kind"] == "shm"
    (entry,) = [e for e in store["entries"] if e["original"] == str(filled.one)]
    assert (entry["state"], entry["durable"]) == ("ready", False)
    removed = {one["path"]: one["reason"] for one in pruned["stores"][0]["removed"]}
    assert "gone" in removed.pop(str(filled.one))
    # What the store on disk has, too.
    assert set(removed.values()) <= {"the store on disk has it, too"}
    assert result.stdout.rstrip().endswith("}")  # nothing is left in /dev/shm


def test_reader_that_stops_reading_sees_no_traceback(filled: Filled) -> None:
    script = f"{sys.executable} -m pyhugetext store list | true"
    result = subprocess.run(
        ["sh", "-c", script], env=filled.cli.environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.stderr == ""


def test_interrupted_wait_for_a_builder_exits_with_130(filled: Filled) -> None:
    with lock_held(filled.cli.store):
        process = subprocess.Popen(
            [sys.executable, "-m", "pyhugetext", "store", "prune"],
            env=filled.cli.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: waits_for_lock(process, filled.cli.store))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
