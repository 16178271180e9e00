"""Where a test runs tools on a process whose text comes from the store."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from support.common import TESTS, clean_environment

PROGRAM = str(TESTS / "support" / "tools.py")
SECONDS = "90"  # what a child runs at most; the tests end it before
FORBIDDEN = re.compile(
    r"not permitted|permission denied|CAP_SYS_PTRACE|perf_event_paranoid", re.IGNORECASE
)


@dataclass(frozen=True)
class Desk:
    """Where a test works: a store, a home and a library of its own."""

    path: Path
    library: Path
    environ: dict[str, str]
    plain: bool = False  # the program runs without us

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a tool to its end; skips where the machine forbids to look at other processes."""
        result = subprocess.run(
            command,
            env=clean_environment(**{**self.environ, "PYHUGETEXT": "0"}),
            cwd=self.path,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        if result.returncode and FORBIDDEN.search(result.stderr):
            pytest.skip(f"{Path(command[0]).name}: {result.stderr.strip().splitlines()[0]}")
        if check:
            assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result

    def skip_where_files_get_no_huge_pages(self) -> None:
        verdict = self.path / "cache/pyhugetext/v1/verdict"
        if not verdict.exists() or not verdict.read_text().endswith("written\n"):
            pytest.skip("the file system of the temporary directory gives no huge pages to files")

    def command(self, seconds: str = SECONDS) -> list[str]:
        return [sys.executable, PROGRAM, str(self.library), seconds]

    @contextlib.contextmanager
    def process(self, seconds: str = SECONDS, ends: bool = False) -> Iterator[dict[str, Any]]:
        """The program running; what it says about itself, its text all from the store. It has to
        survive what is done to it, but where it is said that it ends."""
        environ = clean_environment(**self.environ)
        process = subprocess.Popen(
            self.command(seconds), env=environ, cwd=self.path, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, f"the program ended with status {process.wait()}"
            said = json.loads(line)
            for name in () if self.plain else ("interpreter", "library"):
                assert said[name], f"no text of the {name} can be covered"
                if said[name]["backing"] != "store":
                    self.skip_where_files_get_no_huge_pages()
                    pytest.fail(f"{name}: {said[name]['reason']}")
            if seconds == "stuck":
                wait_for_processor_time(said["pid"])
            yield {**said, "wait": functools.partial(process.wait, 30)}
            ended = process.poll()
            assert ends or ended is None, f"the program ended with status {ended}"
        finally:
            process.kill()
            process.communicate()


Test = TypeVar("Test", bound=Callable[..., None])


def where_the_tool_works(test: Test) -> Test:
    """Skips where a tool fails on a process without us, too: a test that fails is run once more on
    one. For tests that ask nothing of us but that the tool works."""

    @functools.wraps(test)
    def run(desk: Desk, **fixtures: Any) -> None:
        try:
            test(desk=desk, **fixtures)
        except Exception:
            environ = {**desk.environ, "PYHUGETEXT": "0"}
            try:
                test(desk=dataclasses.replace(desk, environ=environ, plain=True), **fixtures)
            except Exception as error:
                lines = [line for line in str(error).splitlines() if line.strip()] or ["?"]
                pytest.skip(f"fails on a process without us, too: {lines[-1][:200]}")
            raise

    return cast(Test, run)


def wait_for_processor_time(pid: int) -> None:
    """Until the process has done more than to print its line."""
    first = None
    for _ in range(600):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used = int(fields[11]) / os.sysconf("SC_CLK_TCK")
        first = used if first is None else first
        if used > first + 0.1:
            return
        time.sleep(0.05)
    pytest.fail("the program got no processor time in 30 s")
