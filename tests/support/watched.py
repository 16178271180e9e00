"""Runs the programs of support.programs, with and without the package."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.common import TESTS
from support.ground import Ground, nothing_left, public
from support.huge_text import assert_from_store
from support.programs import STOP
from support.servers import APPLICATION, without_paths

Look = Callable[[list[dict[str, Any]]], None]
Outcome = tuple[int, list[str], str, list[str]]


def watched(ground: Ground, command: Sequence[str], look: Look, **settings: str) -> Outcome:
    """Exit status, what was printed, what was said on stderr, what was left. `look` sees what the
    workers tell of themselves while they wait."""
    place = public(ground.place)
    shutil.copy(APPLICATION, place)
    cache = place / "cache"
    path = f"{place}:{TESTS}"
    environ = ground.environment(XDG_CACHE_HOME=str(cache), PYTHONPATH=path, **settings)
    pipe = subprocess.PIPE
    with nothing_left(ground), subprocess.Popen(
        [*ground.prefix(place), *command],
        env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdin
        printed: list[str] = []
        told: list[dict[str, Any]] = []
        for line in process.stdout:
            if line.startswith("{"):
                told.append(json.loads(line))
            elif line == f"{STOP}\n":
                look(told)
                told = []
                process.stdin.write("\n")
            else:
                printed.append(line)
        errors = process.communicate()[1]
    errors = without_paths(errors, place)
    assert "hugetext" not in errors
    assert not (ground.filled and cache.exists())
    assert not list(cache.glob("*/v1/tmp/*"))
    shutil.rmtree(cache, ignore_errors=True)
    left = sorted(str(file.relative_to(place)) for file in place.rglob("*"))
    shutil.rmtree(place)
    return process.returncode, printed, errors, left


def same_from_store(warm: Ground, command: Sequence[str], workers: int, **settings: str) -> Outcome:
    """Off and on the program does the same, and so many workers at a time run from the store."""
    seen: list[int] = []

    def look(told: list[dict[str, Any]]) -> None:
        assert len(told) == workers
        for one in told:
            assert_from_store(one["pid"], one["stats"], str(warm.store))
            seen.append(one["pid"])

    plain = watched(warm, command, lambda told: None, PYHUGETEXT="0")
    assert watched(warm, command, look, **settings) == plain
    assert len(seen) >= 2 * workers
    return plain


def same_while_made(cold: Ground, command: Sequence[str], **settings: str) -> None:
    plain = watched(cold, command, lambda told: None, PYHUGETEXT="0")
    assert watched(cold, command, lambda told: None, **settings) == plain


def program(name: str) -> Path:
    return APPLICATION.with_name(f"{name}_program.py")
