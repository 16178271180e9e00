"""Every command that the README and the pages of docs show runs in a fresh environment, and prints
what they say but for the figures: `make docs-test`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import apart, documents
from support.common import WORKER, clean_environment
from support.running import run_command

COMMANDS = [command for page in documents.PAGES for command in documents.commands(page)]
PROGRAMS = Path(os.environ.get("DOCUMENTED_PROGRAMS") or Path(sys.executable).parent)


@pytest.fixture(scope="module", autouse=True)
def shared_memory() -> None:
    """The store in shared memory is not these commands' to look after."""
    if not WORKER and apart.possible():
        apart.enter()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents")


@pytest.fixture(scope="module")
def environ(place: Path) -> dict[str, str]:
    """A user's who has just installed it: a home with nothing in it."""
    home = place / "home"
    home.mkdir()
    environ = clean_environment(HOME=str(home))
    for name in ("XDG_CACHE_HOME", "PYHUGETEXT_BUILD_TIME"):
        environ.pop(name, None)
    return environ


@pytest.fixture(scope="module")
def as_documented(environ: dict[str, str]) -> bool:
    """Whether this machine is of the kind that the documents show: a store on disk."""
    asked = subprocess.run(
        [PROGRAMS / "python", "-m", "pyhugetext", "doctor", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return bool(json.loads(asked.stdout)["backing"] == "store")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.id)
def test_command(
    command: documents.Command, place: Path, environ: dict[str, str], as_documented: bool
) -> None:
    done = run_command(command, PROGRAMS, place, environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if as_documented:
        assert documents.looks_like(command.shown, done.stdout), done.stdout
