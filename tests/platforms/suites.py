"""The test suites of CPython and of popular wheels with the hook active: what fails must fail without it too.

    python tests/platforms/suites.py cpython [--backing memfd] [TEST...]
    python tests/platforms/suites.py numpy [--backing memfd] [FILE...]
    python tests/platforms/suites.py --both scipy
    python tests/platforms/suites.py --both cryptography --source DIRECTORY

Runs the suite in children of the interpreter that runs it, with the package installed beside it; each
part of a wheel's suite in a process of its own, so that one that dies or hangs takes no other with it.
What failed is run three times more, alone, with the hook and with PYHUGETEXT=0; with --both all of it
is run without, too, and only what failed with the hook alone is run again. Exit status 1 when a test
fails with the hook only, or nothing passed; 77, with the reason, when the suite is not installed or
the hook is not active.

Where the tests are in the source distribution only, --source names one that is unpacked, of the
version that is installed: "pip download --no-deps --no-binary NAME NAME==VERSION" brings it. Torch's
wheel has programs in C++ (GoogleTest), which run with the preload library and without.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
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
ENDED = (0, 1)  # passed, failed: of pytest and of GoogleTest
SKIPPED = 77  # exit status, as of the other harnesses
WAYS = ("active", "off")


class Suite(NamedTuple):
    parts: list[str]
    needs: tuple[str, ...] = ()  # modules
    source: bool = False  # the parts are below --source
    programs: bool = False  # the parts are programs in the wheel, no tests of pytest
    together: bool = False  # a part needs what another one leaves behind: all in one process


def table(file: Path) -> dict[str, Suite]:
    """Of large suites the parts that take minutes, and of these what forks, threads, loads, compiles:
    names for a pattern. Of gevent's those that are no scripts. What there is after :: of a program is
    GoogleTest's filter. psutil's tests are to be copied away from its sources, which they would import."""
    suites = {}
    for name, entry in json.loads(file.read_text()).items():
        patterns = entry.pop("parts").items()
        parts = [how.format(part) for how, lines in patterns for part in " ".join(lines).split()]
        suites[name] = Suite(parts, **entry)
    return suites


SUITES = table(Path(__file__).with_suffix(".json"))


def environment(way: str, backing: str, scratch: Path) -> dict[str, str]:
    """Without our settings and Python's: PYTHONUNBUFFERED alone makes tests of CPython fail."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "PYTHON"))}
    clean["XDG_CACHE_HOME"] = str(scratch / "cache")
    clean["GREENLET_SKIP_LEAKCHECKS"] = "1"  # which run each test again and again
    if way == "off":
        return {**clean, "PYHUGETEXT": "0"}
    return {**clean, "PYHUGETEXT_BACKING": backing}


def parts(suite: str, options: argparse.Namespace) -> list[str]:
    """What is run, each in a process of its own."""
    if suite not in SUITES or (SUITES[suite].programs and options.tests):
        return list(options.tests)
    if options.tests:  # files are elsewhere for who runs in another directory
        return [os.path.abspath(test) if os.sep in test else test for test in options.tests]
    below = options.source if SUITES[suite].source else ""
    return [os.path.join(below, part) for part in SUITES[suite].parts]


def command(suite: str, tests: list[str], report: Path, options: argparse.Namespace) -> list[str]:
    if suite not in SUITES:
        how = [f"-j{options.jobs}", "--timeout", str(options.timeout), "--junit-xml", str(report)]
        return [sys.executable, "-m", "test", *how, *tests]
    if SUITES[suite].programs:
        name, _, only = tests[0].partition("::")
        how = [f"--gtest_output=xml:{report}", f"--gtest_filter={only or '*'}"]
        return [str(package(suite) / name), *how]
    how = ["-v", "--rootdir=/", "-p", "no:cacheprovider", "--tb=short"]
    # Who is strict about markers and has none of this name refuses it.
    how += [] if SUITES[suite].source else ["-m", "not slow"]
    how += [f"--junit-xml={report}", "-o", "junit_family=xunit1"]
    # f2py's own tests want a Fortran compiler and meson, and try these.
    how += ["--ignore-glob=/*/numpy/f2py/*", "--continue-on-collection-errors"]
    return [sys.executable, "-m", "pytest", *how, "--pyargs", *tests]


