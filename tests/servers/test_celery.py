"""Celery's worker with forked processes, over a broker made of files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from support.ground import LIMIT, Ground
from support.servers import Kind, Server, same_from_store, same_while_made

pytest.importorskip("celery", reason="celery is not installed")


class Worker(Server):
    """Asked by tasks; the client is a program that lives as long as it."""

    def __init__(self, *given: Any, **settings: str) -> None:
        super().__init__(*given, **settings)
        self.client = subprocess.Popen(
            [*self.ground.prefix(self.place), sys.executable, "celery_client.py"],
            env=self.ground.environment(PYHUGETEXT="0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def results(self, times: int, path: str) -> list[str]:
        assert self.client.stdin
        assert self.client.stdout
        self.client.stdin.write(f"{times} {path}\n")
        self.client.stdin.flush()
        answer = self.client.stdout.readline()
        assert answer, self.logged()
        results: list[str] = json.loads(answer)
        return results

    def get(self, path: str) -> str:
        return self.results(1, path)[0]

    def told(self, but: Iterable[int] = ()) -> dict[int, dict[str, Any]]:
        limit = time.monotonic() + LIMIT
        found: dict[int, dict[str, Any]] = {}
        while len(found) < self.kind.workers:
            assert time.monotonic() < limit, (sorted(found), self.logged())
            for text in self.results(2 * self.kind.workers, "/told"):
                one = json.loads(text)
                if one["pid"] not in but:
                    found[one["pid"]] = one
        return found

    def stop(self) -> int:
        self.client.communicate("")
        return super().stop()

    def kill(self) -> None:
        self.client.kill()
        self.client.wait()
        super().kill()

    def left(self) -> list[str]:
        """Results have names of their own."""
        return sorted({name.partition("/")[0] for name in super().left()})


def command(place: Path, port: int) -> list[str]:
    program = str(Path(sys.executable).with_name("celery"))  # which SIGHUP starts anew
    options = [
        "--concurrency=2",
        "--loglevel=WARNING",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    return [sys.executable, program, "-A", "celery_tasks", "worker", "--pool=prefork", *options]


CELERY = Kind(command, files=("celery_tasks.py", "celery_client.py"), server=Worker)


def test_it_runs_from_the_store_and_is_the_same_otherwise(warm: Ground) -> None:
    same_from_store(warm, CELERY)


def test_it_is_the_same_while_the_store_is_made(cold: Ground) -> None:
    same_while_made(cold, CELERY)
