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
         "private_bytes": 0, "backing": "store", "reason": None, "uncovered": []}  # fmt: skip


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


def test_a_name_that_is_none_of_the_wheels_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--work", str(tmp_path), "no-such-wheel"])
    assert ended.value.code == 2


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


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exit": 1, "stderr": "Traceback\nImportError: no sklearn\n", "stats": None},
         "its use ends with 1 without the package, too: ImportError: no sklearn"),
        ({"exit": -9, "stderr": "", "stats": None},
         "its use ends with -9 without the package, too: no word on stderr"),
        ({"stats": {**STATS, "reason": "PYHUGETEXT=0"}}, "nothing of it was huge: PYHUGETEXT=0"),
        ({"exit": 1, "same": False}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_what_proves_nothing_is_skipped_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: rows.Row, why: str
) -> None:
    monkeypatch.setattr(command, "apart", lambda: None)
    monkeypatch.setattr(command, "install", lambda wheel, place: "")
    monkeypatch.setattr(command, "measure", lambda place, pairs: row("numpy", **changes))
    ended = command.main(["--work", str(tmp_path), "numpy"])
    found = rows.read(tmp_path / "results.jsonl")[0]
    assert found.get("skipped", "") == why
    assert ended == (command.SKIPPED if why else "exit" in changes)


@pytest.mark.parametrize("name", ["torch-cuda", "torch", "jax", "netCDF4", "PySide6-Essentials"])
def test_the_version_is_found_by_the_name_or_by_what_it_requires(tmp_path: Path, name: str) -> None:
    for folder in ("torch-2.0+x", "jax-2.0+x", "netcdf4-2.0+x", "pyside6_essentials-2.0+x", "z-1"):
        (tmp_path / f"site/{folder}.dist-info").mkdir(parents=True)
    wheel = next(wheel for wheel in WHEELS if wheel.name == name)
    assert command.version(wheel, tmp_path) == "2.0+x"


def test_a_crash_while_stats_are_asked_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(place: Path, *arguments: str, **settings: str) -> command.Run:
        return command.Run(-11 if "observe.py" in arguments[0] else 0, "a", "", 1.0)

    monkeypatch.setattr(command, "start", start)
    found = command.measure(tmp_path, 1)
    assert found["differences"] == ["exit status -11, without 0: "]


@pytest.mark.parametrize(
    ("code", "err", "differences"),
    [
        (1, "pyhugetext warm: no room", []),
        (-11, "", ["warm died: exit status -11: "]),
        (1, "Traceback (most", ["warm died: exit status 1: Traceback (most"]),
    ],
)
def test_a_warm_that_dies_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, err: str, differences: list[str]
) -> None:
    def start(place: Path, *arguments: str, **settings: str) -> command.Run:
        if "warm" in arguments:
            return command.Run(code, "", err, 1.0)
        if "observe.py" in arguments[0]:
            (place / "stats.json").write_text(json.dumps(STATS))
        return command.Run(0, "a", "", 1.0)

    monkeypatch.setattr(command, "start", start)
    assert command.measure(tmp_path, 1)["differences"] == differences


def test_a_failed_warm_and_little_coverage_are_told() -> None:
    little = {**STATS, "mapped_bytes": MIB, "uncovered": ["libx.so: too small"]}
    table = rows.table([row("numpy", stats=little, warm_exit=1, warm_stderr="no room")])
    assert "- numpy: warm ended with 1: no room" in table
    assert "- numpy, not covered: libx.so: too small" in table


def test_shared_memory_is_cleared_only_where_it_is_the_zoos_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ZOO_OUTSIDE", raising=False)
    assert not command.is_apart()
    monkeypatch.setenv("ZOO_OUTSIDE", command.mounts())
    assert not command.is_apart()
    monkeypatch.setenv("ZOO_OUTSIDE", "mnt:[1]")
    assert command.is_apart()


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
def test_every_use_is_python_that_prints(wheel: Any) -> None:
    calls = [node.func for node in ast.walk(ast.parse(wheel.use)) if isinstance(node, ast.Call)]
    assert any(isinstance(call, ast.Name) and call.id == "print" for call in calls)
