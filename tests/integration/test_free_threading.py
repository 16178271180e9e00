"""Threads that run Python at the same time, as in free-threaded builds (3.13t, 3.14t), where nothing
but the package's own locks is between them. Other builds run the same, a thread at a time."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.common import TESTS, Run, big_source, big_sum
from support.layouts import last_record, skip_unless_huge
from support.store import Store

FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
MODULES, FUNCTIONS = 3, 200
# Each waits for the others, for a lock or for the processors; on a slow machine there are fewer.
ROUNDS, SECONDS = (40, 10) if FREE else (8, 3)

PRELUDE = f"""
import json, sys, threading, time
sys.path[:0] = [sys.argv[1], {str(TESTS)!r}]
from support import harm
import pyhugetext
from pyhugetext import _native
# No module of the package switched the lock on.
assert not {FREE} or not sys._is_gil_enabled()
errors, stop = [], threading.Event()

def guarded(function):
    def run(*arguments):
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(repr(error))
    return run

def start(functions):
    threads = [threading.Thread(target=guarded(function)) for function in functions]
    for thread in threads:
        thread.start()
    return threads
"""


def run(python: Run, code: str, *arguments: str, **settings: str) -> dict[str, Any]:
    record: dict[str, Any] = last_record(python(PRELUDE + code, *arguments, env=settings))
    assert record["errors"] == []
    return record


def test_package_leaves_the_lock_of_the_interpreter_off(python: Run) -> None:
    if not FREE:
        pytest.skip("this Python always has one")
    code = "import pyhugetext._boot, pyhugetext._native, sys; print(sys._is_gil_enabled())"
    result = python(code)
    assert (result.stdout, result.stderr) == ("False\n", "")


@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_threads_run_python_while_its_text_is_swapped(python: Run, backing: str) -> None:
    skip_unless_huge(backing)
    code = f"""
expected, counts = harm.work(), [0] * 3

def work(i):
    while not stop.is_set():
        if harm.work() != expected:
            raise AssertionError("wrong result")
        counts[i] += 1

threads = start([lambda i=i: work(i) for i in range(3)])
rounds = covered = 0
until = time.monotonic() + {SECONDS}
while rounds == 0 or min(counts) == 0 or (rounds < {ROUNDS} and time.monotonic() < until):
    stats = pyhugetext.remap(backing={backing!r})
    covered += stats.coverable_bytes - stats.mapped_bytes < 256 << 10
    assert pyhugetext.restore().mapped_bytes == 0
    rounds += 1
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({{"errors": errors, "rounds": rounds, "covered": covered, "counts": counts}}))
"""
    settings = {"PYHUGETEXT": "0", "PYHUGETEXT_PRIVATE_LIMIT": "unlimited"}
    record = run(python, code, "", **settings)
    assert min(record["counts"]) > 0
    assert record["covered"] >= 0.9 * record["rounds"] > 0


@pytest.fixture
def modules(compile_extension: Callable[..., Path]) -> str:
    """The directory of several large extension modules."""
    source = big_source(FUNCTIONS, padding=20_000) + "\nint result(void) { return (int)f_sum(3); }"
    return str({compile_extension(f"late{i}", source).parent for i in range(MODULES)}.pop())


IMPORT = f"""
import importlib
meet = threading.Barrier({MODULES})

def load(i):
    meet.wait()
    if importlib.import_module(f"late{{i}}").result() != {big_sum(3, FUNCTIONS)}:
        raise AssertionError("wrong result")

def watch():
    while not stop.is_set():
        for region in _native.snapshot()["regions"]:
            if region["mapped_bytes"] > region["coverable_bytes"]:
                raise AssertionError(region)

watcher = start([watch])
for thread in start([lambda i=i: load(i) for i in range({MODULES})]):
    thread.join()
stop.set()
watcher[0].join()
def regions():
    return [r._asdict() for r in pyhugetext.stats().regions if "/late" in r.path]
after = regions()
pyhugetext.remap()
for i in range({MODULES}):
    assert sys.modules[f"late{{i}}"].result() == {big_sum(3, FUNCTIONS)}
assert not {FREE} or not sys._is_gil_enabled()
print(json.dumps({{"errors": errors, "after": after, "remapped": regions()}}))
"""


def are_whole(regions: list[dict[str, Any]], *backings: str) -> None:
    assert len(regions) == MODULES
    for region in regions:
        assert region["mapped_bytes"] == region["coverable_bytes"] > 0, region
        assert region["backing"] in backings, region


def test_threads_import_large_modules_at_once(python: Run, modules: str) -> None:
    skip_unless_huge("memfd")
    settings = {
        "PYHUGETEXT_BUILD": "never",
        "PYHUGETEXT_BACKING": "memfd",
        "PYHUGETEXT_PRIVATE_LIMIT": "unlimited",
    }
    record = run(python, IMPORT, modules, **settings)
    assert len(record["after"]) == MODULES
    are_whole(record["remapped"], "memfd")


def test_threads_import_and_build_at_once(modules: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", backing="auto")
    for _ in range(2):
        result = store.run(PRELUDE + IMPORT, modules, PYHUGETEXT_PRIVATE_LIMIT="unlimited")
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        record = json.loads(result.stdout)
        assert record["errors"] == []
    are_whole(record["remapped"], "file", "store", "shm", "memfd", "thp")
    if any(region["backing"] == "store" for region in record["remapped"]):
        are_whole(record["remapped"], "store")
