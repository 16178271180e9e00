"""Modules of the package that run in a python of their own: what they answer, and that nothing of the
user's directory is taken for a part of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.children import runner
from support.common import Run, clean_environment

IMPORTING = "pyhugetext.children.importing"

HOSTILE = """
with open(__file__ + ".taken", "w"):
    pass
raise SystemExit("a file of the current directory was imported")
"""
NAMES = (
    *("bisect", "contextlib", "ctypes", "dataclasses", "fnmatch", "json", "runpy"),
    *("statistics", "subprocess", "tempfile", "typing"),
)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory in which files are called as modules of the library and as this package."""
    directory = tmp_path / "hostile"
    (directory / "pyhugetext").mkdir(parents=True)
    (directory / "pyhugetext" / "__init__.py").write_text(HOSTILE)
    for name in NAMES:
        (directory / f"{name}.py").write_text(HOSTILE)
    return directory


def taken(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*.taken")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "--json"),
        ("report", "-m", "email", "../page.html"),
        ("warm", "email"),
        ("bench", "--seconds", "0.05", "--processes", "1", "--slot", "0.001", "1 + 1"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_current_directory_is_not_searched(cli, hostile, monkeypatch, arguments):
    monkeypatch.chdir(hostile)
    # An installed script does not search it either, other than `python -m pyhugetext`.
    script = "import sys; from pyhugetext.__main__ import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-I", "-c", script, *arguments],
        env=cli.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert taken(hostile) == []
    assert "current directory" not in result.stderr
    if arguments[0] == "doctor":
        hook = next(c for c in json.loads(result.stdout)["checks"] if c["name"] == "hook")
        assert hook["facts"]["files"]


@pytest.mark.parametrize(
    "version", [(3, 9), tuple(sys.version_info[:3])], ids=["without -P", "now"]
)
def test_child_of_any_version_leaves_the_current_directory_out(python: Run, hostile, version):
    code = """
        import json, os, sys
        from pyhugetext.children import runner
        os.chdir(sys.argv[1])
        sys.version_info = tuple(map(int, sys.argv[2].split(".")))
        told = runner.ask("pyhugetext.children.start").told
        print(json.dumps([told["error"], len(told["stats"]["regions"]) > 0]))
    """
    told = python(code, str(hostile), ".".join(map(str, version))).stdout
    assert json.loads(told) == [None, True]
    assert taken(hostile) == []


def test_statement_may_import_from_the_current_directory(cli, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def f(): return 1")
    monkeypatch.chdir(tmp_path)
    arguments = ("--seconds", "0.01", "--processes", "1", "-s", "import mine", "mine.f()")
    result = cli("bench", *arguments)
    assert "mine" not in result.stderr


# --- what a child answers ---


def ask(directory: Path, code: str, seconds: float | None = None) -> runner.Answer:
    """Has a child import a module made of this code."""
    (directory / "sample.py").write_text(code)
    environ = clean_environment(PYHUGETEXT="0", PYTHONPATH=str(directory))
    request: dict[str, Any] = {"modules": ["sample"], "tell": "process"}
    return runner.ask(IMPORTING, request, environ, seconds)


def test_answer_comes_with_what_was_printed(tmp_path):
    told, printed = ask(tmp_path, "print('x' * (1 << 20)); print('the end')")
    assert told["error"] is None
    assert told["stats"]["text_bytes"] > 0
    assert printed.endswith(b"x\nthe end\n")
    assert len(printed) == 64 << 10


def test_error_is_told_with_what_was_found_before(tmp_path):
    told, printed = ask(tmp_path, "import sys; print('so far', file=sys.stderr); import no_such")
    assert told["error"] == "ModuleNotFoundError: No module named 'no_such'"
    assert (told["module"], told["missing"]) == ("sample", "no_such")
    assert printed == b"so far\n"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os._exit(3)", "ended with exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
)
def test_child_that_gives_no_answer_is_told(tmp_path, code, how):
    with pytest.raises(runner.Unanswered) as caught:
        ask(tmp_path, f"print('one\\ntwo', flush=True); {code}")
    assert str(caught.value) == how
    assert (caught.value.printed, caught.value.line) == (b"one\ntwo\n", ": two")


def test_child_that_takes_too_long_is_ended(tmp_path):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(runner.Unanswered, match="did not end within 3 seconds") as caught:
        ask(tmp_path, code, seconds=3)
    # A machine may be so slow that it did not get that far.
    for pid in caught.value.printed.split():
        assert not Path(f"/proc/{int(pid)}").exists()


def test_process_that_a_module_leaves_behind_holds_nothing_up(tmp_path):
    pid_file = tmp_path / "pid"
    code = f"""
import os, time
pid = os.fork()
if not pid:
    time.sleep(600)
    os._exit(0)
with open({str(pid_file)!r}, "w") as file:
    file.write(str(pid))
os._exit(3)
"""
    began = time.monotonic()
    try:
        with pytest.raises(runner.Unanswered, match="ended with exit status 3"):
            ask(tmp_path, code)
        assert time.monotonic() - began < 300
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_interpreter_that_does_not_know_its_path_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(runner.Unanswered, match=r"does not know its own path"):
        runner.ask("pyhugetext.children.start")


def test_interpreter_that_is_gone_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(runner.Unanswered, match="cannot be started: /nonexistent/python: No such"):
        runner.ask("pyhugetext.children.start")
