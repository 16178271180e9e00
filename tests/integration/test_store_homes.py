"""Where the store's home is none, cannot be written, is missing, or has any name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.common import STRANGER
from support.store import UNSET, Store, require_huge_disk
from support.users import Namespace, as_user, home_of, namespace


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


@pytest.mark.parametrize("home", [UNSET, "", "/nonexistent", "/dev/null", "relative", "/proc/1"],
                         ids=["unset", "empty", "missing", "no directory", "relative", "proc"])  # fmt: skip
def test_home_that_is_none_ends_in_shared_memory(home: str, tmp_path: Path) -> None:
    with home_of(STRANGER) as place, namespace() as space:
        prefix = (*space.prefix, *as_user(STRANGER), "env", f"--chdir={place}")
        root = Path(f"/dev/shm/pyhugetext-{STRANGER}")
        store = Store(root, prefix, "auto", space.sees(root))
        for start in range(2):
            report = store.start(HOME=home, PYHUGETEXT_STORE=UNSET)
            assert report.interpreter["backing"] == "shm", report.reasons
            assert report.built == (start == 0)
        assert report.stats["problems"] == []
        assert list(place.iterdir()) == []


def test_home_that_cannot_be_written_ends_in_shared_memory(space: Namespace) -> None:
    prefix = (*space.prefix, *as_user(STRANGER))
    with home_of(0) as home:
        home.chmod(0o755)
        shm = space.sees(f"/dev/shm/pyhugetext-{STRANGER}")
        store = Store(home / ".cache" / "pyhugetext", prefix, "auto", other=shm)
        for start in range(2):
            report = store.start(HOME=str(home), PYHUGETEXT_STORE=UNSET)
            assert report.interpreter["backing"] == "shm", report.reasons
            assert "EACCES" in report.reasons
            assert report.built == (start == 0)
        store.backing = "store"
        report = store.start(HOME=str(home), PYHUGETEXT_STORE=UNSET)
        assert "EACCES" in report.reasons
        assert not report.built


def test_home_that_is_missing_is_not_made(space: Namespace, tmp_path: Path) -> None:
    """Root could; it may be meant not to exist, or not be mounted yet."""
    home = tmp_path / "missing"
    shm = space.sees("/dev/shm/pyhugetext-0")
    store = Store(home / ".cache" / "pyhugetext", space.prefix, "auto", other=shm)
    for start in range(2):
        report = store.start(HOME=str(home), PYHUGETEXT_STORE=UNSET)
        assert report.interpreter["backing"] == "shm", report.reasons
        assert report.built == (start == 0)
        if start == 0:
            assert f"there is no {home}" in report.reasons
    assert not home.exists()


@pytest.mark.parametrize(
    "name", ["with space", "caf\udce9", "ünï", "new\nline", "x" * 255, "a/../b/."]
)
def test_store_may_have_any_name(tmp_path: Path, name: str) -> None:
    require_huge_disk(tmp_path)
    (tmp_path / "a").mkdir()
    store = Store(tmp_path, seen=tmp_path / name)
    settings = {"PYHUGETEXT_STORE": f"{tmp_path}/{name}"}
    report = store.start(**settings)
    assert report.interpreter["backing"] == "store", report.reasons
    report = store.start(**settings)
    assert report.interpreter["backing"] == "store", report.reasons
    assert not report.built
