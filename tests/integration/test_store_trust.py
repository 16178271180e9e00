"""Who else could write to a store: access control lists, groups, mounts, user namespaces, links."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.common import NOBODY, STRANGER
from support.store import UNSET, Store, filled_store, require_huge_disk
from support.users import Namespace, as_user, home_of, namespace, require_root

NOT_TRUSTED = "somebody else could have written it"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled_store(tmp_path / "way" / "store")


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


def grant(path: Path, *arguments: str) -> None:
    if not shutil.which("setfacl"):
        pytest.skip("setfacl (acl) is not installed")
    result = subprocess.run(["setfacl", *arguments, path], capture_output=True, check=False)
    if result.returncode:
        pytest.skip(f"no access control lists here: {result.stderr.decode().strip()}")


@pytest.mark.parametrize("who", ["u", "g"])
@pytest.mark.parametrize("step", ["way", "store", "v1", "index", "objects", "record", "copy"])
def test_what_a_list_lets_others_write_is_not_trusted(store: Store, step: str, who: str) -> None:
    """The kernel shows the most that a list grants in the group's bits."""
    place = {
        "way": store.root.parent,
        "store": store.root,
        "v1": store.base,
        "index": store.base / "index",
        "objects": store.base / "objects",
        "record": store.record,
        "copy": store.copy,
    }[step]
    grant(place, "-m", f"{who}:{STRANGER}:rwx")
    assert NOT_TRUSTED in store.refuses()
    report = store.start()
    if step in ("record", "copy"):
        store.is_good()
    else:
        assert report.mapped_below(store.root) == []
        assert not report.built


def test_list_that_only_lets_read_is_no_danger(store: Store) -> None:
    grant(store.root, "-m", f"u:{STRANGER}:rx")
    store.is_good()


