"""The harness of `make sanitize`: what it takes for good."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.common import TESTS


@pytest.fixture
def run() -> Any:
    spec = importlib.util.spec_from_file_location("sanitize_run", TESTS / "sanitize/run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
