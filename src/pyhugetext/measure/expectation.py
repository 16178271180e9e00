"""Whether a gain can be expected of a workload here, told before anything is compared.

Where the processor counts page walks, the share of the cycles that they take says it. Elsewhere the
workload's text is looked at while it is on small pages: the processor marks each page in the page
table that it uses, the kernel clears the marks when asked to (/proc/self/clear_refs) and sums them
up in smaps (`Referenced`). So it shows how much text a lap of half a millisecond or so touches, and
that is compared with what the instruction TLB reaches. It harms nobody: marks are all that is
cleared, of the process that runs the statement only, and the kernel needs them only to choose what
it reclaims.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pyhugetext import _words
from pyhugetext._units import PAGE
from pyhugetext.measure import walks
from pyhugetext.measure.counters import CYCLES, Counter, Unavailable, walk_event

LIKELY, POSSIBLE, UNLIKELY, UNKNOWN = "likely", "possible", "unlikely", "unknown"

# Shares of the cycles that page walks for instructions take; huge text saves most of them at best.
_MUCH, _LITTLE = 0.02, 0.005
# Of what the instruction TLB reaches: below, everything fits beside what others need.
_FITS = 0.5

_ROUNDS = 9
_ENOUGH = 0.5  # seconds for all rounds
_SHORT = 0.005  # seconds: what a longer run touches, it may touch one after the other
_COUNTED = 0.05  # seconds that counters count
_FLUSHED = 4 << 20  # giving back so much has the kernel empty the TLB, on x86 at 33 pages already
_FILE_PAGES = b"3"  # of /proc/PID/clear_refs


class Expectation(NamedTuple):
    """`walk_share` is of the cycles, by counters; `touched_bytes` is the text used in `seconds`, by
    sampling, to be compared with `reach_bytes`. None is what was not looked at."""

    word: str  # LIKELY, POSSIBLE, UNLIKELY, UNKNOWN
    sentence: str
    method: str = ""  # counters, sampling; empty
    walk_share: float | None = None
    touched_bytes: int | None = None
    seconds: float | None = None
    reach_bytes: int | None = None


def of(run: Callable[[], object]) -> Expectation:
    """Of what `run` does, once called for warming up, in this process and on small text. Its
    exceptions pass through."""
    meter = walk_meter()
    if meter is not None:
        meter.begin()
        began = time.monotonic()
        while time.monotonic() - began < _COUNTED:
            run()
        found = meter.end()
        if found is not None:
            return found
    try:
        return from_touched(*_touched(run), walks.reach())
    except OSError as error:
        return unknown(f"the text it touches cannot be sampled: {_words.sentence(error)}")


def unknown(why: str) -> Expectation:
    return Expectation(UNKNOWN, f"whether a gain can be expected is not known: {why}")


# By counters.


class WalkMeter:
    """Counts cycles and page walks between begin() and end()."""

    def __init__(self, event: walks.Walks, counters: tuple[Counter, Counter]) -> None:
        self._event = event
        self._counters = counters
        self._before = [(0, 0, 0)] * 2

    def begin(self) -> None:
        self._before = [counter.read() for counter in self._counters]

    def end(self) -> Expectation | None:
        """What they say; None where the kernel did not let them count."""
        counts = []
        for counter, before in zip(self._counters, self._before):
            count, enabled, running = (b - a for a, b in zip(before, counter.read()))
            counter.close()
            counts.append(count * enabled / running if running else 0.0)
        cycles, walked = counts
        return from_walks(walked, cycles, self._event) if cycles else None


def walk_meter(*, commands: bool = False) -> WalkMeter | None:
    """None where this machine counts no page walks; `commands` as for Counter."""
    found, event = walks.instruction_walks(), walk_event()
    if found is None or event is None:
        return None
    try:
        cycles = Counter(CYCLES, commands=commands)
    except Unavailable:
        return None
    try:
        return WalkMeter(found, (cycles, Counter(event, commands=commands)))
    except Unavailable:
        cycles.close()
        return None


def from_walks(walked: float, cycles: float, event: walks.Walks) -> Expectation:
    """What a number of walks, or of their cycles, in so many cycles says."""
    share = walked * (1 if event.cycles else walks.CYCLES_A_WALK) / cycles
    how = event.name if event.cycles else f"{event.name}, at {walks.CYCLES_A_WALK} cycles each"
    much = f"{100 * share:.1f} % of its cycles go into page walks for instructions ({how})"
    word = LIKELY if share >= _MUCH else POSSIBLE if share >= _LITTLE else UNLIKELY
    return Expectation(word, f"{_OPENING[word]}: {much}", "counters", walk_share=share)


# By sampling.


def from_touched(touched: int, seconds: float, reach: walks.Reach) -> Expectation:
    """What it says that so many bytes of text are touched in so many seconds."""
    if touched < _FITS * reach.bytes:
        word = UNLIKELY
    elif touched < reach.bytes or seconds > _SHORT:
        word = POSSIBLE
    else:
        word = LIKELY
    whose = f"that of {reach.processor}" if reach.processor else "an ordinary one"
    shared = ", shared with data" if reach.shared else ""
    return Expectation(
        word,
        f"{_OPENING[word]}: it touches {_words.size(touched)} of text in {1000 * seconds:.3g} ms, and "
        f"the instruction TLB ({whose}, an estimate) reaches {_words.size(reach.bytes)}{shared}",
        "sampling",
        touched_bytes=touched,
        seconds=seconds,
        reach_bytes=reach.bytes,
    )


_OPENING = {
    LIKELY: "a gain can be expected",
    POSSIBLE: "a small gain is possible",
    UNLIKELY: "hardly a gain is to be expected",
}


def _touched(run: Callable[[], object]) -> tuple[int, float]:
    """Bytes of text that one run touches, and its seconds: the least of some rounds, because what
    else goes on only adds. OSError where the kernel does not tell."""
    marks = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        rounds: list[tuple[int, float]] = []
        end = time.monotonic() + _ENOUGH
        while len(rounds) < _ROUNDS and (not rounds or time.monotonic() < end):
            rounds.append(_round(run, marks))
        if not min(rounds)[0]:
            raise OSError(0, "the kernel marks no page as used")
        return min(rounds)
    finally:
        os.close(marks)


def _round(run: Callable[[], object], marks: int) -> tuple[int, float]:
    ballast = mmap.mmap(-1, _FLUSHED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            ballast.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, _FLUSHED, PAGE):
            ballast[at] = 1
        os.write(marks, _FILE_PAGES)
    finally:
        # A page that is in the TLB would not be marked again.
        ballast.close()
    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    with open("/proc/self/smaps", "rb") as file:
        return referenced(file), seconds


def referenced(lines: Any) -> int:
    """Bytes of file text that smaps says were used since the marks were cleared."""
    total = 0
    text = False
    for line in lines:
        if line[:1] in b"0123456789abcdef":
            _, permissions, _, _, inode, *_ = line.split(None, 5)
            text = b"x" in permissions and inode != b"0"
        elif text and line.startswith(b"Referenced:"):
            total += int(line.split()[1]) * 1024
    return total
