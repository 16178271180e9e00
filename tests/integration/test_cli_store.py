"""pyhugetext store: what it tells of a store, what it removes, and how it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import (
    AS_STRANGER,
    Cli,
    Library,
    Mounts,
    assert_one_sentence,
    in_namespace,
    make_library,
    make_module,
    need_for_others,
    need_root,
    need_tool,
    public_directory,
    wait_for,
)
from support.record import Note, Record
from support.store import lock_held, waits_for_lock


class Filled:
    """A store with an entry of the library `one`, and one of `two`."""

    def __init__(self, cli: Cli, directory: Path, one: Path, two: Path) -> None:
        self.cli = cli
        self.directory = directory
        self.one = one
        self.two = two

    def warm(self, *modules: str) -> dict[str, Any]:
        return self.cli.json("warm", *modules, PYTHONPATH=str(self.directory))

    def entry(self, library: Path) -> dict[str, Any] | None:
        """What list says of a library's entry."""
        found = [e for e in self.cli.entries() if e["original"] == str(library)]
        assert len(found) <= 1
        return found[0] if found else None

    def copy(self, library: Path) -> Path:
        entry = self.entry(library)
        assert entry is not None
        return Path(entry["copy"])

    def record(self, library: Path) -> Path:
        entry = self.entry(library)
        assert entry is not None
        return self.cli.store / "v1/index" / entry["name"]

    def flip(self, library: Path, at: int) -> None:
        """Damages the content of a copy; its owner and mode stay."""
        path = self.copy(library)
        mode = path.stat().st_mode
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))
        path.chmod(mode)


@pytest.fixture
def filled(tmp_path: Path, compile_library: Library) -> Filled:
    one = make_library(compile_library, "one")
    two = make_library(compile_library, "two")
    directory = tmp_path / "modules"
    directory.mkdir()
    make_module(directory, "first", one)
    make_module(directory, "second", two)
    cli = Cli(tmp_path / "store")
    result = cli("warm", "first", "second", PYTHONPATH=str(directory))
    if "never gives" in result.stderr:
        pytest.skip("the file system of the temporary directory has no huge pages for files")
    assert result.returncode == 0, result.stderr
    return Filled(cli, directory, one, two)


def leftovers(cli: Cli) -> list[Path]:
    return list(cli.store.glob("v1/tmp/*"))


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


# verify


def test_verify_of_a_sound_store_says_nothing(filled: Filled) -> None:
    result = filled.cli("store", "verify")
    assert result.returncode == 0
    assert result.stderr == ""
    assert str(filled.one) in result.stdout


@pytest.mark.parametrize("at", [0x200, 0x200100, -0x2000])
def test_damaged_copy_is_found_removed_and_built_again(filled: Filled, at: int) -> None:
    size = filled.copy(filled.one).stat().st_size
    filled.flip(filled.one, at % size)
    result = filled.cli("store", "verify")
    assert result.returncode == 1
    assert_one_sentence(result, str(filled.one), "damaged and was removed")
    assert filled.entry(filled.one) is None
    assert filled.entry(filled.two) is not None
    assert filled.cli("store", "verify").returncode == 0
    assert filled.warm("first")["total"]["built"] == 1
    assert filled.cli("store", "verify").returncode == 0


def test_damage_is_told_in_the_json(filled: Filled) -> None:
    filled.flip(filled.one, 0x200100)
    document = filled.cli.json("store", "verify", status=1)
    states = {e["original"]: (e["state"], e["removed"]) for e in document["stores"][0]["entries"]}
    assert states[str(filled.one)] == ("damaged", True)
    assert states[str(filled.two)] == ("ready", False)


def truncated(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4096)
    path.chmod(0o400)


def made_writable(path: Path) -> None:
    path.chmod(0o666)


def made_a_link(path: Path) -> None:
    path.rename(path.parents[4] / "moved")
    path.symlink_to(path.parents[4] / "moved")


def made_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def made_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def removed(path: Path) -> None:
    path.unlink()


POISONS = [truncated, made_writable, made_a_link, made_a_directory, made_a_fifo, removed]


