"""Commands of the README and of docs that take no time run, and print what the documents say. All of
them, in an environment of their own: `make docs-test`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support import documents
from support.common import clean_environment
from support.running import run_command

QUICK = [
    command for page in documents.PAGES for command in documents.commands(page) if command.quick
]


@pytest.mark.parametrize("command", QUICK, ids=lambda command: command.id)
def test_command_runs(command: documents.Command, tmp_path: Path) -> None:
    done = run_command(command, Path(sys.executable).parent, tmp_path, clean_environment())
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
