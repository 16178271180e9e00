"""The harnesses that have a target of their own, run as a program for a moment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.common import TESTS, clean_environment


def run_harness(script: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a script below tests with this Python. Skips where it says that it skipped."""
    result = subprocess.run(
        [sys.executable, str(TESTS / script), *arguments],
        env=clean_environment(PYHUGETEXT="0", **settings),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if "skipped: " in result.stdout:
        pytest.skip(result.stdout.strip())
    return result
