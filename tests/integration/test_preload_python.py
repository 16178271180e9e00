"""One engine a process: a Python in a preloaded program, and the package of two environments in one."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from support.common import ROOT, Run, tool
from support.installed import installed_files
from support.preloaded import Preloaded, preload_library, programs

pytestmark = pytest.mark.usefixtures("huge_memfd")

STATS = "import json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"
# Loads a library that no import sees, asks it, and tells of everything; then puts all back.
USE = f"""
import ctypes, json, os, re, sys
sys.stdout.write(str(ctypes.CDLL(sys.argv[1]).f_sum(7)) + "\\n")
{STATS}
def covered():
    with open("/proc/self/maps") as file:
        return [line.split()[0] for line in file if "/memfd:pyhugetext" in line and " r-x" in line]
before = covered()
pyhugetext.restore()
print(json.dumps([before, covered()]))
"""


@pytest.fixture
def run(tmp_path: Path) -> Preloaded:
    return Preloaded(tmp_path)


def regions(stats: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [r for r in stats["regions"] if name in r["path"].rpartition("/")[2]]


def test_python_takes_the_engine_that_was_preloaded(run: Preloaded) -> None:
    big = programs() / "libbig.so"
    ended = run(sys.executable, "-c", USE, big, PYHUGETEXT_BACKING="memfd")
    assert (ended.status, ended.stderr) == (0, "")
    _, told, maps = ended.stdout.splitlines()
    stats, (before, after) = json.loads(told), json.loads(maps)
    assert stats["active"]
    for name in ("libbig.so", "python3" if "python" in sys.executable else "python"):
        assert sum(r["mapped_bytes"] for r in regions(stats, name)) > 0, name
    assert before
    assert after == []
    # What Python tells is what the library tells.
    assert [r["mapped_bytes"] for r in ended.report["regions"] if "libbig" in r["path"]] == [0]
    assert ended.report["reason"] == "put back by restore()"


def test_nothing_is_covered_twice_and_nothing_told_twice(run: Preloaded) -> None:
    env = {"PYHUGETEXT_BACKING": "memfd", "PYHUGETEXT_DEBUG": "1"}
    ended = run(sys.executable, "-c", STATS, **env)
    alone = run.plain(sys.executable, "-c", STATS, **env)
    lines = [line for line in ended.stderr.splitlines() if ": huge, memfd" in line]
    assert lines
    assert len(lines) == len(set(lines))
    stats, plain = json.loads(ended.stdout), json.loads(alone.stdout)
    assert stats["mapped_bytes"] == plain["mapped_bytes"]
    assert stats["private_bytes"] == plain["private_bytes"]


def test_settings_are_those_of_the_process(run: Preloaded) -> None:
    code = "import pyhugetext, json; print(pyhugetext.stats().problems, pyhugetext.stats().reason)"
    env = {"PYHUGETEXT_COLOUR": "blue", "PYHUGETEXT": "0"}
    ended, alone = (r(sys.executable, "-c", code, **env) for r in (run, run.plain))
    assert ended.said() == alone.said()


def test_remap_after_a_start_that_was_turned_off(run: Preloaded) -> None:
    code = f"import pyhugetext; pyhugetext.remap(backing='memfd')\n{STATS}"
    ended = run(sys.executable, "-c", code, PYHUGETEXT="0")
    stats = json.loads(ended.stdout)
    assert stats["mapped_bytes"] > 0


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The package in another environment."""
    place = tmp_path / "other"
    shutil.copytree(installed_files()[0], place / "pyhugetext")
    return place


# Imports the module of the start-up path of another installation beside this one's.
SECOND = """
import importlib.util, json, sys, pyhugetext
from pyhugetext import _native
def load(place):
    for name in [name for name in sys.modules if name.startswith("pyhugetext")]:
        del sys.modules[name]
    sys.path.insert(0, place)
    import pyhugetext
    assert pyhugetext.__file__.startswith(place), pyhugetext.__file__
    return pyhugetext
first = pyhugetext.stats()
second = load(sys.argv[1])
stats = second.stats()
told = [stats.as_dict()]
second.remap(backing="memfd")
told.append(second.stats().as_dict())
second.restore()
with open("/proc/self/maps") as file:
    told.append([line for line in file if "/memfd:pyhugetext" in line and " r-x" in line])
print(json.dumps(told))
"""


