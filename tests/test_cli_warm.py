"""pyhugetext warm: what it prepares, what it says, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_tools import (
    AS_NOBODY,
    NOBODY,
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
)
from conftest import HUGE, Run
from pyhugetext.cli import installed, text
from pyhugetext.store import record

StatsOf = Callable[..., dict[str, Any]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "store")


@pytest.fixture
def disk(cli: Cli) -> Cli:
    """A Cli whose store lies on a file system that can do it."""
    result = cli("warm", "--json")
    if result.returncode and "never gives" in result.stderr:
        pytest.skip("the file system of the temporary directory has no huge pages for files")
    shutil.rmtree(cli.store)
    return cli


@pytest.fixture
def library(compile_library: Library) -> Path:
    return make_library(compile_library)


@pytest.fixture
def modules(tmp_path: Path, library: Path) -> dict[str, str]:
    """PYTHONPATH with a module `sample` that loads the library."""
    directory = tmp_path / "modules"
    directory.mkdir()
    make_module(directory, "sample", library)
    return {"PYTHONPATH": str(directory)}


def status_of(document: dict[str, Any], path: Path) -> str:
    (status,) = [one["status"] for one in document["objects"] if one["path"] == str(path)]
    return str(status)


def test_entries_of_a_module_are_built_durable_and_used(
    disk: Cli, modules: dict[str, str], library: Path, stats_of: StatsOf
) -> None:
    document = disk.json("warm", "sample", **modules)
    assert status_of(document, library) == "built"
    (built,) = [one for one in document["objects"] if one["path"] == str(library)]
    assert built["written"] == built["bytes"] > library.stat().st_size
    assert built["huge"] >= HUGE
    assert document["total"]["written"] >= built["written"]
    assert all(entry["durable"] for entry in disk.entries())

    env = {"PYHUGETEXT_STORE": str(disk.store), "PYHUGETEXT_BACKING": "store"}
    env |= {"PYHUGETEXT_BUILD": "never", **modules}
    stats = stats_of("import sample, pyhugetext; pyhugetext.remap()", env=env)
    (region,) = [r for r in stats["regions"] if r["path"] == str(library)]
    assert region["backing"] == "store"
    assert region["mapped_bytes"] == region["coverable_bytes"] > 0
    assert region["status"] == "huge"


def test_what_is_there_is_not_written_again(
    disk: Cli, modules: dict[str, str], library: Path
) -> None:
    disk.json("warm", "sample", **modules)
    before = sorted((p, p.stat().st_mtime_ns) for p in disk.store.rglob("objects/**/*"))
    document = disk.json("warm", "sample", **modules)
    assert status_of(document, library) == "present"
    assert document["total"]["written"] == 0
    assert before == sorted((p, p.stat().st_mtime_ns) for p in disk.store.rglob("objects/**/*"))


def test_entry_built_by_a_program_is_promoted(
    disk: Cli, modules: dict[str, str], library: Path, python: Run
) -> None:
    env = {"PYHUGETEXT_STORE": str(disk.store), "PYHUGETEXT_BACKING": "store", **modules}
    python("import sample, pyhugetext; pyhugetext.remap()", env=env)
    assert [e["durable"] for e in disk.entries() if e["original"] == str(library)] == [False]
    assert status_of(disk.json("warm", "sample", **modules), library) == "promoted"
    assert [e["durable"] for e in disk.entries() if e["original"] == str(library)] == [True]
    assert disk.json("store", "verify")["stores"][0]["entries"]


def test_entry_of_another_boot_is_not_believed(
    disk: Cli, modules: dict[str, str], library: Path
) -> None:
    disk.json("warm", "sample", **modules)
    (entry,) = [e for e in disk.entries() if e["original"] == str(library)]
    path = disk.store / "v1/index" / entry["name"]
    stale = record.Record.unpack(path.read_bytes())
    stale.boot_id = b"\1" * 16
    path.write_bytes(stale.pack())
    copy = Path(entry["copy"])
    copy.chmod(0o600)
    with copy.open("r+b") as file:  # what a power cut may leave
        file.write(bytes(copy.stat().st_size))
    assert status_of(disk.json("warm", "sample", **modules), library) == "built"
    assert disk.json("store", "verify")["stores"][0]["entries"]


def test_interpreter_alone(disk: Cli, stats_of: StatsOf) -> None:
    result = disk("warm")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "total:" in result.stdout


def test_missing_module_is_one_sentence_and_the_rest_is_kept(
    disk: Cli, modules: dict[str, str], library: Path
) -> None:
    result = disk("warm", "no_such_module", "sample", **modules)
    assert result.returncode == 1
    assert_one_sentence(result, "no module named 'no_such_module'")
    assert str(library) in [entry["original"] for entry in disk.entries()]


def test_missing_dependency_of_a_module_is_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import no_such_dependency")
    result = cli("warm", "needy", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert_one_sentence(result, "importing needy failed", "no_such_dependency")


def test_import_that_dies_is_told_with_what_it_printed(
    disk: Cli, tmp_path: Path, modules: dict[str, str], library: Path
) -> None:
    (tmp_path / "dies.py").write_text(
        "import os, signal; print('last words', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = f"{tmp_path}:{modules['PYTHONPATH']}"
    result = disk("warm", "dies", "sample", PYTHONPATH=path)
    assert result.returncode == 1
    assert "last words" in result.stderr
    assert "importing dies failed: it was ended by SIGKILL" in result.stderr
    assert "last words" not in result.stdout
    assert str(library) in [entry["original"] for entry in disk.entries()]


@pytest.mark.parametrize(
    "ending", ["raise SystemExit(3)", "raise KeyboardInterrupt", "os._exit(0)"]
)
def test_import_that_ends_the_process_is_a_failure(cli: Cli, tmp_path: Path, ending: str) -> None:
    (tmp_path / "ends.py").write_text(f"import os\n{ending}")
    result = cli("warm", "ends", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert_one_sentence(result, "importing ends failed")


def test_output_of_a_good_import_is_not_shown(disk: Cli, tmp_path: Path) -> None:
    (tmp_path / "talks.py").write_text("import sys; print('hello'); print('hi', file=sys.stderr)")
    result = disk("warm", "talks", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0
    assert "hello" not in result.stdout + result.stderr
    assert result.stderr == ""


def test_modules_are_not_taken_from_the_current_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.py").touch()
    monkeypatch.chdir(tmp_path)
    result = cli("warm", "here")
    assert result.returncode == 1
    assert_one_sentence(result, "no module named 'here'")


def test_excluded_and_small_objects_are_left_out(
    disk: Cli, modules: dict[str, str], library: Path
) -> None:
    for env in ({"PYHUGETEXT_EXCLUDE": "*/libf.so"}, {"PYHUGETEXT_MIN_TEXT": "1G"}):
        document = disk.json("warm", "sample", **modules, **env)
        assert str(library) not in [one["path"] for one in document["objects"]]


def loads(library: Path) -> str:
    return f"import ctypes; ctypes.CDLL({str(library)!r}); import pyhugetext; pyhugetext.remap()"


def test_what_a_command_loads_is_prepared(disk: Cli, library: Path) -> None:
    code = f"print('out'); {loads(library)}"
    result = disk("warm", "--", sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("out\n")
    assert str(library) in [entry["original"] for entry in disk.entries()]


def test_what_children_of_a_command_load_is_prepared(disk: Cli, library: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    document = disk.json("warm", "--", sys.executable, "-c", code, loads(library))
    assert status_of(document, library) == "built"


def test_output_of_a_command_leaves_the_json_alone(disk: Cli) -> None:
    result = disk("warm", "--json", "--", sys.executable, "-c", "print('out')")
    assert json.loads(result.stdout)["problems"] == []
    assert "out\n" in result.stderr


def test_command_that_fails_is_told_and_what_it_loaded_is_prepared(
    disk: Cli, library: Path
) -> None:
    result = disk("warm", "--", sys.executable, "-c", f"{loads(library)}; raise SystemExit(3)")
    assert result.returncode == 1
    assert_one_sentence(result, "the command ended with exit status 3")
    assert str(library) in [entry["original"] for entry in disk.entries()]


def test_command_that_is_not_found_is_one_sentence(cli: Cli) -> None:
    result = cli("warm", "--", "/no/such/command")
    assert result.returncode == 1
    assert_one_sentence(result, "/no/such/command: No such file or directory")


@pytest.mark.parametrize(
    "arguments",
    [
        ("warm", "sample", "--all-installed"),
        ("warm", "not a name"),
        ("warm", "--no-such-option"),
        ("warm", "--"),
        ("no-such-command",),
        (),
    ],
)
def test_wrong_usage_exits_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert not cli.store.exists()


def test_malformed_store_setting_is_not_replaced_by_the_default(cli: Cli) -> None:
    result = cli("warm", PYHUGETEXT_STORE="relative/path")
    assert result.returncode == 2
    assert_one_sentence(result, "PYHUGETEXT_STORE='relative/path'", "nothing was done")


@pytest.mark.parametrize("arguments", [("--help",), ("warm", "--help"), ("store", "--help")])
def test_help_has_examples_and_exit_statuses(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.returncode == 0
    assert "exit status:" in result.stdout
    if len(arguments) > 1:
        assert "examples:" in result.stdout
        assert "keys of --json:" in result.stdout


def test_console_script_and_module_are_the_same(cli: Cli) -> None:
    script = Path(sysconfig.get_path("scripts")) / "pyhugetext"
    if not script.exists():
        pytest.skip("the console script is not installed next to this interpreter")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == cli("--version").stdout != ""


def test_start_up_imports_nothing_of_the_command_line(python: Run) -> None:
    code = "import sys, pyhugetext; pyhugetext.stats(); print(*sorted(sys.modules))"
    assert "pyhugetext.cli" not in python(code).stdout


# Where the store cannot be written


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
    assert_one_sentence(result, "File too large")
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
    assert_one_sentence(result, "Read-only file system")


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
        cli.prefix = AS_NOBODY
    for arguments in (("warm", "--system"), ("store", "prune", "--system")):
        result = cli(*arguments)
        assert result.returncode == 1
        assert_one_sentence(result, "only root may write", "/var/cache/pyhugetext")


def test_system_store_serves_every_user(
    system: Cli, modules: dict[str, str], library: Path, tmp_path: Path
) -> None:
    need_for_others()
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
        cli.prefix = (*system.prefix, *AS_NOBODY)
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
        os.chown(directory, NOBODY, NOBODY)
        cli = Cli(directory / "store")
        cli.prefix = AS_NOBODY
        result = cli("warm", HOME=str(directory))
        if "never gives" in result.stderr:
            pytest.skip("the file system of the temporary directory has no huge pages for files")
        assert result.returncode == 0, result.stderr
        assert {path.lstat().st_uid for path in cli.store.rglob("*")} == {NOBODY}
        directory.chmod(0o500)
        result = cli("warm", PYHUGETEXT_STORE=str(directory / "other"))
        assert result.returncode == 1
        assert_one_sentence(result, "Permission denied")
        # Root does not look into another user's store.
        cli.prefix = ()
        result = cli("warm")
        assert result.returncode == 1
        assert_one_sentence(result, f"belongs to user {NOBODY}")


# All that is installed


def test_installed_shared_objects_are_found_by_walking(
    tmp_path: Path, library: Path, compile_library: Library
) -> None:
    site = tmp_path / "site-packages"
    (site / "package").mkdir(parents=True)
    wanted = site / "package" / "libwanted.so.1.2"
    shutil.copy(library, wanted)
    os.link(wanted, site / "again.so")
    (site / "text.so").write_bytes(b"no ELF file\n" * 100_000)
    (site / "not-a-library").write_bytes(library.read_bytes())
    foreign = bytearray(library.read_bytes())
    foreign[18:20] = b"\x15\0"  # e_machine: PowerPC
    (site / "foreign.so").write_bytes(foreign)
    (site / "truncated.so").write_bytes(library.read_bytes()[: 1 << 20])
    shutil.copy(compile_library("int one(void) { return 1; }", name="small.so"), site)
    os.mkfifo(site / "fifo.so")
    found = list(installed.shared_objects([str(site)], 256 << 10))
    assert [item.path for item in found] == [str(site / "again.so")]


def test_all_installed_is_prepared_without_importing(
    disk: Cli, tmp_path: Path, library: Path
) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("platlib") + "\n")
    (site / "package").mkdir()
    (site / "package/__init__.py").write_text("raise SystemExit('was imported')")
    shutil.copy(library, site / "package/libinner.so")
    disk.executable = str(environment / "bin/python")
    document = disk.json("warm", "--all-installed")
    (one,) = [one for one in document["objects"] if one["path"].endswith("libinner.so")]
    if one["status"] == "refused":
        assert "another address each time" in one["reason"]
    else:
        assert one["status"] == "built"
        code = loads(Path(one["path"])) + "; print(pyhugetext.stats())"
        env = disk.environment(PYHUGETEXT="1", PYHUGETEXT_BUILD="never")
        shown = subprocess.run(
            [disk.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert re.search(r"libinner.so .* store +huge", shown.stdout), shown.stdout


# Progress and interruption


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("waited for a minute")


def test_interrupted_command_keeps_what_it_used(disk: Cli, library: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"{loads(library)}; open({str(marker)!r}, 'w').close(); import time; time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-m", "pyhugetext", "warm", "--", sys.executable, "-c", code],
        env=disk.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(marker.exists)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "what was done is kept" in errors
    assert str(library) in output
    assert str(library) in [entry["original"] for entry in disk.entries()]


def test_interrupted_import_exits_with_130(cli: Cli, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "slow.py").write_text(
        f"import time; open({str(marker)!r}, 'w').close(); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pyhugetext", "warm", "slow"],
        env=cli.environment(PYTHONPATH=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(marker.exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def on_terminal(cli: Cli, tmp_path: Path, **env: str) -> str:
    """What a warm that takes a while shows on stderr when that is a terminal."""
    (tmp_path / "slow.py").write_text("import time; time.sleep(2.5)")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pyhugetext", "warm", "slow"],
        env=cli.environment(PYTHONPATH=f"{env.pop('PYTHONPATH', '')}:{tmp_path}", **env),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert process.wait() == 0, shown
    return shown.decode()


def test_progress_is_a_line_without_rich(disk: Cli, tmp_path: Path) -> None:
    (tmp_path / "norich").mkdir()
    (tmp_path / "norich/rich.py").write_text("raise ImportError('not here')")
    shown = on_terminal(disk, tmp_path, PYTHONPATH=str(tmp_path / "norich"), TERM="dumb")
    assert "\rimporting slow (" in shown
    assert shown.endswith("\r\x1b[K")


def test_progress_is_a_bar_with_rich(disk: Cli, tmp_path: Path) -> None:
    pytest.importorskip("rich", reason="rich is not installed")
    shown = on_terminal(disk, tmp_path, TERM="xterm")
    assert "importing slow" in shown


def test_nothing_is_drawn_without_a_terminal(disk: Cli, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time; time.sleep(1.5)")
    assert disk("warm", "slow", PYTHONPATH=str(tmp_path)).stderr == ""


# Text


def test_sizes_and_ages_read_well() -> None:
    sizes = [0, 1023, 1024, 351_479_398, 5 << 30, 1 << 50]
    assert [text.size(size) for size in sizes] == [
        "0 B", "1023 B", "1.0 KiB", "335.2 MiB", "5.0 GiB", "1024.0 TiB",
    ]  # fmt: skip
    ages = [0.2, 59, 60, 7200, 3 * 86400 + 5]
    assert [text.age(age) for age in ages] == ["now", "59 s", "1 min", "2 h", "3 d"]


def test_tables_fit_the_terminal_and_survive_any_path() -> None:
    rows = [("1 B", "/" + "x" * 100 + "/name.so"), ("1023.0 KiB", "/evil\n\x1b[31m\udcff")]
    lines = text.table(("size", "object"), rows, "rp", 60)
    assert max(map(len, lines)) <= 60
    assert lines[1].endswith("name.so")
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)