def package(suite: str) -> Path:
    found = importlib.util.find_spec(suite)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def warm(suite: str, environ: dict[str, str]) -> None:
    """A program's start builds nothing of what it would have no time for: all of it is built before."""
    objects = [path for path in package(suite).glob("lib/*.so") if path.stat().st_size > 8 << 20]
    what = [sys.executable, "-m", "pyhugetext", "warm", *map(str, objects)]
    # One that is refused makes the exit status 1; which programs are covered is said later.
    subprocess.run(what, env=environ, stdout=subprocess.DEVNULL, check=False)


def covered(reports: Path) -> bool:
    """Whether one of the processes of a program said that it runs from huge pages."""
    contents = [json.loads(path.read_text()) for path in reports.glob("*.json")]
    return any(region["mapped_bytes"] for report in contents for region in report["regions"])


class Result(NamedTuple):
    ran: int
    passed: set[str]
    failed: set[str]  # of CPython, files too; of others, parts that did not end


def read(suite: str, tests: list[str], report: Path, log: str, status: int) -> Result:
    """What a run came to. Of CPython, files count too: one whose process died has no cases in the
    report, and one may fail for what it left behind. Of others, a part that did not end, or where
    nothing ran."""
    try:
        tree = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError) as error:
        if suite not in SUITES:
            raise SystemExit(f"the suite did not end: {error}\n{log[-3000:]}") from error
        tree = None
    if tree is None or (suite in SUITES and status not in ENDED):
        last = log.rstrip().rpartition("\n")[2]
        print(f"{' '.join(tests)} did not end (exit status {status}): {last[:200]}", flush=True)
        return Result(0, set(), set(tests))
    cases = [c for c in tree.iter("testcase") if c.find("skipped") is None]
    cases = [c for c in cases if c.get("status") != "notrun"]  # GoogleTest's, of those left out
    wrong = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    failed = {identity(suite, tests, case) for case in wrong}
    passed = {identity(suite, tests, case) for case in cases} - failed
    inside = False
    for line in () if suite in SUITES else log.splitlines():
        if inside and line.startswith(" "):
            failed.update(line.split())
        else:
            inside = bool(re.match(r"\d+ tests? (failed|altered .*):$", line))
    return Result(len(cases), passed, failed)


def identity(suite: str, tests: list[str], case: ElementTree.Element) -> str:
    """One test's name: with its class, since two of a file may have a method of the same name."""
    name, file = str(case.get("name")), case.get("file")
    if suite not in SUITES:
        return name
    part = tests[0].partition("::")[0]
    if SUITES[suite].programs:
        return f"{part}::{case.get('classname')}.{name}"
    if file is None:  # it failed before there was a test
        return f"{part}::{name}"
    module = file.removesuffix(".py").replace("/", ".")
    within = str(case.get("classname")).removeprefix(module).strip(".")
    return "::".join(part for part in (f"/{file}", within, name) if part)


def wrong_again(suite: str, test: str, result: Result) -> bool:
    """Whether a test that was run again failed again, or did not come to run."""
    if test in result.failed:
        return True
    # Of a part or a file there are only the tests in it to pass.
    if suite in SUITES and SUITES[suite].programs:
        whole = "::" not in test or "*" in test
    else:
        whole = alone(suite, test) == test
    return not whole and test not in result.passed


def alone(suite: str, failed: str) -> str:
    """What to run to run it again: its file, or of a program the test."""
    if suite in SUITES and SUITES[suite].programs:
        return failed
    if suite in SUITES:
        return failed.partition("::")[0]
    names = failed.split(".")
    while len(names) > 1 and not importable(".".join(names)):
        names.pop()
    return ".".join(names)


def importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def run(
    suite: str, way: str, tests: list[str], options: argparse.Namespace, scratch: Path
) -> Result:
    if suite not in SUITES:
        return run_part(suite, way, tests, options, scratch)
    if SUITES[suite].programs and way == "active":
        warm(suite, environment(way, options.backing, scratch))
    pieces = [tests] if SUITES[suite].together else [[part] for part in tests]
    results = [run_part(suite, way, piece, options, scratch) for piece in pieces]
    return Result(
        sum(result.ran for result in results),
        set().union(*(result.passed for result in results)),
        set().union(*(result.failed for result in results)),
    )


