"""pyhugetext warm: what it prepares, what it says, and how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.cli import installed
from support.cli import Cli, Library, assert_one_sentence, status_of, wait_for
from support.common import HUGE, Run
from support.record import Record

StatsOf = Callable[..., dict[str, Any]]


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
    path.write_bytes(Record.read(path).of_another_boot().pack())
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


# Interruption


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
