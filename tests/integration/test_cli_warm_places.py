"""pyhugetext warm: stores that cannot be written or cannot do it, and the system's."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import (
    AS_STRANGER,
    Cli,
    Library,
    Mounts,
    assert_one_sentence,
    in_namespace,
    in_read_only_root,
    make_library,
    make_module,
    need_for_others,
    need_root,
    need_tool,
    public_directory,
    status_of,
)
from support.common import HUGE, STRANGER


def test_store_that_is_a_file_is_one_sentence(cli: Cli) -> None:
    cli.store.touch()
    for path in (cli.store, cli.store / "below"):
        result = cli("warm", PYHUGETEXT_STORE=str(path))
        assert result.returncode == 1
        assert_one_sentence(result, f"{cli.store} is no directory")
    assert cli.store.is_file()


def test_store_that_others_can_write_is_refused(cli: Cli) -> None:
    cli.store.mkdir()
    cli.store.chmod(0o777)
    result = cli("warm")
    assert result.returncode == 1
    assert_one_sentence(result, str(cli.store), "writable by others")


def test_without_a_home_the_sentence_says_what_is_missing(cli: Cli) -> None:
    env = {"PYHUGETEXT_STORE": "", "HOME": "", "XDG_CACHE_HOME": ""}
    result = cli("warm", **env)
    assert result.returncode == 1
    assert_one_sentence(result, "HOME")


@pytest.mark.parametrize("command", [["warm"], ["store", "prune"], ["doctor"]], ids=" ".join)
def test_home_at_the_root_leaves_no_name_empty(cli: Cli, command: list[str]) -> None:
    need_root()
    need_for_others(Path(sys.executable), Path(__file__))
    cli.prefix = AS_STRANGER
    result = cli(*command, PYHUGETEXT_STORE="", XDG_CACHE_HOME="", HOME="/")
    told = result.stdout + result.stderr
    assert "/.cache" in told
    assert not re.search(r"''|\"\"|mkdir *:| {3}is not|: :", told), told


def test_file_size_limit_is_told(disk: Cli, modules: dict[str, str], library: Path) -> None:
    code = """
        import resource, sys
        from pyhugetext.cli.main import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        sys.exit(main(sys.argv[1:]))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), "warm", "sample"],
        env=disk.environment(**modules),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert_one_sentence(result, "file too large")
    assert list(disk.store.glob("v1/tmp/*")) == []
    assert list(disk.store.glob("v1/objects/*")) == []


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounts]:
    mounts = Mounts(tmp_path)
    yield mounts
    mounts.clean_up()


def test_full_file_system_is_one_sentence_and_what_fits_is_kept(
    cli: Cli, mount: Mounts, compile_library: Library, tmp_path: Path
) -> None:
    small = make_library(compile_library, "small")
    large = make_library(compile_library, "large", mebibytes=120)
    make_module(tmp_path, "fits", small)
    make_module(tmp_path, "too_large", large)
    cli.store = mount("ext4", 120) / "store"  # room for a libpython of 30 MiB
    result = cli("warm", "too_large", "fits", PYTHONPATH=str(tmp_path))
    if "never gives" in result.stderr:
        pytest.skip("ext4 has no huge pages for files on this kernel")
    assert result.returncode == 1
    assert_one_sentence(result, str(large), "too little free space")
    assert str(small) in [entry["original"] for entry in cli.entries()]
    assert list(cli.store.glob("v1/tmp/*")) == []
    assert cli("store", "verify").returncode == 0


def test_read_only_store_is_one_sentence(cli: Cli, mount: Mounts, modules: dict[str, str]) -> None:
    point = mount("ext4", 120)
    cli.store = point / "store"
    cli("warm")
    mount.make_read_only(point)
    result = cli("warm", "sample", **modules)
    assert result.returncode == 1
    assert_one_sentence(result, "read-only file system")


def test_where_the_root_is_read_only_notes_are_taken_in_shared_memory(
    cli: Cli, modules: dict[str, str], library: Path
) -> None:
    in_read_only_root(cli)
    result = cli("warm", "--json", "sample", PYHUGETEXT_BACKING="auto", **modules)
    assert "temporary" not in result.stderr
    assert status_of(json.loads(result.stdout), library) in ("built", "unneeded")


def test_file_system_that_needs_reading_back_is_filled_huge(
    cli: Cli, mount: Mounts, modules: dict[str, str], library: Path
) -> None:
    # On kernels up to 6.12 at least the first 2 MiB of a file just written are small there.
    cli.store = mount("xfs", 320) / "store"
    document = cli.json("warm", "sample", **modules)
    (built,) = [one for one in document["objects"] if one["path"] == str(library)]
    assert built["status"] == "built"
    assert built["huge"] == built["bytes"] // HUGE * HUGE