def test_inherited_lists_let_nobody_write(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    way = tmp_path / "way"
    way.mkdir(0o755)
    grant(way, "-d", "-m", f"u:{STRANGER}:rwx,g:{STRANGER}:rwx,o::rwx")
    store = Store(way / "store")
    store.fill()
    for path in [store.root, *store.root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0, path


def test_store_below_a_set_group_id_directory_is_the_user_s_alone(tmp_path: Path) -> None:
    require_root()
    require_huge_disk(tmp_path)
    way = tmp_path / "way"
    way.mkdir()
    os.chown(way, 0, STRANGER)
    way.chmod(0o2755)
    store = Store(way / "store")
    store.fill()
    for path in [store.root, *store.root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_member_of_a_group_that_may_write_the_way_is_somebody_else(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    way = tmp_path / "way"
    way.mkdir()
    way.chmod(0o775)
    store = Store(way / "store")
    report = store.start()
    assert NOT_TRUSTED in report.reasons
    assert not store.root.exists()


def test_hard_link_to_another_user_s_file_is_not_followed(store: Store, tmp_path: Path) -> None:
    require_root()
    for path in (store.record, store.copy):
        evil = Path(shutil.copy(path, tmp_path / "evil"))
        os.chown(evil, STRANGER, STRANGER)
        path.unlink()
        os.link(evil, path)
        assert NOT_TRUSTED in store.refuses()
        store.recovers()
        assert evil.stat().st_uid == STRANGER
        evil.unlink()


def test_store_mounted_over_by_another_user_s_is_not_used(store: Store, tmp_path: Path) -> None:
    """Whoever mounts is root; what lies there counts all the same."""
    require_root()
    evil = tmp_path / "evil"
    shutil.copytree(store.root, evil, symlinks=True)
    for path in [evil, *evil.rglob("*")]:
        os.lchown(path, STRANGER, STRANGER)
    with namespace(f'mount --bind "{evil}" "{store.root}"') as space:
        bound = Store(store.root, space.prefix)
        assert NOT_TRUSTED in bound.refuses()
    store.is_good()


@pytest.mark.parametrize("link", ["home", "cache"])
def test_home_behind_a_link_is_used_when_the_way_there_is_the_user_s(
    space: Namespace, link: str
) -> None:
    prefix = (*space.prefix, *as_user(STRANGER))
    with home_of(STRANGER) as place:
        require_huge_disk(place)
        real = place / "real"
        real.mkdir(0o755)
        os.chown(real, STRANGER, STRANGER)
        home = place / "home"
        if link == "home":
            home.symlink_to("real")
        else:
            home.mkdir(0o755)
            (home / ".cache").symlink_to("../real")
        os.chown(home, STRANGER, STRANGER)
        store = Store(home / ".cache" / "pyhugetext", prefix)
        for built in (True, False):
            report = store.start(HOME=str(home), PYHUGETEXT_STORE=UNSET)
            assert report.interpreter["backing"] == "store", report.reasons
            assert report.built == built
        real.chmod(0o777)
        report = store.start(HOME=str(home), PYHUGETEXT_STORE=UNSET)
        assert NOT_TRUSTED in report.reasons
        assert not report.built


def test_store_in_a_sticky_directory_that_is_not_root_s_is_not_used(tmp_path: Path) -> None:
    """Its owner may rename what others have there."""
    require_root()
    require_huge_disk(tmp_path)
    way = tmp_path / "way"
    way.mkdir()
    store = Store(way / "store")
    store.fill()
    way.chmod(0o1777)
    store.is_good()
    os.chown(way, STRANGER, STRANGER)
    assert NOT_TRUSTED in store.refuses()


def in_user_namespace(inside: int, outside: int, count: int) -> tuple[str, ...]:
    """The command in front that makes a child user `inside` of a new user namespace."""
    for tool in ("unshare", "setpriv"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} (util-linux) is not installed")
    script = f"""
import os, sys
reader, writer = os.pipe()
parent = os.getpid()
child = os.fork()
if child == 0:
    os.close(writer)
    if not os.read(reader, 1):  # there is no namespace
        os._exit(1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{{parent}}/{{name}}", "w") as file:
            file.write("0 {outside} {count}\\n")
    os._exit(0)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000):
    sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
os.write(writer, b"x")
if os.waitpid(child, 0)[1]:
    sys.exit("no map can be written")
os.setgroups([])
os.setresgid({inside}, {inside}, {inside})
os.setresuid({inside}, {inside}, {inside})
os.execvp(sys.argv[1], sys.argv[1:])
"""
    prefix = (sys.executable, "-S", "-c", script)
    told = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False,
                          env={"PYHUGETEXT": "0"}, timeout=60)  # fmt: skip
    if told.returncode:
        pytest.skip(f"no user namespace can be made here: {told.stderr.strip()}")
    return prefix


def test_files_of_users_without_a_name_are_not_nobody_s(tmp_path: Path) -> None:
    """In a container that runs as nobody, files of every user of the machine that has no name in
    the container look like nobody's own."""
    require_root()
    first = 700000
    prefix = in_user_namespace(NOBODY, first, NOBODY + 1)
    with contextlib.ExitStack() as stack:
        place, workshop = (stack.enter_context(home_of(uid)) for uid in (first, STRANGER))
        space = stack.enter_context(namespace(f'mount --bind "{place}" /mnt'))
        require_huge_disk(place)
        Store(workshop / "store", (*space.prefix, *as_user(STRANGER))).fill()
        shutil.copytree(workshop / "store", place / "store")
        for path in [place / "store", *(place / "store").rglob("*")]:
            os.chown(path, STRANGER, STRANGER)
            path.chmod(0o755 if path.is_dir() else 0o644)
        place.chmod(0o1777)  # of the namespace's root
        root = Path("/mnt/store")
        report = Store(root, (*space.prefix, *prefix), seen=space.sees(root)).start()
        assert report.stats["problems"] == []
        assert report.mapped_below("/mnt/store") == [], "a stranger's code"
        assert NOT_TRUSTED in report.reasons
        assert not report.built


def test_nobody_makes_no_store(space: Namespace) -> None:
    """It would not be used."""
    prefix = (*space.prefix, *as_user(NOBODY))
    root = Path(f"/dev/shm/pyhugetext-{NOBODY}")
    store = Store(root, prefix, "auto", space.sees(root))
    report = store.start(PYHUGETEXT_STORE=UNSET)
    assert report.interpreter["backing"] in ("memfd", "thp"), report.reasons
    assert not report.built
    assert list(space.sees("/dev/shm").iterdir()) == []
