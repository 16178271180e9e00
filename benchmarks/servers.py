"""What servers answer, and what their workers take of memory, with the package and without.

Run it by `make bench-servers`, as root: the servers are those of tests/servers, with a system's store
that is filled, in a mount namespace of their own. For each server three are started at a time: one
with the package and two without, of which the second is the control. They are asked in turns, for a
second each, by wrk where that is installed and by a client of Python's otherwise; the next round starts
new ones. A ratio is that of two neighbours in time, with its 95 % bootstrap interval, rounds drawn
before pairs: requests a second, more being better, and processor time of the workers for a request,
less being better. PSS is what /proc/PID/smaps_rollup says of the workers of a server that runs alone: a
page that several processes share counts once for all of them together.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyhugetext.measure.statistics import Ratio, ratio

os.environ["PYHUGETEXT"] = "0"  # of this process and what it starts, where it says nothing else
TESTS = Path(__file__).resolve().parents[1] / "tests"
SIDES = {"with": {}, "without": {"PYHUGETEXT": "0"}, "control": {"PYHUGETEXT": "0"}}
HTTP = ("gunicorn", "uvicorn", "uwsgi", "mod_wsgi")


@dataclass(frozen=True)
class Row:
    """A server. Sizes in bytes; ratios are those with the package to those without it."""

    name: str
    workers: int
    coverage: float  # of the coverable text of a worker
    pss_with: float  # of a worker
    pss_without: float
    private: int  # copied, in all workers together
    requests: Ratio
    requests_control: Ratio
    processor: Ratio
    processor_control: Ratio


@dataclass(frozen=True)
class Memory:
    """Of the workers of one server: bytes of PSS of one, the least coverage, bytes copied by all."""

    pss: float
    coverage: float
    private: int


@dataclass(frozen=True)
class Turn:
    """What one server did in a second."""

    rate: float  # requests a second
    cost: float  # seconds of processor time for a request


def kinds() -> dict[str, Any]:
    """How servers are started, by name; says which are not installed."""
    skipping: Any = importlib.import_module("pytest").skip.Exception
    found: dict[str, Any] = {}
    for name in HTTP:
        file = TESTS / "servers" / f"test_{name}.py"
        spec = importlib.util.spec_from_file_location(f"servers_{name}", file)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except skipping as skipped:
            print(f"{name}: left out: {skipped}")
            continue
        for variant, kind in module.KINDS.items():
            found[f"{name} {variant}".strip()] = kind
    return found


def ask(port: int, seconds: int) -> tuple[int, float]:
    """Asks for so long; how many answers there were, and the time that they took."""
    if shutil.which("wrk"):
        command = ("wrk", "-t1", "-c4", f"-d{seconds}s", f"http://127.0.0.1:{port}/work")
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", told)
        if not found or "Non-2xx" in told:
            raise RuntimeError(told)
        return int(found[1]), float(found[2]) / (1000 if found[3] == "ms" else 1)
    began, answers = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/work")
        if connection.getresponse().status != 200:
            raise RuntimeError("not answered with 200")
        connection.close()
        answers += 1
    return answers, time.perf_counter() - began


def processor_time(pids: Sequence[int]) -> float:
    """Seconds that all threads of these processes have run."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def proportional(pid: int) -> int:
    found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found
    return int(found[1]) << 10


def measure(name: str, kind: Any, ground: Any, rounds: int, turns: int, seconds: int) -> Row:
    servers = importlib.import_module("support.servers")
    order = random.Random(1)
    pairs: dict[str, list[tuple[float, float]]] = {}
    groups: list[int] = []
    memory = {side: memory_of(kind, ground, seconds, side) for side in ("with", "without")}
    for number in range(rounds):
        started = {side: servers.Server(ground, kind, **env) for side, env in SIDES.items()}
        try:
            told = {side: server.told() for side, server in started.items()}
            for _ in range(turns):
                done: dict[str, Turn] = {}
                for side in order.sample(list(SIDES), len(SIDES)):
                    before = processor_time(list(told[side]))
                    answers, took = ask(started[side].port, seconds)
                    spent = processor_time(list(told[side])) - before
                    done[side] = Turn(answers / took, spent / answers)
                for side in ("with", "control"):
                    pairs.setdefault(f"rate {side}", []).append(
                        (done[side].rate, done["without"].rate)
                    )
                    pairs.setdefault(f"cost {side}", []).append(
                        (done[side].cost, done["without"].cost)
                    )
                groups.append(number)
            for server in started.values():
                server.stop()
        finally:
            for server in started.values():
                server.kill()
    ratios = {what: ratio(found, groups=groups) for what, found in pairs.items()}
    return Row(
        name, kind.workers, memory["with"].coverage, memory["with"].pss, memory["without"].pss,
        memory["with"].private,
        ratios["rate with"], ratios["rate control"], ratios["cost with"], ratios["cost control"],
    )  # fmt: skip


def memory_of(kind: Any, ground: Any, seconds: int, side: str) -> Memory:
    """Of a server alone: others would share what they have in common."""
    server = importlib.import_module("support.servers").Server(ground, kind, **SIDES[side])
    try:
        told = server.told()
        ask(server.port, seconds)
        pss = sum(proportional(pid) for pid in told) / len(told)
        stats = [one["stats"] for one in told.values()]
        coverage = min(one["mapped_bytes"] / max(one["coverable_bytes"], 1) for one in stats)
        server.stop()
    finally:
        server.kill()
    return Memory(pss, coverage, sum(one["private_bytes"] for one in stats))


def line(row: Row) -> str:
    mib = 1 << 20
    return (
        f"{row.name:24} {row.coverage:8.1%} {row.pss_with / mib:9.1f} {row.pss_without / mib:8.1f}"
        f" {row.private / mib:8.1f}  {row.requests!s:28} {row.requests_control!s:28}"
        f" {row.processor!s:28} {row.processor_control!s}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="servers whose names begin so")
    parser.add_argument("--rounds", type=int, default=5, help="new servers")
    parser.add_argument("--turns", type=int, default=6, help="of each server in a round")
    parser.add_argument("--seconds", type=int, default=1, help="of a turn")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    try:
        wanted = {
            name: kind
            for name, kind in kinds().items()
            if not options.only or name.startswith(tuple(options.only))
        }
    except ImportError as error:
        parser.error(f"run it by make bench-servers: {error}")
    rows = []
    print(
        f"{'server':24} {'coverage':>8} {'PSS with':>9} {'without':>8} {'private':>8}"
        f"  {'requests a second':28} {'control':28} {'processor time':28} control"
    )
    with importlib.import_module("support.ground").ground() as ground:
        ground.warm()
        for name, kind in wanted.items():
            rows.append(measure(name, kind, ground, options.rounds, options.turns, options.seconds))
            print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