def test_file_system_without_huge_pages_fills_shared_memory_instead(
    cli: Cli, mount: Mounts, modules: dict[str, str], library: Path
) -> None:
    need_tool("unshare")
    cli.store = mount("btrfs", 128) / "store"
    refused = cli("warm", "sample", **modules)
    if refused.returncode == 0:
        pytest.skip("btrfs has huge pages for files on this kernel")
    assert_one_sentence(refused, "never gives files huge pages; nothing was built")

    show = "import sample, pyhugetext; print(pyhugetext.remap())"
    cli.prefix = in_namespace(
        "mount -t tmpfs -o mode=1777 none /dev/shm; "
        f"trap 'PYHUGETEXT= PYHUGETEXT_BUILD=never {sys.executable} -c \"{show}\" >&2' EXIT; "
        '"$@"; exit'
    )
    result = cli("warm", "--json", "sample", PYHUGETEXT_BACKING="auto", **modules)
    assert result.returncode == 0, result.stderr
    assert "shared memory is filled instead" in result.stderr.splitlines()[0]
    document = json.loads(result.stdout)
    assert [store["kind"] for store in document["stores"]] == ["user", "shm"]
    assert status_of(document, library) == "built"
    assert re.search(r"libf.so .* shm +huge", result.stderr), result.stderr


# The system's store


@pytest.fixture
def system(cli: Cli) -> Iterator[Cli]:
    """A Cli that sees a /var/cache of its own."""
    need_root()
    need_tool("unshare", "setpriv")
    with public_directory() as cache:
        cli.prefix = in_namespace(f"mount --bind {cache} /var/cache")
        cli.store = cache / "pyhugetext"
        yield cli


def test_only_root_fills_the_system_store(cli: Cli) -> None:
    if os.geteuid() == 0:
        need_tool("setpriv")
        need_for_others()
        cli.prefix = AS_STRANGER
    for arguments in (("warm", "--system"), ("store", "prune", "--system")):
        result = cli(*arguments)
        assert result.returncode == 1
        assert_one_sentence(result, "only root may write", "/var/cache/pyhugetext")


@pytest.fixture
def public_library(library: Path) -> Iterator[Path]:
    """One that everybody may read: of others there is no copy in the system's store."""
    with public_directory() as directory:
        path = Path(shutil.copy(library, directory))
        path.chmod(0o755)
        yield path


def test_system_store_serves_every_user(system: Cli, public_library: Path, tmp_path: Path) -> None:
    need_for_others()
    library = public_library
    (tmp_path / "public").mkdir()
    make_module(tmp_path / "public", "sample", library)
    modules = {"PYTHONPATH": str(tmp_path / "public")}
    result = system("warm", "--system", "--json", "sample", **modules)
    if "never gives" in result.stderr:
        pytest.skip("the file system of the temporary directory has no huge pages for files")
    assert result.returncode == 0, result.stderr
    assert status_of(json.loads(result.stdout), library) == "built"
    for path in [system.store, *system.store.rglob("*")]:
        status = path.lstat()
        assert status.st_uid == 0
        if path.parent.name != "v1" or path.is_dir():  # the verdict is the builder's own
            expected = 0o755 if path.is_dir() else 0o444 if "objects" in path.parts else 0o644
            assert stat.S_IMODE(status.st_mode) == expected, path
    assert any(path.name.startswith("image-") for path in system.store.rglob("index/*"))

    # What is there is told on the second run, for root and for others.
    again = json.loads(system("warm", "--system", "--json", "sample", **modules).stdout)
    assert status_of(again, library) == "present"

    with public_directory() as public:
        cli = Cli(public / "store")
        cli.prefix = (*system.prefix, *AS_STRANGER)
        code = "import pyhugetext; print(pyhugetext.remap(backing='store'))"
        shown = subprocess.run(
            [*cli.prefix, sys.executable, "-c", code],
            env=cli.environment(PYHUGETEXT_BUILD="never"),
            capture_output=True,
            text=True,
            check=True,
        )
        interpreter = [one for one in again["objects"] if "python" in one["path"]]
        if interpreter:
            assert re.search(r"python\S* .* store +huge", shown.stdout), shown.stdout
        listed = cli("store", "list", "--system")
        assert listed.returncode == 0
        assert library.name in listed.stdout


def test_ordinary_user_warms_a_store_of_their_own() -> None:
    need_root()
    need_tool("setpriv")
    need_for_others()
    with public_directory() as directory:
        os.chown(directory, STRANGER, STRANGER)
        cli = Cli(directory / "store")
        cli.prefix = AS_STRANGER
        result = cli("warm", HOME=str(directory))
        if "never gives" in result.stderr:
            pytest.skip("the file system of the temporary directory has no huge pages for files")
        assert result.returncode == 0, result.stderr
        assert {path.lstat().st_uid for path in cli.store.rglob("*")} == {STRANGER}
        directory.chmod(0o500)
        result = cli("warm", PYHUGETEXT_STORE=str(directory / "other"))
        assert result.returncode == 1
        assert_one_sentence(result, "permission denied")
        # Root does not look into another user's store.
        cli.prefix = ()
        result = cli("warm")
        assert result.returncode == 1
        assert_one_sentence(result, f"belongs to user {STRANGER}")
