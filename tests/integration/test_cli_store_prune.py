"""pyhugetext store prune and clear: what they remove, and what they leave."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.cli import (
    Cli,
    make_module,
)
from support.filled import Filled
from support.record import Note, Record


def leftovers(cli: Cli) -> list[Path]:
    return list(cli.store.glob("v1/tmp/*"))


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
