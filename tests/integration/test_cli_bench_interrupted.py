"""`pyhugetext bench` that a signal ends: what was measured is told, and nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyhugetext.measure.measurement import Measurement
from support.bench import QUICK, is_gone, mark
from support.cli import Cli, wait_for

pytestmark = pytest.mark.usefixtures("huge_memfd")


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
        assert "\nsmall " in output
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
    assert output.splitlines()[-2].startswith("no verdict: ")
    for pid in runs.read_text().split():
        wait_for(lambda pid=pid: is_gone(int(pid)))  # type: ignore[misc]
