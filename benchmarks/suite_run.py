"""Running one workload of the suite, in several processes one after the other, and putting together
what they measured."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import workloads

from pyhugetext.measure.measurement import CONTROL, EFFECT, Measurement, Quad, quad_from

_CHILD = Path(__file__).with_name("suite_child.py")


class Run:
    """One workload; `seconds` for each side are divided among the processes."""

    def __init__(self, name: str, sides: list[str], seconds: float, processes: int) -> None:
        self.name = name
        self.sides = sides
        self.seconds = seconds
        self.processes = processes
        self.versions: dict[str, str] = {}
        self.skipped: str | None = None
        self._found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        self._failed: dict[str, str] = {}

    def run(self, tell: Callable[[str], object]) -> None:
        """Measures to the end; `tell` hears where it is. On any exception (Ctrl-C) the process is
        ended, and what was measured is kept."""
        for process in range(self.processes):
            self._run_one(process, tell)
            if self.skipped or len(self._failed) == len(self.sides):
                return

    def as_dict(self) -> dict[str, Any]:
        """What was found, ready for JSON; see the manual of suite.py."""
        return {
            "name": self.name,
            "title": workloads.load(self.name).TITLE,
            "versions": self.versions,
            "skipped": self.skipped,
            "sides": {} if self.skipped else {side: self._side(side) for side in self.sides},
        }

    def _run_one(self, process: int, tell: Callable[[str], object]) -> None:
        with tempfile.TemporaryFile() as output:
            reading, writing = os.pipe()
            child = subprocess.Popen(
                [sys.executable, str(_CHILD), self.name, ",".join(self.sides),
                 str(self.seconds / self.processes), str(writing)],
                env=_environment(process),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writing],
            )  # fmt: skip
            os.close(writing)
            missing = set(self.sides)
            try:
                for message in _messages(reading):
                    if "share" in message:
                        share = f"{message['side']} {message['share']:.0%}"
                        tell(f"process {process + 1} of {self.processes}, {share}")
                    elif "result" in message:
                        missing.discard(message["side"])
                        self._take(process, message["side"], message["result"])
                    else:
                        self.skipped = message.get("skipped")
                        self.versions = message.get("versions", {})
                status = child.wait()
            except BaseException:
                child.kill()
                child.wait()
                raise
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
        if not self.skipped:
            last = said[-1] if said else "it said nothing"
            for side in missing:
                self._failed[side] = f"its process ended with status {status}: {last}"

    def _take(self, process: int, side: str, result: dict[str, Any]) -> None:
        if result.get("skipped"):
            self._failed[side] = result["skipped"]
            return
        for quad in result["quads"]:
            quad["process"] = process
        self._found[side].append(result)

    def _side(self, side: str) -> dict[str, Any]:
        found = self._found[side]
        quads = [quad_from(quad) for result in found for quad in result["quads"]]
        if side in self._failed or not quads:
            return {"skipped": self._failed.get(side, "it was not measured")}
        document = Measurement(kind="statement", quads=tuple(quads)).as_dict()
        return {
            **{key: document[key] for key in ("effect", "control", "whole", "wall", "verdict")},
            "text": found[-1]["text"],
            "iteration_ns": int(statistics.median(result["iteration_ns"] for result in found)),
            "quads": {kind: _ratios(quads, kind, self.processes) for kind in (EFFECT, CONTROL)},
        }


def _ratios(quads: list[Quad], kind: str, processes: int) -> list[list[float]]:
    """The ratios one by one, a list for each process."""
    return [
        [
            round((quad.lap[1] + quad.lap[2]) / (quad.lap[0] + quad.lap[3]), 6)
            for quad in quads
            if quad.kind == kind and quad.process == process
        ]
        for process in range(processes)
    ]


def _environment(process: int) -> dict[str, str]:
    """For a workload: no hook, one thread, and the same order of sets in every run."""
    kept = ("PYHUGETEXT_STORE", "PYHUGETEXT_STORE_LIMIT", "PYHUGETEXT_SHM_LIMIT")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYHUGETEXT") or k in kept}
    return {
        **environ,
        **workloads.THREADS,
        # The suite may copy what a program at its start would leave alone.
        "PYHUGETEXT_BUILD": "always",
        "PYHUGETEXT_BUILD_TIME": "unlimited",
        "PYHUGETEXT": "0",
        "PYTHONHASHSEED": str(process),
    }


def _messages(reading: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            # The last may be half a line, of a process that died.
            with contextlib.suppress(json.JSONDecodeError):
                message: dict[str, Any] = json.loads(line)
                yield message