@pytest.mark.parametrize("poison", POISONS)
def test_copy_that_no_process_would_map_is_damaged(
    filled: Filled, poison: Callable[[Path], None]
) -> None:
    copy = filled.copy(filled.one)
    poison(copy)
    result = filled.cli("store", "verify")
    assert result.returncode == 1
    assert_one_sentence(result, str(filled.one))
    assert not os.path.lexists(copy)
    assert filled.warm("first")["total"]["built"] == 1


def test_copy_that_a_profiler_linked_elsewhere_is_no_damage(filled: Filled) -> None:
    """perf record links what it saw into its build-id cache; processes map the copy all the same."""
    copy = filled.copy(filled.one)
    os.link(copy, copy.parents[4] / "another-name")
    inode = copy.stat().st_ino
    for action in ("verify", "prune"):
        result = filled.cli("store", action)
        assert (result.returncode, result.stderr) == (0, "")
    assert filled.warm("first")["total"]["built"] == 0
    assert copy.stat().st_ino == inode


def make_garbage(path: Path) -> None:
    path.write_bytes(b"\0" * 100)


def make_larger(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("poison", [make_garbage, make_larger, made_a_directory, made_a_fifo])
def test_record_that_is_none_is_damaged(filled: Filled, poison: Callable[[Path], None]) -> None:
    path = filled.record(filled.one)
    poison(path)
    result = filled.cli("store", "verify")
    assert result.returncode == 1
    assert_one_sentence(result, path.name, "its record is not what was written")
    assert not os.path.lexists(path)


def test_record_of_another_file_is_damaged(filled: Filled) -> None:
    one, two = filled.record(filled.one), filled.record(filled.two)
    one.write_bytes(two.read_bytes())
    result = filled.cli("store", "verify")
    assert result.returncode == 1
    assert_one_sentence(result, "its record is of another file")
    assert filled.entry(filled.two) is not None


def test_changed_original_is_stale_and_no_damage(filled: Filled) -> None:
    os.utime(filled.one)
    filled.two.unlink()
    document = filled.cli.json("store", "verify")
    states = {e["original"]: e["state"] for e in document["stores"][0]["entries"]}
    assert states[str(filled.one)] == states[str(filled.two)] == "stale"


def test_verify_leaves_an_evicted_copy_on_huge_pages(filled: Filled) -> None:
    code = """if True:
        import os, sys
        from pyhugetext import _native
        fd = os.open(sys.argv[1], os.O_RDONLY)
        size = os.fstat(fd).st_size & -(2 << 20)
        if sys.argv[2] == "drop":
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            print(_native.probe(fd, 0, size, False) == size)
    """
    copy = str(filled.copy(filled.one))
    command = [sys.executable, "-c", code, copy]
    subprocess.run([*command, "drop"], env=filled.cli.environment(), check=True)
    assert filled.cli("store", "verify").returncode == 0
    shown = subprocess.run(
        [*command, "probe"], env=filled.cli.environment(), check=True, capture_output=True
    )
    assert shown.stdout == b"True\n"


# prune


def test_prune_leaves_a_sound_store_alone(filled: Filled) -> None:
    document = filled.cli.json("store", "prune")
    assert document["stores"][0]["removed"] == []
    assert filled.entry(filled.one) is not None
    assert filled.entry(filled.two) is not None


def test_stale_entries_are_pruned(filled: Filled) -> None:
    copies = [filled.copy(filled.one), filled.copy(filled.two)]
    os.utime(filled.one)
    filled.two.unlink()
    document = filled.cli.json("store", "prune")
    assert len(document["stores"][0]["removed"]) == 2
    assert document["stores"][0]["freed"] > 8 << 20
    assert not any(copy.exists() for copy in copies)
    assert filled.entry(filled.one) is None


def test_entries_of_another_boot_are_pruned_unless_durable(filled: Filled) -> None:
    path = filled.record(filled.one)
    path.write_bytes(Record.read(path).of_another_boot().pack())
    entry = filled.entry(filled.one)
    assert entry is not None
    assert (entry["state"], entry["durable"]) == ("expired", False)
    filled.cli.json("store", "prune")
    assert filled.entry(filled.one) is None
    assert filled.entry(filled.two) is not None


def test_copies_shared_by_two_originals_stay_until_the_last_is_gone(
    filled: Filled, tmp_path: Path
) -> None:
    (tmp_path / "venv2").mkdir()
    twin = tmp_path / "venv2" / filled.one.name
    shutil.copy(filled.one, twin)
    make_module(filled.directory, "twin", twin)
    document = filled.warm("twin")
    assert document["total"]["written"] == 0
    copy = filled.copy(filled.one)
    assert filled.copy(twin) == copy
    filled.one.unlink()
    filled.cli.json("store", "prune")
    assert filled.copy(twin) == copy
    assert copy.exists()
    twin.unlink()
    filled.cli.json("store", "prune")
    assert not copy.exists()


def test_leftovers_and_orphans_are_pruned(filled: Filled) -> None:
    (filled.cli.store / "v1/tmp/1-half").mkdir()
    (filled.cli.store / "v1/tmp/1-half/lib.so").write_bytes(b"x" * 8192)
    orphan = filled.copy(filled.one)
    filled.record(filled.one).unlink()
    document = filled.cli.json("store", "prune")
    reasons = [one["reason"] for one in document["stores"][0]["removed"]]
    assert reasons == ["left by a builder that was killed", "copies that no record tells of"]
    assert not orphan.exists()
    assert leftovers(filled.cli) == []


def test_least_recently_used_entry_goes_when_the_store_is_too_large(filled: Filled) -> None:
    entries = filled.cli.entries()
    used = sum(entry["disk_bytes"] for entry in entries)
    for entry in entries:
        if entry["original"] != str(filled.two):
            os.utime(filled.cli.store / "v1/index" / entry["name"])
    os.utime(filled.record(filled.two), (10**9, 10**9))
    for entry in entries:
        if entry["original"] == str(filled.two):  # mapping a copy is use, too
            os.utime(entry["copy"], (10**9, os.stat(entry["copy"]).st_mtime))
    filled.cli.json("store", "prune", PYHUGETEXT_STORE_LIMIT=str(used - 1))
    left = [entry["original"] for entry in filled.cli.entries()]
    assert str(filled.two) not in left
    assert len(left) == len(entries) - 1


def test_notes_are_listed_with_reasons_and_pruned_when_out_of_date(filled: Filled) -> None:
    note = Note(os.uname().release, "it cannot be", str(filled.one))
    current = filled.record(filled.one)
    current.write_bytes(note.pack())
    old = current.with_name("0-0-0-0-0-0-0-0-0")
    old.write_bytes(Note("2.4.1", "of long ago", "/gone.so").pack())
    shown = filled.cli("store", "list").stdout
    assert "it cannot be" in shown
    assert "of long ago" in shown
    filled.cli.json("store", "prune")
    assert current.exists()
    assert not old.exists()


# clear


def test_clear_removes_everything(filled: Filled) -> None:
    document = filled.cli.json("store", "clear")
    assert document["stores"][0]["freed"] > 8 << 20
    assert not filled.cli.store.exists()


def test_clear_leaves_what_is_not_its_own(filled: Filled) -> None:
    (filled.cli.store / "notes.txt").write_text("mine")
    filled.cli.json("store", "clear")
    assert [path.name for path in filled.cli.store.iterdir()] == ["notes.txt"]


def test_process_that_runs_from_a_cleared_store_goes_on(filled: Filled) -> None:
    code = """if True:
        import first, pyhugetext
        pyhugetext.remap()
        print("ready", flush=True)
        input()
        print(first.library.one_triple(14))
    """
    env = {"PYHUGETEXT": "1", "PYHUGETEXT_BUILD": "never", "PYTHONPATH": str(filled.directory)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=filled.cli.environment(**env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        filled.cli.json("store", "clear")
        assert process.communicate("\n", timeout=60)[0] == "42\n"


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
    assert [one["path"] for one in pruned["stores"][0]["removed"]] == [str(filled.one)]
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
