"""That `make inject` lets calls of ours fail, and sees a program that notices."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from support.harness import run_harness

injected = partial(run_harness, "siege/inject.py")


def test_a_handful_of_calls_fail_and_nothing_differs(tmp_path: Path) -> None:
    result = injected("--only", "memfd", "--part", "7/60", TMPDIR=str(tmp_path))
    assert os.listdir(tmp_path) == []
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    last = result.stdout.splitlines()[-1]
    assert " calls of ours failed" in last
    assert "0 differences" in last
    assert ": 0 calls of ours failed" not in last


def test_a_program_that_notices_is_seen() -> None:
    """One that says more than it should once a call of ours has failed."""
    result = injected("--only", "memfd", "--part", "0/500", INJECT_BROKEN="1")
    assert result.returncode == 1, result.stdout
    assert "DIFFERENT memfd" in result.stdout


def test_an_unknown_scene_is_a_usage_error() -> None:
    result = injected("--only", "nothing")
    assert result.returncode == 2
    assert "allowed: store-cold" in result.stderr
