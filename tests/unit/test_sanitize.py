"""The harness of `make sanitize`: what it takes for good."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.common import TESTS, script


@pytest.fixture
def run() -> Any:
    return script(TESTS / "sanitize/run.py")


@pytest.mark.parametrize(
    ("status", "last", "good"),
    [
        (0, "2 passed, 3 skipped in 1.00s", True),
        (0, "5 skipped in 1.00s", False),
        (1, "1 failed, 4 passed in 1.00s", False),
        (5, "no tests ran in 0.01s", False),
    ],
)
def test_tests_that_were_all_skipped_tell_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, last: str, good: bool
) -> None:
    ended = subprocess.CompletedProcess([], status, f"{last}\n", "")
    monkeypatch.setattr(run, "interpreter", lambda place: place / "python")
    monkeypatch.setattr(run, "call", lambda command, **options: ended)
    part = run.extension("undefined", tmp_path, tmp_path)
    assert part.good == good
    assert good or part.log