def test_engine_of_the_first_environment_serves_the_second(
    python: Run, tmp_path: Path, other: Path
) -> None:
    env = {"PYHUGETEXT_BACKING": "memfd", "PYHUGETEXT_STORE": str(tmp_path / "store")}
    result = python(SECOND, str(other), env=env)
    first, again, left = json.loads(result.stdout)
    assert first["active"]
    assert again["mapped_bytes"] == first["mapped_bytes"] > 0
    assert again["private_bytes"] == first["private_bytes"]
    assert left == []


def of_another_version(library: Path, target: Path) -> None:
    """The same with another version in it, of as many characters."""
    version = (ROOT / "src/pyhugetext/__init__.py").read_text().partition('__version__ = "')[2]
    version = version.partition('"')[0]
    old = f"engine of {version}\0".encode()
    new = f"engine of {'9' * len(version)}\0".encode()
    data = library.read_bytes()
    assert data.count(old) == 1
    target.write_bytes(data.replace(old, new))


def test_another_version_that_was_there_first_is_left_to_it(run: Preloaded, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    library = tmp_path / "other" / preload_library().name
    of_another_version(preload_library(), library)
    code = f"{STATS}; pyhugetext.remap(backing='memfd')\n{STATS}"
    env = {"PYHUGETEXT_BACKING": "memfd"}
    ended = run(sys.executable, "-c", code, preload=str(library), **env)
    assert ended.stderr == ""
    for line in ended.stdout.splitlines():
        stats = json.loads(line)
        assert stats["reason"].startswith("another version of pyhugetext is at work")
    assert any(region["mapped_bytes"] for region in ended.report["regions"])


def test_python_in_a_program_that_is_watched_says_so(run: Preloaded) -> None:
    tool("valgrind")
    code = "import pyhugetext; print(pyhugetext.stats().reason)"
    env = {"PYHUGETEXT_BACKING": "memfd", "PYTHONPATH": str(installed_files()[0].parent)}
    ended = run("valgrind", "-q", sys.executable, "-S", "-c", code, **env)
    if ended.status:
        pytest.skip(f"valgrind does not run this python: {ended.stderr}")
    assert ended.stdout == "valgrind or a sanitizer watches the memory of this program\n"


def test_debugger_with_a_python_inside_has_one_engine(run: Preloaded, tmp_path: Path) -> None:
    gdb, place = tool("gdb"), installed_files()[0].parent
    script = tmp_path / "inside.py"
    script.write_text(
        f"import sys; sys.path.append({str(place)!r})\n"
        "import json, pyhugetext\n"
        "pyhugetext.remap(backing='memfd')\n"
        "print(json.dumps(pyhugetext.stats().as_dict()))\n"
        "pyhugetext.restore()\n"
    )
    probe = f"python import sys; print('version', sys.version_info[:2] == {sys.version_info[:2]})"
    plain = run.plain(gdb, "-q", "-batch", "-nx", "-ex", probe)
    if "version True" not in plain.stdout:
        pytest.skip("gdb has no python inside, or another one")
    ended = run(gdb, "-q", "-batch", "-nx", "-x", script)
    assert ended.status == 0, ended.stderr
    stats = json.loads(ended.stdout.splitlines()[-1])
    [region] = [r for r in stats["regions"] if r["path"].endswith("/gdb")]
    assert region["mapped_bytes"] == region["coverable_bytes"] > 0
    [report] = [r for r in ended.reports.values() if r["command"].endswith("/gdb")]
    assert report["reason"] == "put back by restore()"
    assert all(region["mapped_bytes"] == 0 for region in report["regions"])
