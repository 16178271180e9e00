"""uvicorn with workers, which are started anew and not forked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.ground import Ground
from support.servers import Kind, same_from_store, same_while_made

pytest.importorskip("uvicorn", reason="uvicorn is not installed")


def command(place: Path, port: int) -> list[str]:
    base = [sys.executable, "-m", "uvicorn", "--workers=2", "--host=127.0.0.1", f"--port={port}"]
    return [*base, "--no-access-log", "application:asgi"]


KINDS = {"workers": Kind(command, sometimes="Waiting for connections|Waiting for background")}


def test_it_runs_from_the_store_and_is_the_same_otherwise(warm: Ground) -> None:
    same_from_store(warm, KINDS["workers"])


def test_it_is_the_same_while_the_store_is_made(cold: Ground) -> None:
    same_while_made(cold, KINDS["workers"])
