"""The test suites of CPython and numpy with the hook active: what fails must fail without it too.

    python tests/platforms/suites.py cpython [--backing memfd] [TEST...]
    python tests/platforms/suites.py numpy [--backing memfd] [FILE...]

Runs the suite in children of the interpreter that runs it, with the package installed beside it.
What failed is run three times more, alone, with the hook and with PYHUGETEXT=0. Exit status 1 when a
test fails with the hook only; 0, with the reason, when the suite is not installed.
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
from xml.etree import ElementTree

AGAIN = 3
WAYS = ("active", "off")


def environment(way: str, backing: str, scratch: Path) -> dict[str, str]:
    """Without our settings and Python's: PYTHONUNBUFFERED alone makes tests of CPython fail."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "PYTHON"))}
    clean["XDG_CACHE_HOME"] = str(scratch / "cache")
    if way == "off":
        return {**clean, "PYHUGETEXT": "0"}
    return {**clean, "PYHUGETEXT_BACKING": backing}


def command(suite: str, tests: list[str], report: Path, jobs: int, timeout: int) -> list[str]:
    if suite == "numpy":
        options = ["-q", "--rootdir=/", "-p", "no:cacheprovider", "--tb=short", "-m", "not slow"]
        options += [f"--junit-xml={report}", "-o", "junit_family=xunit1"]
        # f2py's own tests want a Fortran compiler and meson, and try these.
        options += ["--ignore-glob=/*/numpy/f2py/*", "--continue-on-collection-errors"]
        return [sys.executable, "-m", "pytest", *options, *(tests or ["--pyargs", "numpy"])]
    options = [f"-j{jobs}", "--timeout", str(timeout), "--junit-xml", str(report)]
    return [sys.executable, "-m", "test", *options, *tests]


def failures(suite: str, report: Path, log: str) -> tuple[int, set[str]]:
    """How many tests ran, and those that failed. Of CPython, files too: one whose process died has
    no cases in the report, and one may fail for what it left behind."""
    try:
        tree = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise SystemExit(f"the suite did not end: {error}\n{log[-3000:]}") from error
    cases = list(tree.iter("testcase"))
    wrong = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    ran = sum(c.find("skipped") is None for c in cases)
    if suite == "numpy":
        return ran, {f"/{c.get('file')}::{c.get('name')}" for c in wrong}
    failed, inside = {str(c.get("name")) for c in wrong}, False
    for line in log.splitlines():
        if inside and line.startswith(" "):
            failed.update(line.split())
        else:
            inside = bool(re.match(r"\d+ tests? (failed|altered .*):$", line))
    return ran, failed


def alone(suite: str, failed: str) -> str:
    """The file to run to run it again."""
    if suite == "numpy":
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
) -> tuple[int, set[str]]:
    report, directory = scratch / f"{way}.xml", scratch / way
    directory.mkdir(exist_ok=True)
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
    return failures(suite, report, result.stdout)


def missing(suite: str, environ: dict[str, str]) -> str:
    """Why the suite cannot run here, or nothing."""
    if suite == "numpy":
        for module in ("numpy", "pytest", "hypothesis"):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
    elif importlib.util.find_spec("test.test_gc") is None:
        return f"{sys.executable} comes without CPython's tests (the package test)"
    code = "import pyhugetext as p; s = p.stats(); print('' if s.active else s.reason)"
    child = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    return child.stderr.strip() or child.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suite", choices=("cpython", "numpy"))
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
        reason = missing(suite, environment("active", options.backing, scratch))
        if reason:
            print(f"{suite}: skipped: {reason}")
            return 0
        ran, failed = run(suite, "active", options.tests, options, scratch)
        print(f"{suite}, active: {ran} tests run, {len(failed)} failed", flush=True)
        blame = []
        for arguments in sorted({alone(suite, test) for test in failed}):
            again = {
                way: [run(suite, way, [arguments], options, scratch)[1] for _ in range(AGAIN)]
                for way in WAYS
            }
            for test in sorted(failed):
                if alone(suite, test) != arguments:
                    continue
                active, off = (sum(test in names for names in again[way]) for way in WAYS)
                print(f"{test} alone: failed {active} of {AGAIN} active, {off} off", flush=True)
                if active and not off:
                    blame.append(test)
    print(f"{suite}: " + (f"fail with the hook: {' '.join(blame)}" if blame else "no difference"))
    return bool(blame)


if __name__ == "__main__":
    sys.exit(main())
