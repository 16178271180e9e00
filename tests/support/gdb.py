"""Whether gdb works here at all: on a process that we have nothing to do with."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from support.common import clean_environment, tool

# It stops, looks, writes registers for a call, and goes on: what the tests do.
SCRIPT = (
    "set breakpoint pending on",
    "set confirm off",
    "break getppid",
    "run",
    "delete",
    "backtrace",
    "call (int) getpid()",
    "continue",
)


@functools.lru_cache
def _answer(program: str) -> str:
    commands = [word for line in SCRIPT for word in ("-ex", line)]
    child = [sys.executable, "-S", "-c", "import os; os.getppid()"]
    result = subprocess.run(
        [program, "-nx", "-batch", *commands, "--args", *child],
        env=clean_environment(DEBUGINFOD_URLS="", PYHUGETEXT="0"),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    output = result.stdout + result.stderr
    if "$1 = " in output and "exited normally" in output:
        return ""
    lines = (result.stderr.strip() or result.stdout.strip() or "?").splitlines()
    return f"gdb fails on a process without us, too: {lines[-1]}"


def working_gdb() -> str:
    """The path of gdb; skips the test where it cannot control even a plain Python."""
    program = tool("gdb")
    if reason := _answer(program):
        pytest.skip(reason)
    return program
