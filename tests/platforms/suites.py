"""The test suites of CPython and of popular wheels with the hook active: what fails must fail without it too.

    python tests/platforms/suites.py cpython [--backing memfd] [TEST...]
    python tests/platforms/suites.py numpy [--backing memfd] [FILE...]
    python tests/platforms/suites.py --both scipy
    python tests/platforms/suites.py lxml DIRECTORY   # the tests in an unpacked source distribution

Runs the suite in children of the interpreter that runs it, with the package installed beside it.
What failed is run three times more, alone, with the hook and with PYHUGETEXT=0; with --both all of it
is run without, too, and only what passed there and did not with the hook is run again. Exit status 1 when
a test fails with the hook only, nothing passed, or the package cannot be asked; 0, with the reason, when
the suite is not installed or nothing is huge here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

AGAIN = 3
WAYS = ("active", "off")

# What the wheels bring of their tests; of large suites a part that takes minutes.
NO_TESTS: list[str] = []  # they are in the source distribution only
PARTS = {
    "numpy": ["numpy"],
    "scipy": [f"scipy.{name}.tests" for name in ("fft", "spatial")],
    "pandas": [f"pandas.tests.{name}" for name in ("libs", "reshape", "tslibs")],
    "pyarrow": [
        f"pyarrow.tests.test_{name}"
        for name in ("cffi", "compute", "csv", "ipc", "memory", "scalars")
    ],
    "greenlet": ["greenlet.tests"],
    # Those that do not replace the modules of the whole process.
    "gevent": [
        f"gevent.tests.test__{name}"
        for name in (
            "core", "core_async", "core_callback", "core_fork", "core_timer", "core_watcher", "event",
            "greenlet", "greenness", "hub", "joinall", "lock", "loop_callback", "order", "os", "pool",
            "queue", "select", "semaphore", "server", "signal", "sleep0", "socket", "subprocess",
            "thread", "threadpool", "timeout",
        )
    ],
    "numba": [
        f"numba.tests.test_{name}"
        for name in ("cffi", "cfunc", "ctypes", "gil", "nrt")
    ],
    "llvmlite": ["llvmlite.tests"],
    "cffi": NO_TESTS,
    "cryptography": NO_TESTS,
    "lxml": NO_TESTS,
    "psutil": NO_TESTS,
    "uvloop": NO_TESTS,
}  # fmt: skip
NEEDS = {"greenlet": ("objgraph", "psutil"), "numpy": ("hypothesis",), "scipy": ("hypothesis",),
         "pandas": ("hypothesis",), "pyarrow": ("hypothesis", "pandas")}  # fmt: skip


def environment(way: str, backing: str, scratch: Path) -> dict[str, str]:
    """Without our settings and Python's: PYTHONUNBUFFERED alone makes tests of CPython fail."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "PYTHON"))}
    clean["XDG_CACHE_HOME"] = str(scratch / "cache")
    clean["GREENLET_SKIP_LEAKCHECKS"] = "1"  # which run each test again and again
    if way == "off":
        return {**clean, "PYHUGETEXT": "0"}
    return {**clean, "PYHUGETEXT_BACKING": backing}


def command(suite: str, tests: list[str], report: Path, jobs: int, timeout: int) -> list[str]:
    if suite in PARTS:
        options = ["-q", "--rootdir=/", "-p", "no:cacheprovider", "--tb=short", "-m", "not slow"]
        options += [f"--junit-xml={report}", "-o", "junit_family=xunit1"]
        # f2py's own tests want a Fortran compiler and meson, and try these.
        options += ["--ignore-glob=/*/numpy/f2py/*", "--continue-on-collection-errors"]
        return [sys.executable, "-m", "pytest", *options, *(tests or ["--pyargs", *PARTS[suite]])]
    options = [f"-j{jobs}", "--timeout", str(timeout), "--junit-xml", str(report)]
    return [sys.executable, "-m", "test", *options, *tests]


class Result(NamedTuple):
    ran: int
    passed: set[str]
    failed: set[str]  # of CPython, files too


def read(suite: str, report: Path, log: str) -> Result:
    """What a run came to. Of CPython, files count too: one whose process died has no cases in the
    report, and one may fail for what it left behind."""
    try:
        tree = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise SystemExit(f"the suite did not end: {error}\n{log[-3000:]}") from error
    cases = [case for case in tree.iter("testcase") if case.find("skipped") is None]
    wrong = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    failed = {identity(suite, case) for case in wrong}
    passed = {identity(suite, case) for case in cases} - failed
    inside = False
    for line in () if suite in PARTS else log.splitlines():
        if inside and line.startswith(" "):
            failed.update(line.split())
        else:
            inside = bool(re.match(r"\d+ tests? (failed|altered .*):$", line))
    return Result(len(cases), passed, failed)


