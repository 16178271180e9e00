"""One process that switches between small and huge text, and what each costs.

The order is A-B-B-A (small, huge, huge, small), so that whatever drifts evenly (the processor's
clock, other programs, a growing heap) hits both sides alike; heap, data and inputs are the same
ones on both sides. A slot is made of laps of the same work, and the fastest one counts: what a
neighbour on the same core takes comes and goes within milliseconds.

After each switch the text has to be mapped page by page again, by faults that cost the small side
more. So every switch is followed by laps that are not counted: they touch all pages that the next
ones need, those of the code that measures included. Quads of the control, between those of the
effect, do the same dance but end on small text at every step.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable
from typing import Protocol

from pyhugetext.measure.measurement import CONTROL, EFFECT, Quad, quad_of

SLOT = 0.02  # seconds
_LAP = 0.0005  # seconds: a shorter one would measure the clock, whose reading takes 0.3 us
_THREADED = 1.05  # this much more CPU time than the main thread's is that of others
_TRIES = 5
_WARM_SHARE = 4  # a quarter of a slot is not counted after a switch


class Meter(Protocol):
    """Counters that are read around the slots of one side."""

    def begin(self) -> None: ...
    def end(self, side: str) -> None: ...


class Switcher:
    """`repeat(n)` runs the workload n times; `huge()` and `small()` switch the text.

    Begins and ends on small text. Exceptions of the three pass through.
    """

    def __init__(
        self,
        repeat: Callable[[int], object],
        *,
        huge: Callable[[], object],
        small: Callable[[], object],
        slot: float = SLOT,
        loops: int | None = None,
        laps: int | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._repeat = repeat
        self._huge = huge
        self._small = small
        self._meter = meter
        self.slot = slot
        self.run_seconds, self.threaded = self._autorange()  # of one run, wall-clock
        # The kernel brings the CPU time of other running threads up to date only at its ticks,
        # milliseconds apart: with threads the slot is one lap.
        lap = slot if self.threaded else min(_LAP, slot)
        self.loops = loops if loops is not None else max(1, round(lap / self.run_seconds))
        self.laps = laps or max(1, round(slot / (self.loops * self.run_seconds)))
        self.warm_laps = max(1, self.laps // _WARM_SHARE)

    def _autorange(self) -> tuple[float, bool]:
        """Seconds a run takes, and whether threads other than this one work for it."""
        self._repeat(1)  # imports, caches, adaptive bytecode
        loops = 1
        while True:
            began = time.perf_counter(), time.process_time(), time.thread_time()
            self._repeat(loops)
            ended = time.perf_counter(), time.process_time(), time.thread_time()
            wall, process, thread = (b - a for a, b in zip(began, ended))
            if wall >= self.slot / 2:
                break
            loops = max(loops * 2, int(loops * self.slot / 2 / max(wall, 1e-6)))
        fastest = wall  # of a few: another program may have had the processor
        for _ in range(_TRIES if wall < self.slot else 0):
            start = time.perf_counter()
            self._repeat(loops)
            fastest = min(fastest, time.perf_counter() - start)
        return fastest / loops, process > _THREADED * thread

    def quad(self, kind: str) -> Quad:
        """Four slots: of the effect, or of the control."""
        if kind == EFFECT:
            first, second, small, huge = self._huge, self._small, "small", "huge"
        else:
            first = second = self._away_and_back
            small = huge = ""  # nothing is counted
        # What was done with the last quad (its figures were sent to another process, which now
        # works on them) must not fall into the first slot only.
        self._warm()
        slots = [self._measure(small)]
        first()
        self._warm()
        slots += [self._measure(huge), self._measure(huge)]
        second()
        self._warm()
        return quad_of(kind, [*slots, self._measure(small)])

    def settle(self) -> None:
        """To be called once before the first quad: both sides have been run."""
        self._away_and_back()
        self._warm()

    def _away_and_back(self) -> None:
        self._huge()
        self._small()

    def _warm(self) -> None:
        """Touches what a slot touches, the code that measures included."""
        self._measure("", self.warm_laps)

    def _measure(self, side: str, laps: int | None = None) -> tuple[int, int, int, int]:
        """Of one slot, as in Quad; CPU time is that of all threads."""
        repeat, loops, clock = self._repeat, self.loops, time.process_time_ns
        meter = self._meter if side else None
        if meter is not None:
            meter.begin()
        faults = _faults()
        wall = time.perf_counter_ns()
        began = last = clock()
        fastest = 1 << 63
        for _ in range(self.laps if laps is None else laps):
            repeat(loops)
            now = clock()
            fastest = min(fastest, now - last)
            last = now
        wall = time.perf_counter_ns() - wall
        faults = _faults() - faults
        if meter is not None:
            meter.end(side)
        return max(fastest, 1), last - began, wall, faults


def _faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def quads(switcher: Switcher, seconds: float, on_quad: Callable[[Quad, float], object]) -> None:
    """Measures for so many seconds, at least one quad of the effect and one of the control.
    `on_quad` gets each with the share of the time that is over (0 to 1)."""
    switcher.settle()
    began = time.monotonic()
    for kind in itertools.cycle((EFFECT, CONTROL)):
        quad = switcher.quad(kind)
        share = (time.monotonic() - began) / seconds if seconds > 0 else 1.0
        on_quad(quad, min(share, 1.0))
        # Between the two kinds of quads, so that there is a control to every effect.
        if share >= 1 and kind == CONTROL:
            return
