"""pyhugetext store verify: what is damaged, what is not, and what becomes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import (
    assert_one_sentence,
)
from support.filled import Filled


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
