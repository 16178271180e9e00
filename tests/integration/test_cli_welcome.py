"""`pyhugetext` alone: what a newcomer sees first."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import pyhugetext
from pyhugetext._stats.model import Stats
from pyhugetext.cli import commands, welcome
from support.cli import Cli
from support.report import region, stats


def told(found: Stats, width: int | None = None) -> str:
    return "\n".join(welcome.lines(found, lambda command: f"pyhugetext {command}", width))


def test_it_shows_its_own_process_and_what_to_try_next(cli: Cli) -> None:
    result = cli(PYHUGETEXT="1", PYHUGETEXT_BACKING="thp")
    assert (result.returncode, result.stderr) == (0, "")
    if "100 %" not in result.stdout:
        pytest.skip("there are no anonymous huge pages here")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"pyhugetext {pyhugetext.__version__}, Python ")
    for title in ("machine code of this process:", "what this machine can do:", "next:"):
        assert title in lines
    assert "  thp: each process keeps a copy of its own" in result.stdout


def test_every_command_it_names_is_one(cli: Cli) -> None:
    names = {path.stem for path in Path(commands.__path__[0]).glob("[a-z]*.py")}
    for switch in ("0", "1"):
        shown = cli(PYHUGETEXT=switch).stdout.partition("next:")[2]
        named = re.findall(r"^  (?:python -m )?pyhugetext ([a-z]+)", shown, re.MULTILINE)
        assert {"status", "bench", "doctor"} <= set(named) <= names


def test_where_it_is_turned_off_it_says_how_to_turn_it_on(cli: Cli) -> None:
    result = cli()
    assert result.returncode == 0
    assert "turned off by PYHUGETEXT=0" in result.stdout
    assert "unset PYHUGETEXT" in result.stdout


def test_it_is_the_same_without_rich(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('not here')")
    result = cli(PYTHONPATH=str(tmp_path))
    assert result.returncode == 0
    assert result.stdout == cli().stdout


def test_a_command_is_spelled_as_it_can_be_typed(cli: Cli, tmp_path: Path) -> None:
    assert "  python -m pyhugetext doctor" in cli(PATH=str(tmp_path)).stdout
    script = tmp_path / "pyhugetext"
    script.write_text("")
    script.chmod(0o755)
    assert "  pyhugetext doctor" in cli(PATH=str(tmp_path)).stdout


def test_copies_that_are_not_whole_yet_are_said_to_be_on_their_way() -> None:
    some = region(
        "/usr/bin/python3.11", 2, 1, reason="1 MiB: the store has no copy of this page yet"
    )
    shown = told(stats(some))
    assert "not whole yet" in shown
    assert "pyhugetext warm --all-installed" in shown
    assert "not whole yet" not in told(stats(region("/usr/bin/python3.11", 2)))


def test_why_nothing_is_shared_is_told() -> None:
    private = region("/usr/bin/python3.11", 2)._replace(
        backing="thp", fallbacks=("store: read-only file system",)
    )
    shown = told(stats(private)._replace(backing="thp"))
    assert "store: read-only file system" in shown


def test_it_fits_a_narrow_terminal() -> None:
    found = stats(region("/lib/" + "x" * 90 + ".so", 2), region("/usr/bin/python3.11", 2))
    shown = told(found, 64).partition("next:")[0]
    assert max(map(len, shown.splitlines())) <= 64


def test_a_hostile_name_stays_on_its_line() -> None:
    shown = told(stats(region("/lib/evil\n\x1b[31m.so", 2)))
    assert "\x1b" not in shown
    assert os.linesep + "[31m" not in shown
