"""gunicorn with four workers that load numpy themselves, in a group of 150 MiB."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support.ground import Ground
from support.groups import Group
from support.limits import MIB
from support.servers import EXAMPLES, Kind, Server

pytest.importorskip("gunicorn", reason="gunicorn is not installed")
WORKERS = 4


def kind(group: Group) -> Kind:
    def command(place: Path, port: int) -> list[str]:
        base = [sys.executable, "-m", "gunicorn", "-c", str(EXAMPLES / "gunicorn.conf.py")]
        return [*base, f"--workers={WORKERS}", f"--bind=127.0.0.1:{port}", "application"]

    return Kind(command, workers=WORKERS, prepare=group.enter)


class Told(NamedTuple):
    pss: float  # bytes, of a worker
    private: int  # bytes that all say to have copied
    covered: float  # of the coverable text


def memory_of(ground: Ground, group: Group, **settings: str) -> Told:
    group.limit(150 * MIB)
    server = Server(ground, kind(group), **settings)
    try:
        told = server.told()
        for _ in range(30):
            server.get("/work")
        total = sum(proportional(pid) for pid in told)
        assert server.stop() == 0
        assert group.killed == 0
        assert "SIGKILL" not in server.logged()
    finally:
        server.kill()
    sums = [sum(one["stats"][name] for one in told.values())
            for name in ("private_bytes", "mapped_bytes", "coverable_bytes")]  # fmt: skip
    return Told(total / WORKERS, sums[0], sums[1] / sums[2] if sums[2] else 0)


def proportional(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+)", rollup, re.M)
    assert found
    return int(found[1]) << 10


def test_workers_live_and_copy_nothing(warm: Ground, group: Group) -> None:
    """And take little more: a page of the store of which little is used is left."""
    plain = memory_of(warm, group, PYHUGETEXT="0")
    active = memory_of(warm, group)
    print(f"PSS of a worker: {plain.pss / MIB:.2f} MiB without, {active.pss / MIB:.2f} MiB with; "
          f"{active.covered:.0%} covered")  # fmt: skip
    assert active.private == 0
    # The interpreter. What else much is used of depends on the folios that files lie in: with large
    # ones a fault maps more.
    assert active.covered > 0.05
    assert active.pss - plain.pss <= 1.5 * MIB


def test_workers_live_while_the_store_is_made(cold: Ground, group: Group) -> None:
    memory_of(cold, group)