def run_part(
    suite: str, way: str, tests: list[str], options: argparse.Namespace, scratch: Path
) -> Result:
    report, reports = scratch / f"{way}.xml", Path(tempfile.mkdtemp(dir=scratch))
    report.unlink(missing_ok=True)  # that of the last run is no answer where this one dies
    what = command(suite, tests, report, options)
    preload = suite in SUITES and SUITES[suite].programs and way == "active"
    if preload:
        told = ["run", "--report", f"{reports}/%p.json", "--"]
        what = [sys.executable, "-m", "pyhugetext", *told, *what]
    # CPython's has a time for each of its files, and wants to see the terminal.
    timeout = options.timeout if suite in SUITES else None
    log, status = ended(what, environment(way, options.backing, scratch), scratch / way, timeout)
    if options.logs:
        with open(Path(options.logs, f"{suite}-{way}.log"), "a", encoding="utf-8") as kept:
            kept.write(f"{log}\n{' '.join(tests)}: exit status {status}\n")
    if preload and not covered(reports):
        print(f"{tests[0]}: nothing of it runs from huge pages", flush=True)
    return read(suite, tests, report, log, status)


def ended(
    what: list[str], environ: dict[str, str], directory: Path, timeout: int | None
) -> tuple[str, int]:
    """What a command printed, and its exit status; with a timeout nothing that it started is left."""
    directory.mkdir(exist_ok=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        child = subprocess.Popen(
            what,
            env=environ,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=timeout is not None,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout)
        finally:  # after Ctrl-C, too, which reaches no other session
            if timeout is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
        file.seek(0)
        return file.read(), status


def missing(options: argparse.Namespace, environ: dict[str, str]) -> str:
    """Why the suite cannot run here, or nothing."""
    suite = options.suite
    if suite in SUITES:
        for module in (suite, "pytest", *SUITES[suite].needs):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
        if SUITES[suite].source and not options.tests and not options.source:
            return "its wheel has no tests: name an unpacked source distribution with --source"
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
    parser.add_argument("suite", choices=("cpython", *SUITES))
    parser.add_argument("--both", action="store_true", help="all of it without the hook, too")
    parser.add_argument("--backing", default="auto")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of CPython's suite")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for a part, or a file")
    parser.add_argument("--source", type=Path, help="an unpacked source distribution")
    parser.add_argument("--logs", metavar="DIRECTORY", help="append what the suites print here")
    parser.add_argument("tests", nargs="*", help="what to run, instead of everything")
    options = parser.parse_intermixed_args()
    if options.source:
        options.source = options.source.resolve()  # the tests run elsewhere
    # A shell starts jobs in the background with SIGINT ignored, children inherit that, and tests
    # that interrupt themselves then wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    suite = options.suite
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        reason = missing(options, environment("active", options.backing, scratch))
        if reason:
            print(f"{suite}: skipped: {reason}")
            return SKIPPED
        tests = parts(suite, options)
        result = run(suite, "active", tests, options, scratch)
        told(suite, "active", result)
        if len(result.failed) >= result.ran:
            print(f"{suite}: nothing passed, which proves nothing")
            return 1
        suspects = result.failed
        if options.both:
            without = run(suite, "off", tests, options, scratch)
            told(suite, "off", without)
            suspects = suspected(suite, tests, result, without)
        blame = again(suite, suspects, options, scratch)
    if blame:
        print(f"{suite}: fail with the hook: {' '.join(blame)}")
    else:
        print(f"{suite}: no difference" + (" that repeats" if suspects else ""))
    return bool(blame)


def suspected(suite: str, tests: list[str], result: Result, without: Result) -> set[str]:
    """What did not pass with the hook, and did not fail without. For a program that did not end stands
    itself: each of its tests would be run again alone."""
    suspects = (result.failed | (without.passed - result.passed)) - without.failed
    if suite not in SUITES or not SUITES[suite].programs:
        return suspects
    dead = {part for part in tests if part in suspects}
    inside = tuple(f"{part.partition('::')[0]}::" for part in dead)
    return dead | {test for test in suspects if not test.startswith(inside)}


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
