"""Processes to look at: children that wait for orders on their standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyhugetext._stats.model import SUMMED
from support.common import clean_environment

# What a child runs after the code of its own: `stats` prints them, all else is executed first.
_LOOP = """
import json, sys
print("ready", flush=True)
for line in sys.stdin:
    exec(json.loads(line))
    try:
        import pyhugetext
        told = pyhugetext.stats().as_dict()
    except ImportError:
        told = None
    print(json.dumps(told), flush=True)
"""

# In a child that inspects: finds files by their names where argv[2] says so, as where map_files is
# not allowed.
BY_NAME_IF_TOLD = """
        import sys
        from pyhugetext.process import files, inspect
        if sys.argv[2] == "by name":
            first = files.Files.__init__
            def init(files, process):
                first(files, process)
                files._links = False
            files.Files.__init__ = init
"""

FIGURES = (*SUMMED, "backing", "active")
REGION_FIGURES = (
    *("path", "build_id", "start", "end", "text_bytes", "coverable_bytes", "mapped_bytes"),
    *("swapped_bytes", "huge_bytes", "small_bytes", "private_bytes", "backing", "status"),
)


class Target:
    """A running child; ask() executes code in it and returns its own stats()."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def ask(self, code: str = "") -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(textwrap.dedent(code)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the child died"
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def running(
    code: str = "",
    *arguments: str,
    prefix: Sequence[str] = (),
    executable: str = sys.executable,
    **env: str,
) -> Iterator[Target]:
    """A child that has executed the code and waits. `prefix` must end in exec, so that the child
    keeps the process id."""
    process = subprocess.Popen(
        [*prefix, executable, "-c", textwrap.dedent(code) + _LOOP, *arguments],
        env=clean_environment(**env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            pytest.fail(f"the child ended with {process.wait()}")
        yield Target(process)
    finally:
        process.kill()
        process.communicate()


def figures(stats: dict[str, Any], root: str = "") -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """What two readings of one process have to agree in, with names below its root."""

    def of(region: dict[str, Any]) -> tuple[Any, ...]:
        named = {**region, "path": region["path"].removeprefix(root)}
        return tuple(named[name] for name in REGION_FIGURES)

    return {name: stats[name] for name in FIGURES}, sorted(map(of, stats["regions"]))


def assert_agreement(target: Target, code: str = "") -> dict[str, Any]:
    """inspect() and the process's own stats() say the same, to the byte. Returns the latter."""
    from pyhugetext.process import inspect

    own = target.ask(code)
    # Run in a chroot, we are told names in another mount namespace from that one's top.
    root = os.readlink(f"/proc/{target.pid}/root").rstrip("/")
    # What the kernel does on its own (reclaim) may fall between two readings.
    for _ in range(5):
        seen = inspect.inspect(target.pid).as_dict()
        again = target.ask()
        if figures(own) == figures(again):
            break
        own = again
    assert figures(seen, root) == figures(own)
    return own


def region(stats: dict[str, Any], path: Path | str) -> dict[str, Any]:
    (found,) = [r for r in stats["regions"] if r["path"] == str(path)]
    return dict(found)
