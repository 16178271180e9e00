"""loky's processes, which are started anew and not forked."""

from __future__ import annotations

import sys

import pytest

from support.ground import Ground
from support.watched import program, same_from_store, same_while_made

pytest.importorskip("loky", reason="loky is not installed")
COMMAND = (sys.executable, str(program("loky")))


def test_it_runs_from_the_store_and_is_the_same_otherwise(warm: Ground) -> None:
    status, printed, errors, _ = same_from_store(warm, COMMAND, workers=2)
    assert (status, len(set(printed)), errors) == (3, 1, "")


def test_it_is_the_same_while_the_store_is_made(cold: Ground) -> None:
    same_while_made(cold, COMMAND)