def identity(suite: str, case: ElementTree.Element) -> str:
    """One test's name: with its class, since two of a file may have a method of the same name."""
    name = str(case.get("name"))
    if suite not in PARTS:
        return name
    file = str(case.get("file"))
    module = file.removesuffix(".py").replace("/", ".")
    within = str(case.get("classname")).removeprefix(module).strip(".")
    return "::".join(part for part in (f"/{file}", within, name) if part)


def wrong_again(suite: str, test: str, result: Result) -> bool:
    """Whether a test that was run again failed again, or did not come to run."""
    if test in result.failed:
        return True
    whole_file = suite not in PARTS and alone(suite, test) == test
    return not whole_file and test not in result.passed


def alone(suite: str, failed: str) -> str:
    """The file to run to run it again."""
    if suite in PARTS:
        return failed.partition("::")[0]
    parts = failed.split(".")
    while len(parts) > 1 and not importable(".".join(parts)):
        parts.pop()
    return ".".join(parts)


def importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def run(
    suite: str, way: str, tests: list[str], options: argparse.Namespace, scratch: Path
) -> Result:
    report, directory = scratch / f"{way}.xml", scratch / way
    directory.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)  # that of the last run is no answer where this one dies
    result = subprocess.run(
        command(suite, tests, report, options.jobs, options.timeout),
        env=environment(way, options.backing, scratch),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if options.logs:
        with open(Path(options.logs, f"{suite}-{way}.log"), "a", encoding="utf-8") as file:
            file.write(result.stdout)
    return read(suite, report, result.stdout)


def missing(suite: str, tests: list[str], environ: dict[str, str]) -> str:
    """Why the suite cannot run here, or nothing."""
    if suite in PARTS:
        for module in (suite, "pytest", *NEEDS.get(suite, ())):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
        if not tests and PARTS[suite] is NO_TESTS:
            return "its wheel has no tests: name those of its source distribution"
    elif importlib.util.find_spec("test.test_gc") is None:
        return f"{sys.executable} comes without CPython's tests (the package test)"
    code = "import pyhugetext as p; s = p.stats(); print('' if s.active else s.reason)"
    child = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    if child.returncode:
        raise SystemExit(f"stats() ended with {child.returncode}: {child.stderr.strip()[-1000:]}")
    return child.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suite", choices=("cpython", *PARTS))
    parser.add_argument("--both", action="store_true", help="all of it without the hook, too")
    parser.add_argument("--backing", default="auto")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of CPython's suite")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for a file of CPython's")
    parser.add_argument("--logs", metavar="DIRECTORY", help="append what the suites print here")
    parser.add_argument("tests", nargs="*", help="what to run, instead of everything")
    options = parser.parse_intermixed_args()
    # A shell starts jobs in the background with SIGINT ignored, children inherit that, and tests
    # that interrupt themselves then wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    suite = options.suite
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        reason = missing(suite, options.tests, environment("active", options.backing, scratch))
        if reason:
            print(f"{suite}: skipped: {reason}")
            return 0
        result = run(suite, "active", options.tests, options, scratch)
        told(suite, "active", result)
        if len(result.failed) >= result.ran:
            print(f"{suite}: nothing passed, which proves nothing")
            return 1
        suspects = result.failed
        if options.both:
            without = run(suite, "off", options.tests, options, scratch)
            told(suite, "off", without)
            suspects = (suspects | (without.passed - result.passed)) - without.failed
        blame = again(suite, suspects, options, scratch)
    if blame:
        print(f"{suite}: fail with the hook: {' '.join(blame)}")
    else:
        print(f"{suite}: no difference" + (" that repeats" if suspects else ""))
    return bool(blame)


def told(suite: str, way: str, result: Result) -> None:
    print(f"{suite}, {way}: {result.ran} tests run, {len(result.failed)} failed", flush=True)


def again(suite: str, suspects: set[str], options: argparse.Namespace, scratch: Path) -> list[str]:
    """Which of them, each file alone and three times, do not pass with the hook and do without."""
    blame = []
    for arguments in sorted({alone(suite, test) for test in suspects}):
        results = {
            way: [run(suite, way, [arguments], options, scratch) for _ in range(AGAIN)]
            for way in WAYS
        }
        for test in sorted(suspects):
            if alone(suite, test) != arguments:
                continue
            active, off = (
                sum(wrong_again(suite, test, result) for result in results[way]) for way in WAYS
            )
            print(f"{test} alone: failed {active} of {AGAIN} active, {off} off", flush=True)
            if active and not off:
                blame.append(test)
    return blame


if __name__ == "__main__":
    sys.exit(main())
