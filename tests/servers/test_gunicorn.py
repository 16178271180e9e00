"""gunicorn: workers that load the application themselves, those that inherit it, and those that become
another user."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.ground import SERVICE, Ground
from support.servers import EXAMPLES, Kind, same_from_store, same_while_made

pytest.importorskip("gunicorn", reason="gunicorn is not installed")


def gunicorn(*options: str, user: str = "") -> Kind:
    def command(place: Path, port: int) -> list[str]:
        base = [sys.executable, "-m", "gunicorn", "-c", str(EXAMPLES / "gunicorn.conf.py")]
        return [*base, f"--bind=127.0.0.1:{port}", *options, "application"]

    return Kind(command, user=user)


KINDS = {
    "lazy": gunicorn(),
    "preload": gunicorn("--preload"),
    "service user": gunicorn(f"--user={SERVICE}", f"--group={SERVICE}", user=SERVICE),
}
each = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@each
def test_it_runs_from_the_store_and_is_the_same_otherwise(kind: Kind, warm: Ground) -> None:
    same_from_store(warm, kind)


@each
def test_it_is_the_same_while_the_store_is_made(kind: Kind, cold: Ground) -> None:
    same_while_made(cold, kind)
