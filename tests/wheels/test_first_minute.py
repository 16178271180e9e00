"""A newcomer's first minute, with Python, pip and the wheel, and no compiler. What it takes is printed, and
makes no test fail: `make wheels PYTEST_ARGS="-s -k minute"` shows it."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.common import PREFIX, STRANGER
from support.wheels import DIST, PYTHONS

ROUNDS = int(os.environ.get("ROUNDS", "5"))

if not PYTHONS:
    pytest.skip(f"no wheels in {DIST}: make wheels builds them", allow_module_level=True)

# Debian's before others: what most newcomers have.
PYTHON = next((python for python in PYTHONS if python.path.startswith("/usr/bin/")), PYTHONS[0])


class Taken(NamedTuple):
    """Seconds by the clock, and of processors, children too."""

    wall: float
    cpu: float
    printed: str


class Newcomer:
    """Somebody with a home and nothing else; root, or a user without rights."""

    def __init__(self, home: Path, *prefix: str) -> None:
        self.home = home
        self._prefix = prefix
        self._environment = {
            "HOME": str(home),
            "PATH": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(self, *words: str | Path) -> Taken:
        began = time.monotonic()
        child = subprocess.Popen(
            [*self._prefix, *map(str, words)],
            env=self._environment,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert child.stdout is not None
        printed = child.stdout.read()
        # Of this child alone: the resources of all children are those of other tests, too.
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stdout.close()
        assert child.returncode == 0, printed
        return Taken(time.monotonic() - began, used.ru_utime + used.ru_stime, printed)


@pytest.fixture(params=["root", "user"])
def newcomer(request: pytest.FixtureRequest) -> Iterator[Newcomer]:
    if os.geteuid() and request.param == "root":
        pytest.skip("needs root")
    home = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    try:
        prefix: tuple[str, ...] = ()
        if request.param == "user" and not os.geteuid():
            if not shutil.which("setpriv"):
                pytest.skip("setpriv (util-linux) is not installed")
            os.chown(home, STRANGER, STRANGER)
            who = (f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups")
            prefix = (shutil.which("setpriv") or "", *who, "/usr/bin/env")
        yield Newcomer(home, *prefix)
    finally:
        shutil.rmtree(home)


def test_first_minute(newcomer: Newcomer) -> None:
    files = newcomer.home / "files"
    files.mkdir(mode=0o755)
    for wheel in DIST.glob("*.whl"):
        shutil.copy(wheel, files)
    took: dict[str, list[Taken]] = {"venv": [], "pip install": [], "pyhugetext": []}
    for number in range(ROUNDS):
        place = newcomer.home / f"venv{number}"
        python = place / "bin" / "python"
        install = ("-m", "pip", "install", "--no-index", "--find-links", files, "pyhugetext")
        took["venv"].append(newcomer.run(PYTHON.path, "-m", "venv", place))
        took["pip install"].append(newcomer.run(python, *install))
        took["pyhugetext"].append(newcomer.run(python, "-m", "pyhugetext"))
        again = newcomer.run(place / "bin" / "pyhugetext")
        assert "machine code of this process:" in again.printed
    (wheel,) = files.glob(f"*-cp{PYTHON.tag}-manylinux*x86_64.whl")
    packages = next(place.glob("lib/py*/site-packages"))
    files_of = [path for top in packages.glob("pyhugetext*") for path in (top, *top.rglob("*"))]
    size = sum(path.stat().st_size for path in files_of if path.is_file())
    print(f"\n{wheel.name}: {wheel.stat().st_size:,} bytes; installed {size >> 10} KiB")
    whole = [sum(one.wall for one in turn) for turn in zip(*took.values())]
    for name, turns in took.items():
        wall = statistics.median(turn.wall for turn in turns)
        cpu = statistics.median(turn.cpu for turn in turns)
        print(f"{name:12} {wall:6.2f} s, {cpu:5.2f} s of processors (medians of {ROUNDS})")
    print(f"{'the whole':12} {statistics.median(whole):6.2f} s")
    print(again.printed)
