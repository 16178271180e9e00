"""`pyhugetext bench` of a statement, used as from a shell."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.measure.measurement import Measurement
from support.bench import QUICK
from support.cli import Cli, assert_one_sentence, make_library, make_module, on_terminal

pytestmark = pytest.mark.usefixtures("huge_memfd")


def test_statement_is_told_with_ratio_control_and_verdict(cli: Cli) -> None:
    result = cli("bench", *QUICK, "-s", "d = {}", "for i in range(50):", "    d[i] = str(i)")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    expected, *lines = result.stdout.splitlines()
    assert re.match(r"(a gain can|a small gain is|hardly a gain|whether a gain can)", expected)
    assert [line.split()[0] for line in lines[:4]] == ["small", "huge", "effect", "control"]
    for line in lines[2:4]:
        assert re.search(r" \d\.\d{4} \(\d\.\d{4} to \d\.\d{4}\)  ", line)
    assert "backing memfd" in result.stdout
    assert re.match(r"(faster by|slower by|no difference shown|no verdict)", lines[-2])
    assert lines[-1].startswith("for i in range(50):; d[i] = str(i): ")
    assert re.search(r" huge text.*, Linux \d+\.\d+, \d+ s$", lines[-1])


def test_json_has_the_documented_keys_and_agrees_with_its_samples(cli: Cli) -> None:
    document = cli.json("bench", *QUICK, "sum(range(1000))")
    manual = cli("bench", "--help").stdout
    documented = re.findall(r"^  (\w+)  +\S", manual.partition("keys of --json:")[2], re.M)
    assert set(document) <= set(documented)
    assert document["format"] == "pyhugetext-bench-1"
    assert document["kind"] == "statement"
    assert Measurement.from_dict(document).as_dict() == document
    quads = document["samples"]["quads"]
    effect = sorted(
        (q["lap"][1] + q["lap"][2]) / (q["lap"][0] + q["lap"][3])
        for q in quads
        if q["kind"] == "effect"
    )
    assert document["effect"]["pairs"] == len(effect) == document["control"]["pairs"]
    assert effect[0] <= document["effect"]["low"] <= document["effect"]["high"] <= effect[-1]
    assert document["text"]["mapped_bytes"] > 0
    assert document["text"]["huge_bytes"] > 0
    assert document["settings"]["interrupted"] is False
    for entry in document["counters"].values():
        assert set(entry) in ({"small", "huge"}, {"unavailable"})


def test_statement_runs_apart_from_the_command_with_nothing_to_read(cli: Cli) -> None:
    result = cli(
        "bench", *QUICK, "--json",
        "-s", "import os, sys, gc; print('noise'); print('noise', file=sys.stderr)",
        "-s", "assert sys.stdin.read() == '' and not gc.isenabled() and sys.argv == ['']",
        "-s", "assert 'PYHUGETEXT' not in os.environ and os.getpgid(0) == os.getpid()",
        "print('more noise')",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    json.loads(result.stdout)
    assert result.stderr == ""


def test_package_off_or_on_is_all_the_same(cli: Cli) -> None:
    for value in ("0", "1"):
        document = cli.json("bench", *QUICK, "sum(range(1000))", PYHUGETEXT=value)
        assert document["text"]["backing"] == "memfd"
        assert document["text"]["mapped_bytes"] > 0


def test_store_is_filled_before_measuring(cli: Cli, compile_library: Any, tmp_path: Path) -> None:
    library = make_library(compile_library)
    make_module(tmp_path, "loads_it", library)
    env = {"PYTHONPATH": str(tmp_path), "PYHUGETEXT_BUILD": "never"}
    arguments = ("bench", *QUICK[2:], "-s", "import loads_it", "1")
    result = cli(*arguments, **env)
    if result.returncode and "no text came" in result.stderr:
        pytest.skip("the file system of the temporary directory has no huge pages for files")
    assert result.returncode == 0, result.stderr
    assert "backing store" in result.stdout
    assert str(library) in [entry["original"] for entry in cli.entries()]


def test_limit_on_private_memory_is_lifted_and_that_is_said(cli: Cli) -> None:
    result = cli("bench", *QUICK, "sum(range(1000))", PYHUGETEXT_PRIVATE_LIMIT="4K")
    assert "PYHUGETEXT_PRIVATE_LIMIT was lifted" in result.stdout
    assert "a program gets 4.0 KiB" in result.stdout
    assert "was lifted" not in cli("bench", *QUICK, "sum(range(1000))").stdout


def test_long_statement_runs_once_a_slot_and_that_is_said(cli: Cli) -> None:
    result = cli("bench", *QUICK, "sum(range(3_000_000))")
    assert "STMT takes longer than a slot" in result.stdout
    assert "1 lap a slot, 1 run a lap" in result.stdout
    assert re.search(r"no verdict: [1-5] of at least 6 pairs", result.stdout)


def test_time_is_divided_among_processes_that_do_the_same_work(cli: Cli, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    setup = f"import os; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')"
    document = cli.json("bench", *QUICK, "--processes", "3", "-s", setup, "sum(range(1000))")
    assert len(set(pids.read_text().split())) == 3
    quads = document["samples"]["quads"]
    assert [q["process"] for q in quads] == sorted(q["process"] for q in quads)
    assert {q["process"] for q in quads} == {0, 1, 2}


def test_no_further_process_is_begun_when_the_time_is_over(cli: Cli, tmp_path: Path) -> None:
    document = cli.json("bench", *QUICK, "--processes", "50", "sum(range(3_000_000))")
    # A quad of each kind takes longer than the tenth of a second that is left after three.
    assert {q["process"] for q in document["samples"]["quads"]} <= {0, 1, 2, 3}


def test_number_of_runs_can_be_given(cli: Cli) -> None:
    document = cli.json("bench", *QUICK, "-n", "7", "sum(range(1000))")
    assert document["samples"]["loops"] == 7


@pytest.mark.parametrize(
    ("arguments", "shown", "sentence"),
    [
        (["1 +"], "    1 +\n", "STMT, line 1: invalid syntax"),
        (["x = 1", "x ==== 2"], "    x ==== 2\n", "STMT, line 2: invalid syntax"),
        (["-s", "import", "1"], "    import\n", "SETUP, line 1:"),
    ],
)
def test_syntax_error_is_shown_with_a_caret(
    cli: Cli, arguments: list[str], shown: str, sentence: str
) -> None:
    result = cli("bench", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(shown)
    assert "^" in result.stderr.splitlines()[1]
    assert result.stderr.splitlines()[-1].startswith(f"pyhugetext bench: {sentence}")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-s", "import no_such_module", "1"], "SETUP, line 1: ModuleNotFoundError"),
        (["{}['x']"], "STMT, line 1: KeyError: 'x'"),
        (["raise SystemExit(3)"], "STMT, line 1: SystemExit: 3"),
        (["-s", "n = 0", "n += 1", "if n > 50: raise OSError('later')"], "STMT, line 2: OSError"),
        (["import os; os._exit(4)"], "the process that ran STMT ended with exit status 4"),
        (["import os; os.write(2, b'help\\nme\\n'); os.abort()"], "was ended by SIGABRT: me"),
    ],
)
def test_failing_statement_is_one_sentence(cli: Cli, arguments: list[str], sentence: str) -> None:
    result = cli("bench", *QUICK, *arguments)
    assert result.returncode == 1
    assert_one_sentence(result, sentence)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a STMT, or a COMMAND"),
        (["1", "--", "true"], "a STMT, or a COMMAND"),
        (["--seconds", "-1", "1"], "--seconds '-1'"),
        (["--seconds", "nan", "1"], "--seconds 'nan'"),
        (["--seconds", "soon", "1"], "--seconds 'soon'"),
        (["--slot", "0", "1"], "--slot '0'"),
        (["--backing", "huge", "1"], "--backing 'huge' is unknown; allowed: auto, file,"),
        (["-n", "0", "1"], "-n '0'"),
        (["-n", "x", "1"], "-n 'x'"),
        (["--processes", "0", "1"], "--processes '0'"),
        (["-s", "1", "--", "true"], "-s does not go with a COMMAND"),
        (["--log", "x", "1"], "--log does not go with a STMT"),
    ],
)
def test_wrong_usage_is_one_sentence(cli: Cli, arguments: list[str], words: str) -> None:
    result = cli("bench", *arguments)
    assert result.returncode == 2
    assert_one_sentence(result, words)


def test_nothing_huge_is_a_failure_with_the_reason(cli: Cli) -> None:
    result = cli("bench", *QUICK, "1", PYHUGETEXT_EXCLUDE="*")
    assert result.returncode == 1
    assert_one_sentence(result, "no text came to lie on huge pages: excluded by a pattern")


# The terminal


def test_progress_is_shown_for_what_takes_longer_and_taken_away(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('not here')")
    plain = {"PYTHONPATH": str(tmp_path), "TERM": "xterm"}
    options = (*QUICK[:6], "--seconds", "2.5", "-s", "import time")
    shown = on_terminal(cli, "bench", *options, "time.sleep(0.0005)", **plain)
    assert re.search(
        r"\[[#-]+\] +\d+ % [12] s of 2 s \d s process 1 of 1", shown.replace("%", " %")
    )
    assert shown.endswith("\r\x1b[K")
    shown = on_terminal(cli, "bench", "--seconds", "2.5", "--", "sleep", "0.02", **plain)
    assert re.search(r"s of 2 s \d s run \d+", shown)


def test_lines_fit_a_narrow_terminal(cli: Cli) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pyhugetext", "bench", *QUICK, "sum(range(1000))"],
        env=cli.environment(COLUMNS="40"),
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert max(map(len, shown.splitlines())) <= 40
    assert "effect" in shown
    assert "\x1b" not in shown


def test_help_is_a_manual(cli: Cli) -> None:
    result = cli("bench", "--help")
    assert result.returncode == 0
    for words in ("examples:", "exit status:", "keys of --json:", "--backing", "-- COMMAND"):
        assert words in result.stdout
