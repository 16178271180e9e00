"""A C program that starts a Python and ends it, three times."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support.common import TESTS, tool
from support.ground import Ground
from support.watched import same_from_store, same_while_made

# numpy can be imported by one Python of a process.
FIRST = """
import application
from support.programs import pause, say
print(application.work())
say([application.told()])
pause()
"""
LATER = """
import json, os, pyhugetext
from support.programs import pause, say
print(sorted(str(i)[::-1] for i in range(3000))[:3])
say([json.dumps({"pid": os.getpid(), "stats": pyhugetext.stats().as_dict()})])
pause()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linked with the shared library of this Python."""
    directory = sysconfig.get_config_var("LIBDIR")
    name = f"python{sysconfig.get_config_var('LDVERSION')}"
    target = tmp_path_factory.mktemp("embedding") / "embedding"
    command = [
        tool("cc", "gcc", "clang"), "-o", target, TESTS / "servers/embedding.c",
        f"-I{sysconfig.get_path('include')}", f"-L{directory}", f"-Wl,-rpath,{directory}", f"-l{name}",
    ]  # fmt: skip
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"there is no shared library of this Python: {made.stderr.splitlines()[0]}")
    return target


def command(program: Path) -> list[str]:
    return [str(program), sys.executable, FIRST, LATER, LATER]


def test_it_runs_from_the_store_and_is_the_same_otherwise(warm: Ground, program: Path) -> None:
    status, printed, errors, _ = same_from_store(warm, command(program), workers=1)
    assert (status, errors) == (3, "")
    assert [line for line in printed if line.startswith("round")] == [
        "round 1: 0\n", "round 2: 0\n", "round 3: 0\n",
    ]  # fmt: skip


def test_it_is_the_same_while_the_store_is_made(cold: Ground, program: Path) -> None:
    same_while_made(cold, command(program))
