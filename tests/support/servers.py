"""Servers that are started for real, and asked by HTTP."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.common import ROOT, TESTS
from support.ground import LIMIT, Ground, nothing_left, public, require_readable_by
from support.huge_text import assert_from_store

APPLICATION = TESTS / "servers" / "application.py"
EXAMPLES = ROOT / "examples"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Kind:
    """How one server is started and told what to do. `command(directory, port)`."""

    command: Callable[[Path, int], Sequence[str]]
    workers: int = 2
    reload: signal.Signals | None = signal.SIGHUP  # None: by a new program
    status: int = 0  # that it ends with
    user: str = ""  # that it becomes
    host: tuple[str, ...] = ()  # its program, where no store can serve it
    logs: Sequence[str] = ()  # that it writes beside its stderr
    sometimes: str = "(?!)"  # lines of its log that depend on the moment, as a pattern
    prepare: Callable[[], None] | None = None  # before it starts, in its process
    files: Sequence[str] = ()  # of tests/servers, that it has beside it
    server: Callable[..., Server] = lambda *given, **settings: Server(*given, **settings)


class Server:
    def __init__(self, ground: Ground, kind: Kind, **settings: str) -> None:
        self.kind, self.ground = kind, ground
        if kind.user:
            require_readable_by(kind.user)
        self.place = public(ground.place)
        for name in (APPLICATION.name, *kind.files):
            shutil.copy(APPLICATION.with_name(name), self.place)
        if kind.user:
            shutil.chown(self.place, kind.user, kind.user)
        self.port = free_port()
        self.log = self.place / "log"
        self.cache = self.place / "cache"  # where it may make a store
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*ground.prefix(self.place), *kind.command(self.place, self.port)],
                env=ground.environment(XDG_CACHE_HOME=str(self.cache), **settings),
                preexec_fn=kind.prepare,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def logged(self) -> str:
        """Without the tests' own paths, which have the package's name in them."""
        logs = (self.log, *(self.place / name for name in self.kind.logs))
        return without_paths("".join(log.read_text() for log in logs if log.exists()), self.place)

    def get(self, path: str) -> str:
        """Of whichever worker answers; waits until one does."""
        limit = time.monotonic() + LIMIT
        while True:
            assert self.process.poll() is None, self.logged()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT / 2)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read().decode()
            except (ConnectionError, TimeoutError, http.client.HTTPException):
                assert time.monotonic() < limit, self.logged()
                time.sleep(0.02)
                continue
            finally:
                connection.close()
            assert response.status == 200, body + self.logged()
            return body

    def told(self, but: Iterable[int] = ()) -> dict[int, dict[str, Any]]:
        """What each worker tells of itself, by its process; waits until those in `but` are gone."""
        limit = time.monotonic() + LIMIT
        found: dict[int, dict[str, Any]] = {}
        with concurrent.futures.ThreadPoolExecutor(2 * self.kind.workers) as pool:
            while len(found) < self.kind.workers:
                assert time.monotonic() < limit, (sorted(found), self.logged())
                for text in pool.map(self.get, ["/told"] * 2 * self.kind.workers):
                    one = json.loads(text)
                    if one["pid"] not in but:
                        found[one["pid"]] = one
        return found

    def reload(self) -> None:
        if self.kind.reload is None:
            os.utime(self.place / APPLICATION.name)
        else:
            self.process.send_signal(self.kind.reload)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(LIMIT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.place)

    def left(self) -> list[str]:
        """Its files once it has ended, but those of a store."""
        if self.ground.filled:
            assert not self.cache.exists()
        assert not list(self.cache.glob("*/v1/tmp/*"))
        shutil.rmtree(self.cache, ignore_errors=True)
        return sorted(str(path.relative_to(self.place)) for path in self.place.rglob("*"))


def without_paths(text: str, place: Path) -> str:
    for path, name in ((place, "PLACE"), (sys.prefix, "PREFIX"), (ROOT, "ROOT")):
        text = text.replace(str(path), name)
    return text


def normal(log: str) -> set[str]:
    """The lines of a log without what differs from start to start."""
    return {re.sub(r"\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b", "0", line) for line in log.splitlines()}


@dataclass(frozen=True)
class Outcome:
    """What may not differ with and without the package."""

    answers: set[str]
    status: int
    log: set[str]
    left: list[str]


Check = Callable[[dict[int, dict[str, Any]]], None]


def lived(ground: Ground, kind: Kind, check: Check = lambda told: None, **settings: str) -> Outcome:
    """A server's life: it answers, is asked of its workers, loads its program anew, answers, ends."""
    with nothing_left(ground):
        server = kind.server(ground, kind, **settings)
        try:
            answers = {server.get("/work") for _ in range(3)}
            first = server.told()
            check(first)
            server.reload()
            second = server.told(but=first)
            check(second)
            answers |= {server.get("/work") for _ in range(3)}
            status = server.stop()
            logged = server.logged()
            left = server.left()
        finally:
            server.kill()
    assert "hugetext" not in logged, logged
    log = {line for line in normal(logged) if not re.search(kind.sometimes, line)}
    return Outcome(answers, status, log, left)


def assert_same(active: Outcome, plain: Outcome) -> None:
    """Names the lines that only one of them has logged, of which pytest would show the beginning."""
    assert (active.log - plain.log, plain.log - active.log) == (set(), set())
    assert active == plain


def same_from_store(warm: Ground, kind: Kind, **settings: str) -> None:
    """Off and on, it is the same to whoever asks, and its workers run from the store, each object told
    of once."""

    def check(told: dict[int, dict[str, Any]]) -> None:
        for pid, one in told.items():
            assert one["uid"] == uid_of(kind.user)
            assert_from_store(pid, one["stats"], str(warm.store), but=kind.host)
            told_once(one["stats"])

    plain = lived(warm, kind, PYHUGETEXT="0")
    assert plain.status == kind.status
    assert_same(lived(warm, kind, check, **settings), plain)


def told_once(stats: dict[str, Any]) -> None:
    """By one engine, also where two came into the process."""
    places = [region["start"] for region in stats["regions"]]
    assert len(places) == len(set(places))


def same_while_made(cold: Ground, kind: Kind) -> None:
    """Also where it starts without a store and makes one, or cannot."""
    assert_same(lived(cold, kind), lived(cold, kind, PYHUGETEXT="0"))


def uid_of(user: str) -> int:
    return pwd.getpwnam(user).pw_uid if user else os.geteuid()
