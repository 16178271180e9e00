"""One process measured from its start to its end, and medians with intervals, for the benchmarks
of what a start costs."""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2000


@dataclass(frozen=True)
class Cost:
    """What one process took, in milliseconds."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Estimate:
    """A median with the interval that holds it in 95 % of the resamples."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 1 if self.median >= 100 else 3
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def start(code: str, environ: dict[str, str], python: str = sys.executable) -> Cost:
    """Runs `python -c code` once. RuntimeError when it fails."""
    return start_command([python, "-c", code], environ)


def start_command(command: Sequence[str], environ: dict[str, str]) -> Cost:
    """Runs a command once. RuntimeError when it fails."""
    began = time.perf_counter_ns()
    pid = os.posix_spawn(command[0], list(command), environ)
    _, status, usage = os.wait4(pid, 0)
    ended = time.perf_counter_ns()
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with wait status {status}")
    return Cost((usage.ru_utime + usage.ru_stime) * 1e3, (ended - began) / 1e6)


def estimate(values: Sequence[float]) -> Estimate:
    """The median and its interval, by resampling with a fixed seed."""
    rng = random.Random(20260101)
    medians = sorted(
        statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    low, high = medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)]
    return Estimate(statistics.median(values), low, high)
