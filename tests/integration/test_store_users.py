"""Whose store a process uses: its own and the system's, never another user's."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.common import PREFIX, STRANGER
from support.libraries import make_library
from support.store import UNSET, Store, require_huge_disk
from support.users import Namespace, as_user, home_of, namespace, require_root

OTHER = STRANGER + 1


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


@pytest.fixture
def home(space: Namespace) -> Iterator[Path]:
    """A stranger's home."""
    as_user(STRANGER)
    with home_of(STRANGER) as place:
        require_huge_disk(place)
        yield place


def store_of(home: Path, prefix: tuple[str, ...]) -> Store:
    return Store(home / ".cache" / "pyhugetext", prefix)


def by_home(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PYHUGETEXT_STORE": UNSET}


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in [directory, *directory.rglob("*")]}


def test_user_s_store_is_the_user_s_alone(home: Path, space: Namespace) -> None:
    store = store_of(home, (*space.prefix, *as_user(STRANGER)))
    store.fill(**by_home(home))
    assert owners(home) == {STRANGER}
    for path in [home / ".cache", *(home / ".cache").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("umask", ["0", "0777"])
def test_no_umask_makes_a_store_that_is_not_trusted_or_not_usable(
    home: Path, space: Namespace, umask: str
) -> None:
    shell = ("sh", "-c", f'umask {umask}; exec "$@"', "sh")
    store = store_of(home, (*space.prefix, *as_user(STRANGER), *shell))
    store.fill(**by_home(home))


@pytest.mark.parametrize("backing", ["auto", "store"])
def test_root_never_maps_from_a_user_s_store(home: Path, space: Namespace, backing: str) -> None:
    """sudo keeps HOME."""
    full = store_of(home, (*space.prefix, *as_user(STRANGER)))
    full.fill(**by_home(home))
    root = store_of(home, space.prefix)
    root.backing = backing
    for _ in range(2):
        report = root.start(**by_home(home))
        assert report.mapped_below(home) == []
        assert "store: not trusted" in report.reasons or backing == "store"
        assert "somebody else could have written it" in report.reasons
    assert not report.built
    assert owners(home) == {STRANGER}


@pytest.mark.parametrize("backing", ["auto", "store"])
def test_root_leaves_nothing_in_a_user_s_home(home: Path, space: Namespace, backing: str) -> None:
    """The user could not write there any more."""
    root = store_of(home, space.prefix)
    root.backing = backing
    for _ in range(2):
        root.start(**by_home(home))
        root.start(PYHUGETEXT_BUILD="always", **by_home(home))
    assert list(home.iterdir()) == []


def test_root_in_the_guise_of_a_user_never_maps_from_the_user_s_store(
    home: Path, space: Namespace
) -> None:
    full = store_of(home, (*space.prefix, *as_user(STRANGER)))
    full.fill(**by_home(home))
    # PR_SET_DUMPABLE: else it may not read its own /proc/self any more.
    code = f"""
        import ctypes, os, pyhugetext
        os.seteuid({STRANGER})
        assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0
        pyhugetext.remap(backing="store")
    """
    report = store_of(home, space.prefix).start(code, PYHUGETEXT="0", **by_home(home))
    assert report.mapped_below(home) == []
    assert "somebody else could have written it" in report.reasons


def test_user_never_maps_from_another_user_s_cache(home: Path, space: Namespace) -> None:
    full = store_of(home, (*space.prefix, *as_user(STRANGER)))
    full.fill(**by_home(home))
    for path in [home, *home.rglob("*")]:
        path.chmod(0o755)
    other = store_of(home, (*space.prefix, *as_user(OTHER)))
    for settings in (
        {"PYHUGETEXT_STORE": UNSET, "XDG_CACHE_HOME": str(home / ".cache")},
        {"PYHUGETEXT_STORE": str(home / ".cache" / "pyhugetext")},
        by_home(home),
    ):
        report = other.start(**settings)
        assert report.mapped_below(home) == []
        assert "somebody else could have written it" in report.reasons
        assert not report.built
    assert owners(home) == {STRANGER}


def test_store_of_root_s_that_everyone_may_read_is_used(home: Path, space: Namespace) -> None:
    """As a system store is; there is nothing of the user's in it to touch."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        filled = Store(Path(directory) / "store", space.prefix)
        filled.fill()
        for path in Path(directory).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        report = Store(filled.root, (*space.prefix, *as_user(STRANGER))).start()
        assert report.interpreter["backing"] == "store"
        assert not report.built
        # What it lacks cannot be added; that is seen without trying.
        filled.record.unlink()
        report = Store(filled.root, (*space.prefix, *as_user(STRANGER))).start()
        assert "has no entry" in report.reasons
        assert not report.built


def test_squatted_store_in_shared_memory_is_not_used(home: Path, space: Namespace) -> None:
    space.run("mkdir", "--mode=0777", f"/dev/shm/pyhugetext-{STRANGER}")
    root = Path(f"/dev/shm/pyhugetext-{STRANGER}")
    user = Store(root, (*space.prefix, *as_user(STRANGER)), seen=space.sees(root))
    for owner in (OTHER, STRANGER):
        space.run("chown", f"{owner}:{owner}", str(user.root))
        report = user.start(PYHUGETEXT_BACKING="shm", HOME=str(home))
        assert "somebody else could have written it" in report.reasons
        assert not report.built
    assert list(space.sees(user.root).iterdir()) == []


@pytest.fixture
def privileged(tmp_path: Path) -> Path:
    """An interpreter that runs with a group of its own: AT_SECURE. It sees this environment's
    packages."""
    require_root()
    real = os.path.realpath(sys.executable)
    environment = tmp_path / "privileged"
    site = Path(sys.prefix).joinpath("lib", f"python3.{sys.version_info[1]}", "site-packages")
    target = environment / site.relative_to(sys.prefix)
    target.parent.mkdir(parents=True)
    target.symlink_to(site)
    (environment / "pyvenv.cfg").write_text(f"home = {os.path.dirname(real)}\n")
    (environment / "bin").mkdir()
    executable = environment / "bin" / os.path.basename(real)
    shutil.copy(real, executable)
    os.chown(executable, 0, STRANGER)
    executable.chmod(0o2755)
    code = "import ctypes; print(bool(ctypes.CDLL(None).getauxval(23)))"  # AT_SECURE
    told = subprocess.run(
        [executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYHUGETEXT": "0"},
        check=False,
    )
    if told.stdout != "True\n":
        pytest.skip(f"a set-group-id copy of the interpreter does not run: {told.stderr.strip()}")
    return executable


def test_privileged_process_ignores_the_environment(privileged: Path, tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    with namespace() as space:
        store = Store(tmp_path / "store", space.prefix)
        plain = tmp_path / "privileged" / "bin" / "plain"
        shutil.copy(privileged, plain)
        os.rename(plain, privileged)  # the same file without the privilege
        store.start(executable=str(privileged))
        report = store.start(executable=str(privileged))
        assert report.interpreter["backing"] == "store"
        os.chown(privileged, 0, STRANGER)
        privileged.chmod(0o2755)
        store.start(executable=str(privileged), PYHUGETEXT="0")
        before = sorted(tmp_path.rglob("*"))
        for settings in ({}, {"PYHUGETEXT_BUILD": "always"}, {"PYHUGETEXT_DEBUG": "1"}):
            report = store.start(executable=str(privileged), **settings)
            assert report.mapped_below(store.root) == []
            assert not report.built
            assert report.interpreter["backing"] == "memfd"
            assert "store: there is no store" in report.reasons
        report = store.start(
            "import pyhugetext; pyhugetext.remap(backing='store')", executable=str(privileged)
        )
        assert report.mapped_below(store.root) == []
        assert not report.built
        assert sorted(tmp_path.rglob("*")) == before


def test_privileged_process_uses_no_shared_memory_of_its_caller(
    privileged: Path, tmp_path: Path
) -> None:
    # With a group's rights it has its caller's user id, whom /dev/shm/pyhugetext-UID belongs to.
    library = make_library(tmp_path)
    code = "import ctypes, sys, pyhugetext; ctypes.CDLL(sys.argv[1])\n"
    code += "pyhugetext.remap(backing='shm')"
    with namespace() as space:
        store = space.shm_store()
        report = store.start(code, str(library), PYHUGETEXT="0")
        if report.region(library.name)["backing"] != "shm":
            pytest.skip(f"no huge pages in shared memory: {report.reasons}")
        assert report.mapped_below(store.root)
        report = store.start(code, str(library), executable=str(privileged))
        assert report.mapped_below(store.root) == []
        assert "there is no store" in report.region(library.name)["reason"]
