"""A Jupyter kernel: cells, an interrupt, a restart."""

from __future__ import annotations

import sys

import pytest

from support.ground import Ground
from support.watched import program, same_from_store, same_while_made

pytest.importorskip("ipykernel", reason="ipykernel is not installed")
pytest.importorskip("jupyter_client", reason="jupyter_client is not installed")
COMMAND = (sys.executable, str(program("ipykernel")))


def test_it_runs_from_the_store_and_is_the_same_otherwise(warm: Ground) -> None:
    status, printed, _, _ = same_from_store(warm, COMMAND, workers=1)
    assert status == 3
    assert "KeyboardInterrupt" in printed[1]


def test_it_is_the_same_while_the_store_is_made(cold: Ground) -> None:
    same_while_made(cold, COMMAND)
