"""The scripts for whole interpreters and whole suites, in short, so that they work when needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import own_shared_memory
from support.common import TESTS, clean_environment

SCRIPTS = TESTS / "platforms"


def script(name: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*own_shared_memory(), sys.executable, str(SCRIPTS / name), *arguments],
        env=clean_environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_checks_of_a_whole_interpreter_pass_here() -> None:
    result = script("checks.py", "--rounds", "3")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1].strip() == "all right"
    assert not any(line.startswith("FAILED") for line in lines)
    assert any(line.startswith("ok     fork: 20 children") for line in lines)


def test_suites_find_what_fails_with_the_hook_only(tmp_path: Path) -> None:
    case = tmp_path / "test_hook.py"
    case.write_text(
        "import sys\n"
        "def test_hook():\n    assert 'pyhugetext._boot' not in sys.modules\n"
        "def test_always():\n    assert False\n"
        "def test_never():\n    pass\n"
    )
    result = script("suites.py", "numpy", "--backing", "memfd", str(case))
    if ": skipped: " in result.stdout:
        pytest.skip(result.stdout)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{case}::test_hook alone: failed 3 of 3 active, 0 off" in result.stdout
    assert f"{case}::test_always alone: failed 3 of 3 active, 3 off" in result.stdout
    assert result.stdout.endswith(f"numpy: fail with the hook: {case}::test_hook\n")


def test_suites_run_without_the_hook_are_compared(tmp_path: Path) -> None:
    case = tmp_path / "test_hook.py"
    case.write_text("def test_always():\n    assert False\ndef test_never():\n    pass\n")
    result = script("suites.py", "--both", "numpy", "--backing", "memfd", str(case))
    if ": skipped: " in result.stdout:
        pytest.skip(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == (
        "numpy, active: 2 tests run, 1 failed\nnumpy, off: 2 tests run, 1 failed\nnumpy: no difference\n"
    )


def test_suite_of_which_nothing_passes_proves_nothing(tmp_path: Path) -> None:
    case = tmp_path / "test_missing.py"
    case.write_text("import nothing_of_that_name\n")
    result = script("suites.py", "--both", "numpy", "--backing", "memfd", str(case))
    if ": skipped: " in result.stdout:
        pytest.skip(result.stdout)
    assert result.returncode == 1
    assert result.stdout.endswith("numpy: nothing passed, which proves nothing\n")


def test_part_of_a_suite_that_dies_takes_no_other_with_it(tmp_path: Path) -> None:
    dies, passes = tmp_path / "test_dies.py", tmp_path / "test_passes.py"
    dies.write_text("import os\ndef test_before():\n    pass\ndef test_dies():\n    os._exit(0)\n")
    passes.write_text("def test_never():\n    pass\ndef test_nor():\n    pass\n")
    result = script("suites.py", "--both", "numpy", "--backing", "memfd", str(dies), str(passes))
    if ": skipped: " in result.stdout:
        pytest.skip(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(f"{dies} did not end (exit status 0)") == 2
    assert "numpy, active: 2 tests run, 1 failed\n" in result.stdout
    assert "numpy, off: 2 tests run, 1 failed\n" in result.stdout


def test_part_of_a_suite_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    case, pids = tmp_path / "test_hangs.py", tmp_path / "pids"
    case.write_text(
        "import os, subprocess\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "def test_hangs():\n    child.wait()\n"
    )
    result = script("suites.py", "numpy", "--backing", "memfd", "--timeout", "4", str(case))
    if ": skipped: " in result.stdout:
        pytest.skip(result.stdout)
    assert f"{case} did not end (exit status -9)" in result.stdout
    assert result.returncode == 1
    left = pids.read_text().split() if pids.exists() else []  # a slow machine comes not so far
    for pid in left:
        command = Path("/proc", pid, "cmdline")  # empty of what nobody has waited for
        assert not command.exists() or not command.read_bytes()


def test_suite_in_a_source_distribution_is_skipped_without_one() -> None:
    result = script("suites.py", "psutil")
    assert result.returncode == 77, result.stdout + result.stderr
    assert result.stdout.startswith("psutil: skipped: ")


def test_suites_run_cpythons_own_tests_or_say_why_not() -> None:
    result = script("suites.py", "cpython", "test_int_literal")
    said = {0: "cpython: no difference", 77: "cpython: skipped: "}
    assert said.get(result.returncode, "nothing of the kind") in result.stdout, result.stderr
