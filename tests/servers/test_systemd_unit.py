"""The systemd unit of the examples: its restrictions, put together by hand, since a test cannot start
units everywhere."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.common import TESTS
from support.filters import needs_filters
from support.ground import Ground, ground
from support.huge_text import assert_from_store
from support.limits import PR_SET_MDWE, knows, set_process
from support.servers import APPLICATION, EXAMPLES, Kind, Server, free_port, lived

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

UNIT = EXAMPLES / "site.service"
SITE = Path("/srv/site")
USER = 61999  # of those that systemd gives to dynamic users; it has no name
# What the test does, for what the unit says.
RESTRICTIONS = {
    "DynamicUser": "yes",
    "CacheDirectory": "site",
    "MemoryDenyWriteExecute": "yes",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
}
# Before version 253 systemd forbids with a filter, later by prctl: here both.
NO_EXEC = """
import os, sys, harm
harm.install(harm.refuse_rule((harm.NUMBERS["mprotect"], (2, 4, True), 1)))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value.replace("%C", "/var/cache"))
    return found


def mounts(place: Path) -> str:
    """What such a service sees: its directories, a cache below /var/cache/private, no home, an empty
    /tmp, and nothing else that it could write to."""
    for name in ("site", "store"):
        (place / name).mkdir()
    os.chown(place / "store", USER, USER)
    return f"""
        mount -t tmpfs tmpfs /srv
        mkdir /srv/site /srv/venv
        mount --bind {place}/site /srv/site
        mount --bind {sys.prefix} /srv/venv
        cd {place}/store
        mkdir -m 755 /var/cache/private /var/cache/private/site
        mount --no-canonicalize --bind . /var/cache/private/site
        ln -s private/site /var/cache/site
        for hidden in /home /root /run/user; do
            test ! -d $hidden || mount -t tmpfs -o ro,mode=000 tmpfs $hidden
        done
        for private in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $private; done
    """


class Service(Server):
    def __init__(self, ground: Ground, kind: Kind, **more: str) -> None:
        self.ground, self.kind = ground, kind
        self.place = ground.place / "site"
        self.cache = self.place / "cache"
        shutil.copy(APPLICATION, self.place)
        self.port = free_port()
        self.log = ground.place / "log"
        environ = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        environ.update(line.split("=", 1) for line in settings()["Environment"])
        environ["GUNICORN_CMD_ARGS"] = f"--bind=127.0.0.1:{self.port}"
        (program,) = settings()["ExecStart"]
        shutil.copy(TESTS / "support/harm.py", self.place)
        refuse = ("/srv/venv/bin/python", "-S", "-c", NO_EXEC)
        become = (
            "setpriv",
            f"--reuid={USER}",
            f"--regid={USER}",
            "--clear-groups",
            "--no-new-privs",
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*ground.prefix(SITE), *refuse, *become, *shlex.split(program)],
                env={**environ, **more},
                preexec_fn=set_process(PR_SET_MDWE, 1),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def restricted() -> Iterator[Ground]:
    if not knows(PR_SET_MDWE, 1):
        pytest.skip("the kernel has no PR_SET_MDWE (6.3)")
    for home in ("/root/", "/home/"):
        if os.path.realpath(sys.executable).startswith(home):
            pytest.skip(f"the interpreter lies below {home}, which the unit hides")
    with ground(mounts) as made:
        yield made


def test_unit_says_what_the_test_does() -> None:
    assert {name: value for name, (value, *_) in settings().items() if name in RESTRICTIONS} == (
        RESTRICTIONS
    )


def test_unit_is_one_for_systemd(restricted: Ground) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze (systemd) is not installed")
    shutil.copy(UNIT, restricted.place / "site")
    command = [*restricted.prefix(SITE), "systemd-analyze", "verify", UNIT.name]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    os.remove(restricted.place / "site" / UNIT.name)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@needs_filters
def test_service_makes_its_store_and_runs_from_it(restricted: Ground) -> None:
    kind = Kind(lambda place, port: (), server=Service)
    store = "/var/cache/private/site/pyhugetext"

    def check(told: dict[int, dict[str, Any]]) -> None:
        for pid, one in told.items():
            assert one["uid"] == USER
            # Of the largest library the pages that are used.
            assert_from_store(pid, one["stats"], store, least=0.5)

    plain = lived(restricted, kind, PYHUGETEXT="0")
    assert not list((restricted.place / "store").rglob("pyhugetext"))
    assert lived(restricted, kind, PYHUGETEXT_BUILD_TIME="unlimited") == plain
    assert lived(restricted, kind, check) == plain
