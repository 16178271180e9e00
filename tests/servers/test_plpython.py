"""PostgreSQL's plpython3u: an interpreter that is loaded into a server's process in the middle of its
life."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.bench import is_gone
from support.cli import wait_for
from support.ground import (
    LIMIT,
    Ground,
    nothing_left,
    public,
    require_readable_by,
    require_this_python,
)
from support.huge_text import assert_from_store
from support.preloaded import preload_library
from support.servers import APPLICATION, normal, told_once

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/lib/plpython3.so"))
if not PROGRAMS:
    pytest.skip(
        "PostgreSQL with plpython3u is not installed: postgresql-plpython3-15",
        allow_module_level=True,
    )
BIN = PROGRAMS[-1].parents[1] / "bin"
require_this_python(PROGRAMS[-1])
if "postgres" not in (user.pw_name for user in pwd.getpwall()):
    pytest.skip("there is no user postgres", allow_module_level=True)

FUNCTIONS = """
CREATE EXTENSION plpython3u;
CREATE FUNCTION call(name text) RETURNS text LANGUAGE plpython3u AS $$
    import sys
    sys.path.insert(0, '{place}')
    import application
    return getattr(application, name)()
$$;
"""


class Postgres:
    """A cluster of its own, reached by a socket in its directory."""

    def __init__(self, ground: Ground, **settings: str) -> None:
        require_readable_by("postgres")
        self.ground = ground
        self.place = public(ground.place)
        shutil.copy(APPLICATION, self.place)
        shutil.chown(self.place, "postgres", "postgres")
        self.environment = ground.environment(
            XDG_CACHE_HOME=str(self.place / "cache"), LC_ALL="C.UTF-8", **settings
        )
        self.prefix = (
            *ground.prefix(self.place), "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
        )  # fmt: skip
        self.data = str(self.place / "data")
        make = (f"{BIN}/initdb", "--no-sync", "--auth=trust", "--pgdata", self.data)
        subprocess.run([*self.prefix, *make], env=self.environment, check=True, capture_output=True)
        self.log = self.place / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.prefix, f"{BIN}/postgres", "-D", self.data, "-k", str(self.place), "-h", ""],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ready = (f"{BIN}/pg_isready", "--quiet", "--timeout=60", "-h", str(self.place))
        while subprocess.run([*self.prefix, *ready], env=self.environment, check=False).returncode:
            assert self.process.poll() is None, self.log.read_text()

    def client(self) -> subprocess.Popen[str]:
        """A connection, which has a process of the server to itself."""
        options = ("--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "-v", "ON_ERROR_STOP=1")
        command = [*self.prefix, f"{BIN}/psql", *options, "-h", str(self.place), "postgres"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            env=self.environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            bufsize=1,
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(LIMIT)


def ask(client: subprocess.Popen[str], name: str) -> str:
    assert client.stdin
    assert client.stdout
    assert client.stderr
    client.stdin.write(f"SELECT call('{name}');\n")
    client.stdin.flush()
    answer = client.stdout.readline()
    assert answer, client.stderr.read()
    return answer


@contextmanager
def postgres(ground: Ground, **settings: str) -> Iterator[Postgres]:
    with nothing_left(ground):
        made = Postgres(ground, **settings)
        try:
            yield made
        finally:
            made.process.kill()
            made.process.wait()
            shutil.rmtree(made.place)


def lived(ground: Ground, **settings: str) -> tuple[list[dict[str, Any]], Any]:
    """What the processes of two connections told, and all that may not differ."""
    told, outcome = [], []
    with postgres(ground, **settings) as server:
        for reload in (False, True):
            if reload:
                server.process.send_signal(signal.SIGHUP)
            with server.client() as client:
                if not reload:
                    assert client.stdin
                    client.stdin.write(FUNCTIONS.format(place=server.place))
                outcome += [ask(client, "work") for _ in range(2)]
                one = json.loads(ask(client, "told"))
                told.append(one)
                if ground.filled and "PYHUGETEXT" not in settings:
                    assert_from_store(
                        one["pid"], one["stats"], str(ground.store), but=("postgres",)
                    )
                outcome.append(client.communicate()[1])
            # One that is still there when the server stops says that it was ended.
            wait_for(lambda: is_gone(told[-1]["pid"]))
        outcome.append(server.stop())
        lines = server.log.read_text().replace(str(server.place), "PLACE").splitlines()
        log = "\n".join(line for line in lines if "is starting up" not in line)  # to who came early
        assert "hugetext" not in log
        left = sorted(os.listdir(server.place))
        if ground.filled:
            assert "cache" not in left
    return told, [*outcome, normal(log), [name for name in left if name != "cache"]]


def test_it_runs_from_the_store_and_is_the_same_otherwise(warm: Ground) -> None:
    _, plain = lived(warm, PYHUGETEXT="0")
    told, active = lived(warm)
    assert active == plain
    assert {one["uid"] for one in told} == {pwd.getpwnam("postgres").pw_uid}
    assert len({one["pid"] for one in told}) == 2
    # Each connection would have a copy of the server's own text.
    assert [one["stats"]["private_bytes"] for one in told] == [0, 0]


@pytest.mark.usefixtures("huge_memfd")
def test_it_is_the_same_in_a_preloaded_server(warm: Ground) -> None:
    """The engine that the server started with takes over; of its own text it has the one copy that all
    its processes share."""
    _, plain = lived(warm, PYHUGETEXT="0")
    told, active = lived(warm, LD_PRELOAD=str(preload_library()), PYHUGETEXT_BUILD_TIME="5s")
    assert active == plain
    for one in told:
        told_once(one["stats"])
        [server] = own_regions(one["stats"], "postgres")
        assert server["backing"] == "memfd"
        assert server["mapped_bytes"] > 0
        assert one["stats"]["private_bytes"] == 0
    [first, second] = [[r["start"] for r in own_regions(one["stats"], "postgres")] for one in told]
    assert first == second


def own_regions(stats: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [r for r in stats["regions"] if os.path.basename(r["path"]) == name]


def test_it_is_the_same_while_the_store_is_made(cold: Ground) -> None:
    assert lived(cold)[1] == lived(cold, PYHUGETEXT="0")[1]
