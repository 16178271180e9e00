"""Whole commands in alternating pairs: PYHUGETEXT=0 against on, in the order A-B-B-A.

CPU time is user and system time of the command and of all children that it waited for, as the
kernel charged them (getrusage(2)). Between the quads of the effect are those of the control, with
PYHUGETEXT=0 on both sides.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from pyhugetext import _backing, _words
from pyhugetext.children import temporary
from pyhugetext.children.endings import ending, kill_group, last_line, uninterrupted
from pyhugetext.measure.counters import Meters, tlb_events
from pyhugetext.measure.expectation import Expectation, unknown, walk_meter
from pyhugetext.measure.measurement import (
    CONTROL,
    EFFECT,
    Measurement,
    MeasuringFailed,
    Quad,
    quad_of,
)
from pyhugetext.measure.statistics import FEWEST_PAIRS, MOST_LOOKS
from pyhugetext.measure.stopping import FEWEST_PAIRS_EARLY, TIME, settled
from pyhugetext.programs import preload

# Two pairs a quad.
FEWEST_QUADS = FEWEST_PAIRS // 2

_NS = 1_000_000_000


def environments(backing: str | None, library: str = "") -> dict[str, dict[str, str]]:
    """By side, and of the "warm" run before, the environment of the command, with the preload
    library on all sides where one is given. On the huge side it is the user's own where that will do:
    reading settings takes a start longer."""
    base = {k: v for k, v in os.environ.items() if k not in ("PYHUGETEXT", "PYHUGETEXT_DEBUG")}
    if library:
        base = preload.environment(base, library)
    huge = dict(base)
    if backing is not None:
        huge["PYHUGETEXT_BACKING"] = backing
    if backing in _backing.PRIVATE:
        huge["PYHUGETEXT_PRIVATE_LIMIT"] = "unlimited"
    sides = {"small": {**base, "PYHUGETEXT": "0"}, "huge": huge}
    if not library:
        # Whatever the file system, what is missing in the store is built. For other programs, of which
        # many have another address at each start, it was prepared.
        built = {"PYHUGETEXT_BUILD": "always", "PYHUGETEXT_BUILD_TIME": "unlimited"}
        sides["warm"] = {**huge, **built}
    return sides


@dataclass
class Comparison:
    """A command, and what was measured of it so far. `log` gets what it prints; else nobody.

    on_quad(quad, share) is called after each; `share` of the work is over (0 to 1).
    """

    command: Sequence[str]
    seconds: float
    environs: Mapping[str, Mapping[str, str]]
    log: IO[bytes] | None = None
    on_quad: Callable[[Quad, float], object] = lambda quad, share: None
    on_phase: Callable[[str], object] = lambda label: None
    precision: float | None = None  # None measures for all of the time
    on_expectation: Callable[[Expectation], bool] = lambda found: True  # whether to go on
    quads: list[Quad] = field(default_factory=list)
    text: dict[str, Any] = field(default_factory=dict)  # what the preload library reported
    expectation: Expectation | None = None
    looks: int = 1  # at how many points measuring might have ended
    ended: str = TIME  # why it ended; see stopping
    _meters: Meters | None = None

    def run(self) -> None:
        """Measures to the end. MeasuringFailed where the command cannot be run or fails; on any
        exception (Ctrl-C) it and its children are killed, and what was measured is kept."""
        # Inherited by what this thread starts.
        self._meters = Meters(tlb_events(), commands=True)
        try:
            self.on_phase("warming up")
            with self._directory() as reports:
                for side in ("warm", "huge"):
                    if side in self.environs:
                        self._warm(side, reports)
                self.expectation = self._expect(reports)
                self.text = reported(reports)
            if not self.on_expectation(self.expectation):
                return
            began = time.monotonic()
            early = [part / MOST_LOOKS for part in range(1, MOST_LOOKS)]
            for kind in itertools.cycle((EFFECT, CONTROL)):
                self.on_phase(f"run {4 * len(self.quads) + 1}")
                self.quads.append(self._quad(kind))
                share = min(
                    (time.monotonic() - began) / self.seconds if self.seconds > 0 else 1.0,
                    len(self.quads) / (2 * FEWEST_QUADS),
                )
                self.on_quad(self.quads[-1], min(share, 1.0))
                if kind == CONTROL and (share >= 1 or self._settled(share, early)):
                    return
        finally:
            self._meters.close()

    def _expect(self, reports: str) -> Expectation:
        """Of the last run for warming up, on small text."""
        meter = walk_meter(commands=True)
        if meter is not None:
            meter.begin()
        self._warm("small", reports)
        found = meter.end() if meter is not None else None
        return found or unknown(
            "this machine counts no page walks, and a COMMAND is not sampled as a STMT is"
        )

    def _settled(self, share: float, early: list[float]) -> bool:
        """Whether the interval is good enough, once a point is reached where that may be asked.
        Which points those are depends on the time only."""
        if self.precision is None or not early or share < early[0]:
            return False
        while early and share >= early[0]:
            early.pop(0)
        found = self.measurement()
        if 2 * len(found.of(EFFECT)) < FEWEST_PAIRS_EARLY:
            return False
        if self.looks == 1:
            self.looks = len(early) + 2  # this one, those to come, and the end
        found = self.measurement(settings={"looks": self.looks})
        self.ended = settled(found.effect, self.precision) or TIME
        return self.ended != TIME

    def _directory(self) -> tempfile.TemporaryDirectory[str]:
        try:
            return temporary.directory()
        except temporary.NoDirectory as error:
            raise MeasuringFailed(str(error)) from None

    def _warm(self, side: str, reports: str) -> None:
        # Programs that the preload library is in say what they have; in Pythons nobody writes one.
        told = {"PYHUGETEXT_REPORT": os.path.join(reports, "%p.json")} if side == "huge" else {}
        with tempfile.TemporaryFile(dir=temporary.place()) as errors:
            status, *_ = self._start(side, errors, told)
            if status:
                raise MeasuringFailed(f"the command {ending(status)}{last_line(errors)}")

    def _quad(self, kind: str) -> Quad:
        sides = ("small", "huge", "huge", "small") if kind == EFFECT else ("small",) * 4
        runs: list[tuple[int, int, int, int]] = []
        for side in sides:
            if kind == EFFECT and self._meters is not None:
                self._meters.begin()
            status, cpu, wall, faults = self._start(side, None)
            if status:
                number = 4 * len(self.quads) + len(runs) + 1
                raise MeasuringFailed(
                    f"the command {ending(status)} in run {number}, with {side} text; before it "
                    "had succeeded"
                )
            if kind == EFFECT and self._meters is not None:
                self._meters.end(side)
            runs.append((max(cpu, 1), max(cpu, 1), wall, faults))
        return quad_of(kind, runs)

    def _start(
        self, side: str, errors: IO[bytes] | None, more: Mapping[str, str] | None = None
    ) -> tuple[int, int, int, int]:
        """Runs it once: status as subprocess has it, CPU and wall-clock time in nanoseconds, page
        faults."""
        output: Any = self.log if self.log is not None else subprocess.DEVNULL
        process: subprocess.Popen[bytes] | None = None
        began = time.perf_counter_ns()
        try:
            with uninterrupted():
                process = subprocess.Popen(
                    list(self.command),
                    env={**self.environs[side], **(more or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors if errors is not None else output,
                    start_new_session=True,  # a terminal's Ctrl-C is for us
                )
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter_ns() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        except (OSError, ValueError) as error:
            reason = f"{self.command[0]}: {_words.reason(error)}"
            raise MeasuringFailed(f"the command cannot be run: {reason}") from None
        finally:
            if process is not None:
                kill_group(process)
        cpu = round((usage.ru_utime + usage.ru_stime) * _NS)
        return process.returncode, cpu, wall, usage.ru_minflt + usage.ru_majflt

    def measurement(self, **more: Any) -> Measurement:
        """What was measured so far; `more` are fields of Measurement."""
        counters = self._meters.as_dict(1) if self._meters is not None else {}
        expectation = None if self.expectation is None else self.expectation._asdict()
        return Measurement(
            kind="command",
            quads=tuple(self.quads),
            text=self.text,
            counters=counters,
            expectation=expectation,
            **more,
        )


def reported(directory: str) -> dict[str, Any]:
    """Of the preload library's reports in a directory the one of the process with the most text on
    huge pages; empty where there is none. Sizes in bytes."""
    found: list[dict[str, Any]] = []
    for name in os.listdir(directory):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(os.path.join(directory, name), "rb") as file:
                document = json.load(file)
            regions = document["regions"]
            largest = max(
                regions, key=lambda r: int(r["mapped_bytes"]), default={"backing": "none"}
            )
            sums = {
                key: sum(int(region[key]) for region in regions)
                for key in ("text_bytes", "coverable_bytes", "mapped_bytes")
            }
            found.append({"command": document["command"], "backing": largest["backing"], **sums})
    return max(found, key=lambda one: (one["mapped_bytes"], one["coverable_bytes"]), default={})
