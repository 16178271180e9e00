"""The harness of `make zoo`: what is a difference, what goes on after an interruption, and what is a skip."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from zoo import __main__ as command
from zoo import rows
from zoo.wheels import WHEELS

MIB = 1 << 20
STATS = {"text_bytes": 10 * MIB, "coverable_bytes": 8 * MIB, "mapped_bytes": 8 * MIB, "huge_bytes": 8 * MIB,
         "private_bytes": 0, "backing": "store"}  # fmt: skip


def row(wheel: str, **changes: Any) -> rows.Row:
    return {"wheel": wheel, "version": "1.0", "same": True, "differences": [], "unsteady_without": [], "exit": 0,
            "stderr": "", "off_s": 2.0, "first_s": 3.0, "on_s": 1.9, "stats": STATS, **changes}  # fmt: skip


def test_output_exit_status_and_stderr_are_compared() -> None:
    without = command.Run(0, "a", "b", 1.0)
    assert rows.difference(without, command.Run(0, "a", "b", 9.0)) == ""
    assert rows.difference(without, command.Run(-11, "a", "b", 1.0)).startswith(
        "exit status -11, without 0"
    )
    assert rows.difference(without, command.Run(0, "x", "b", 1.0)) == "stdout 'x', without 'a'"
    assert rows.difference(without, command.Run(0, "a", "x", 1.0)) == "stderr 'x', without 'b'"


def test_the_table_tells_ratios_differences_and_what_was_skipped() -> None:
    bad = row("bad", same=False, differences=["stdout 'x', without 'a'"])
    table = rows.table([row("good"), bad, {"wheel": "none", "skipped": "pip cannot"}])
    assert "| good 1.0 | 10 MiB | 100 % | store | 0 MiB | 2.00 s | 1.50 | 0.95 | yes |" in table
    assert "| 0.95 | NO |" in table
    assert "| none | skipped: pip cannot |" in table
    assert "1 of 2 with the same output, exit status and stderr; 1 skipped." in table
    assert "- bad: stdout 'x', without 'a'" in table


def test_an_interrupted_run_goes_on_after_the_last_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.jsonl").write_text(
        json.dumps(row("numpy")) + '\n{"wheel": "scipy", "ver\n'
    )
    asked = []
    monkeypatch.setattr(command, "apart", lambda: None)
    monkeypatch.setattr(
        command, "ask", lambda wheel, _: asked.append(wheel.name) or row(wheel.name)
    )
    assert command.main(["--work", str(tmp_path), "numpy", "scipy"]) == 0
    assert asked == ["scipy"]
    assert "2 of 2 with the same" in capsys.readouterr().out


def test_where_nothing_can_be_installed_it_skips_without_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "apart", lambda: None)
    monkeypatch.setattr(
        command, "install", lambda wheel, place: "pip cannot install it: no network"
    )
    assert command.main(["--work", str(tmp_path), "numpy"]) == command.SKIPPED
    said = capsys.readouterr().out
    assert "make zoo: skipped: pip cannot install it: no network." in said
    assert "|" not in said
    assert command.main(["--work", str(tmp_path), "no-such-wheel"]) == command.SKIPPED


def test_a_difference_is_exit_status_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "apart", lambda: None)
    monkeypatch.setattr(
        command, "ask", lambda wheel, _: row(wheel.name, same=False, differences=["d"])
    )
    assert command.main(["--work", str(tmp_path), "numpy"]) == 1
    capsys.readouterr()


def test_a_use_that_crashes_only_with_the_package_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "use.py").write_text(
        "import os\nprint(1)\nos.environ.get('PYHUGETEXT') or os._exit(3)\n"
    )
    found = command.measure(tmp_path, 1)
    assert not found["same"]
    assert found["differences"][0].startswith("exit status 3, without 0")


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
def test_every_use_is_python_that_prints(wheel: Any) -> None:
    calls = [node.func for node in ast.walk(ast.parse(wheel.use)) if isinstance(node, ast.Call)]
    assert any(isinstance(call, ast.Name) and call.id == "print" for call in calls)
