"""`pyhugetext bench` of a command, and what it writes for pyperf."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pyhugetext.measure.measurement import Measurement
from support.bench import QUICK
from support.cli import Cli, assert_one_sentence, in_read_only_root

pytestmark = pytest.mark.usefixtures("huge_memfd")


def test_command_is_run_in_pairs_off_and_on(cli: Cli, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    code = (
        "import os, pyhugetext; s = pyhugetext.stats(); "
        f"open({str(seen)!r}, 'a').write(f'{{s.active:d}} {{s.backing}}\\n'); "
        "assert os.read(0, 1) == b''; print('noise')"
    )
    result = cli(
        "bench",
        "--json",
        "--backing",
        "memfd",
        "--seconds",
        "0.1",
        "--",
        sys.executable,
        "-c",
        code,
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["kind"] == "command"
    assert document["effect"]["pairs"] == document["control"]["pairs"] == 6
    assert document["verdict"]["word"] != "too few"
    assert Measurement.from_dict(document).as_dict() == document
    warm, *rest = [line.split() for line in seen.read_text().splitlines()]
    assert warm == ["1", "memfd"]
    active = [int(flag) for flag, _ in rest[2:]]
    assert active == 3 * [0, 1, 1, 0, 0, 0, 0, 0]
    for quad in document["samples"]["quads"]:
        assert all(cpu > 0 for cpu in quad["cpu"])
        assert quad["lap"] == quad["cpu"]


def test_children_that_a_command_waits_for_count(cli: Cli) -> None:
    burn = "import time\nwhile time.process_time() < 0.06: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {burn!r}])"
    document = cli.json(
        "bench", "--seconds", "0.1", "--", sys.executable, "-c", code,
    )  # fmt: skip
    # The kernel's own figures: the loop cannot end before it has used so much.
    assert all(q["cpu"][i] >= 59_000_000 for q in document["samples"]["quads"] for i in range(4))


def test_command_prints_into_the_log(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    result = cli("bench", "--seconds", "0.1", "--log", str(log), "--", "echo", "noise")
    assert result.returncode == 0, result.stderr
    assert "noise" not in result.stdout.replace("echo noise: ", "")
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert set(lines[1:]) == {"noise"}
    assert len(lines) >= 1 + 24


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-command"], ["no-such-command", "No such file"]),
        (["/"], ["/", "Permission denied"]),
        (["sh", "-c", "echo one >&2; echo two >&2; exit 7"], ["exit status 7: two"]),
        (["sh", "-c", "kill -9 $$"], ["was ended by SIGKILL"]),
        (["false"], ["exit status 1"]),
    ],
)
def test_failing_command_is_one_sentence(cli: Cli, command: list[str], words: list[str]) -> None:
    result = cli("bench", "--", *command)
    assert result.returncode == 1
    assert_one_sentence(result, *words)
    assert result.stdout == ""


def test_command_is_measured_where_the_root_is_read_only(cli: Cli) -> None:
    in_read_only_root(cli)
    result = cli("bench", "--seconds", "0.1", "--", sys.executable, "-c", "pass")
    assert (result.returncode, result.stderr) == (0, "")


def test_command_that_fails_later_is_told_with_its_run(cli: Cli, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    script = f"echo >> {runs}; test $(wc -l < {runs}) -lt 10"
    result = cli("bench", "--", "sh", "-c", script)
    assert result.returncode == 1
    assert_one_sentence(result, "exit status 1 in run 7, with small text")


def test_unwritable_files_are_told_before_anything_is_measured(cli: Cli, tmp_path: Path) -> None:
    result = cli("bench", "--seconds", "600", "--pyperf", str(tmp_path / "no/such"), "1")
    assert result.returncode == 1
    assert_one_sentence(result, "nothing can be written in", "no")
    result = cli("bench", "--log", str(tmp_path), "--", "true")
    assert result.returncode == 1
    assert_one_sentence(result, str(tmp_path), "Is a directory")


# pyperf


def test_what_was_measured_is_printed_where_the_files_cannot_be_written(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "mine-small.json").mkdir()
    result = cli("bench", *QUICK, "--pyperf", str(tmp_path / "mine"), "sum(range(1000))")
    assert result.returncode == 1
    assert_one_sentence(result, "mine-small.json: Is a directory")
    assert "\nsmall " in result.stdout


@pytest.mark.parametrize("what", [["sum(range(1000))"], ["--", "true"]])
def test_pyperf_compares_the_two_files(cli: Cli, tmp_path: Path, what: list[str]) -> None:
    if importlib.util.find_spec("pyperf") is None:
        pytest.skip("pyperf is not installed (pip install --group test)")
    prefix = str(tmp_path / "mine")
    options = QUICK if what[0] != "--" else QUICK[:2] + QUICK[6:]
    document = cli.json("bench", *options, "--pyperf", prefix, *what)
    files = [f"{prefix}-small.json", f"{prefix}-huge.json"]

    def pyperf(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "pyperf", *arguments],
            env=cli.environment(), check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip

    compared = pyperf("compare_to", "--verbose", *files)
    assert "small" in compared
    assert "huge" in compared
    loops = document["samples"]["loops"]
    effect = [q for q in document["samples"]["quads"] if q["kind"] == "effect"]
    for file, at in zip(files, ((0, 3), (1, 2))):
        laps = [q["lap"][i] for q in effect for i in at]
        shown = pyperf("dump", "--raw", file) + pyperf("stats", file)
        assert f"Number of values: {len(laps)}" in shown or f"values: {len(laps)}" in shown
        stored = json.loads(Path(file).read_text())["benchmarks"][0]["runs"][0]["values"]
        assert stored == [lap / loops / 1e9 for lap in laps]
