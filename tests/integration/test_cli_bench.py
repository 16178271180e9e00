"""`pyhugetext bench`, used as from a shell."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.measure.measurement import Measurement
from support.cli import Cli, assert_one_sentence, make_library, make_module, on_terminal, wait_for
from support.layouts import skip_unless_huge

# A private backing is there wherever huge pages are, whatever the file system.
QUICK = ("--backing", "memfd", "--processes", "1", "--slot", "0.005", "--seconds", "0.3")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    skip_unless_huge("memfd")
    return Cli(tmp_path / "store")


def mark(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


def is_gone(pid: int) -> bool:
    """Whether a process has ended; who takes care of orphans may take its time to bury it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


# A statement


def test_statement_is_told_with_ratio_control_and_verdict(cli: Cli) -> None:
    result = cli("bench", *QUICK, "-s", "d = {}", "for i in range(50):", "    d[i] = str(i)")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["small", "huge", "effect", "control"]
    for line in lines[2:4]:
        assert re.search(r" \d\.\d{4} \(\d\.\d{4} to \d\.\d{4}\)  ", line)
    assert "backing memfd" in result.stdout
    assert re.match(r"(faster by|slower by|no difference shown|no verdict)", lines[-1])


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


# A command


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
    assert "noise" not in result.stdout
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
    assert result.stdout.startswith("small ")


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


# Ctrl-C and its like


def start(cli: Cli, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pyhugetext", "bench", *arguments],
        env=cli.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("json_wanted", [False, True])
def test_interrupted_statement_tells_what_was_measured(
    cli: Cli, tmp_path: Path, json_wanted: bool
) -> None:
    marker, pids = tmp_path / "marker", tmp_path / "pids"
    setup = (
        "import os, subprocess; n = 0; child = subprocess.Popen(['sleep', '1000']); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')"
    )
    process = start(
        cli, *QUICK[:6], "--seconds", "600", *(["--json"] if json_wanted else []), "-s", setup,
        "n += 1", "sum(range(1000))", f"if n == 20_000: {mark(marker)}",
    )  # fmt: skip
    wait_for(lambda: marker.exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGINT)  # an impatient one
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == "pyhugetext bench: interrupted; this is what was measured until then\n"
    if json_wanted:
        found = Measurement.from_dict(json.loads(output))
        assert found.settings["interrupted"] is True
        assert found.effect.pairs >= 1
    else:
        assert output.startswith("small ")
    for pid in pids.read_text().split():
        wait_for(lambda pid=pid: is_gone(int(pid)))  # type: ignore[misc]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_before_anything_was_measured_leaves_nothing(
    cli: Cli, tmp_path: Path, number: signal.Signals
) -> None:
    pids = tmp_path / "pids"
    setup = (
        "import os, subprocess, time; child = subprocess.Popen(['sleep', '1000']); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}\\n'); time.sleep(600)"
    )
    process = start(cli, *QUICK, "-s", setup, "1")
    wait_for(lambda: pids.exists() and pids.read_text().endswith("\n"))
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert output == ""
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert errors == "pyhugetext bench: interrupted before anything was measured\n"
    for pid in pids.read_text().split():
        wait_for(lambda pid=pid: is_gone(int(pid)))  # type: ignore[misc]


def test_interrupted_command_is_killed_and_told(cli: Cli, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    # The eighteenth run does not end: by then two quads were measured.
    script = f"sleep 1000 & echo $$ $! >> {runs}; test $(wc -l < {runs}) -lt 18 || wait"
    process = start(cli, "--seconds", "600", "--", "sh", "-c", script)
    wait_for(lambda: runs.exists() and runs.read_text().count("\n") >= 18)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "this is what was measured until then" in errors
    assert output.splitlines()[-1].startswith("no verdict: ")
    for pid in runs.read_text().split():
        wait_for(lambda pid=pid: is_gone(int(pid)))  # type: ignore[misc]


# The terminal


def test_progress_is_shown_for_what_takes_longer_and_taken_away(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('not here')")
    plain = {"PYTHONPATH": str(tmp_path), "TERM": "xterm"}
    shown = on_terminal(cli, "bench", *QUICK[:6], "--seconds", "2.5", "sum(range(1000))", **plain)
    assert re.search(
        r"\[[#-]+\] +\d+ % [12] s of 2 s \d s process 1 of 1", shown.replace("%", " %")
    )
    assert shown.endswith("\r\x1b[K")
    shown = on_terminal(
        cli, "bench", "--seconds", "2.5", "--", sys.executable, "-Sc", "sum(range(10_000))", **plain
    )
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
