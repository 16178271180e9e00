"""The check of what a run of these tests leaves behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from support.leftovers import MOST_BYTES, Leftovers

PREFIX = "pyhugetext-leftovers-"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose cache has a store with one entry."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    index = tmp_path / "cache/pyhugetext/v1/index"
    index.mkdir(parents=True)
    (index / "old").write_bytes(b"/tests/lib.so")
    return tmp_path


def test_clean_run_is_clean(user: Path) -> None:
    assert Leftovers(PREFIX, f"{user}/cache").found(user, ["/tests"]) == []


def test_entries_of_the_tests_in_the_user_s_store_are_named_and_others_are_not(user: Path) -> None:
    leftovers = Leftovers(PREFIX, f"{user}/cache")
    index = user / "cache/pyhugetext/v1/index"
    (index / "theirs").write_bytes(b"\0/usr/lib/libother.so\0")
    (index / "new").write_bytes(b"\0/tests/libsample.so\0")
    (sentence,) = leftovers.found(None, ["/tests"])
    assert sentence.startswith(f"{index / 'new'} is an entry of a file of the tests")


def test_temporary_directories_are_named(user: Path) -> None:
    leftovers = Leftovers(PREFIX, f"{user}/cache")
    (user / "tmp" / f"{PREFIX}1").mkdir()
    (user / "tmp" / "another's").mkdir()
    assert leftovers.found(None, []) == [f"{user}/tmp/{PREFIX}1 was left"]


def test_gigabytes_are_told(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.leftovers.bytes_below", lambda _: MOST_BYTES + (1 << 20))
    assert Leftovers(PREFIX, f"{user}/cache").found(user, []) == [f"{user} takes 301 MiB"]
