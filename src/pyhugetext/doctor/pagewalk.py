"""Whether huge pages reach the hardware: how much of the time for page walks they save.

A guest's huge page is one for the processor only where the host backs it with a huge page, too.
Else the processor keeps 4 KiB translations, and only the guest's half of each walk gets shorter.
So the same random walk over one cell a page is timed on small pages, on huge pages, and, without
any page walk, over cells that lie next to each other. The cells fit in the second-level cache or
nearly; the small pages are more than any TLB holds.
"""

from __future__ import annotations

import mmap
import statistics
from typing import NamedTuple

from pyhugetext import _native, _words
from pyhugetext._stats.kernel import fields_of
from pyhugetext._units import PAGE
from pyhugetext.doctor import memory
from pyhugetext.doctor.check import INFO, LIMIT, OK, UNKNOWN, Check

SIZE = 32 << 20
_LINE = 64
_STEPS = 50_000
_ROUNDS = 24
_NEEDED = 128 << 20  # bytes: what is touched, twice

# Of the time for page walks, what huge pages save where they reach the hardware, at the least.
REACHES = 0.75


class Timing(NamedTuple):
    """Nanoseconds a step, of the fastest rounds: what others do on the machine only adds."""

    small: float
    huge: float
    floor: float  # without page walks
    ratio: float  # huge/small, median of all rounds
    low: float  # their quartiles
    high: float

    @property
    def saved(self) -> float | None:
        """The share of the time for page walks that huge pages save; None where there is too
        little of it to tell."""
        walk = self.small - self.floor
        return (self.small - self.huge) / walk if walk > 0.2 * self.small else None


def check(guest: bool | None) -> Check:
    """Times it; `guest` tells whether there is a hypervisor. Takes about half a second."""
    try:
        timing = _time()
    except (OSError, MemoryError) as error:
        words = _words.sentence(error, True) if isinstance(error, OSError) else "no memory"
        return Check("machine", "page_walk", UNKNOWN, f"not timed: {words}", dict.fromkeys(_FACTS))
    saved = timing.saved
    figures = [round(figure, 2) for figure in (timing.small, timing.huge, timing.floor)]
    ratios = [round(ratio, 3) for ratio in (timing.ratio, timing.low, timing.high)]
    facts = dict(zip(_FACTS, (*figures, *ratios, None if saved is None else round(saved, 3))))
    text = (
        f"huge/small {timing.ratio:.2f} ({timing.low:.2f} to {timing.high:.2f}); at best a step takes "
        f"{timing.small:.1f} ns on small pages, {timing.huge:.1f} on huge ones, {timing.floor:.1f} "
        "without page walks: "
    )
    if saved is None:
        return Check("machine", "page_walk", INFO, f"{text}page walks cost nothing here", facts)
    text += f"huge pages save {max(saved, 0):.0%} of the walk"
    if saved >= REACHES:
        return Check("machine", "page_walk", OK, text, facts)
    if guest is not False:
        text += ", as where a host backs its guests with 4 KiB pages"
    return Check("machine", "page_walk", LIMIT, text, facts)


_FACTS = ("small_ns", "huge_ns", "floor_ns", "ratio", "ratio_low", "ratio_high", "saved")


def _time() -> Timing:
    """OSError where there is no memory to spare, or none in huge pages."""
    _need_memory()
    with memory.aligned(SIZE) as (small, around_small), memory.aligned(SIZE) as (huge, around):
        around_small.madvise(mmap.MADV_NOHUGEPAGE)
        around.madvise(mmap.MADV_HUGEPAGE)
        _native.link_cells(small, PAGE)
        _native.link_cells(huge, PAGE)
        if memory.huge_bytes(huge) < SIZE:
            around.madvise(memory.MADV_COLLAPSE)
        if memory.huge_bytes(huge) < SIZE:
            raise OSError(0, "the kernel gave too few huge pages to anonymous memory")
        with memory.aligned(SIZE // PAGE * _LINE) as (dense, _):
            _native.link_cells(dense, _LINE)
            return _alternate(small, huge, dense)


def _alternate(small: memoryview, huge: memoryview, dense: memoryview) -> Timing:
    """Small, huge, without walks, huge, small: a drift hits both alike. OSError where the clock
    does not advance within a walk."""
    walk = _native.chase_cells
    smalls, huges, floors = [], [], []
    for _ in range(_ROUNDS):
        smalls.append(walk(small, _STEPS) / _STEPS)
        huges.append(walk(huge, _STEPS) / _STEPS)
        floors.append(walk(dense, _STEPS) / _STEPS)
        huges.append(walk(huge, _STEPS) / _STEPS)
        smalls.append(walk(small, _STEPS) / _STEPS)
    if not all((*smalls, *huges, *floors)):
        raise OSError(0, "the clock is too coarse to time a walk")
    ratios = [h / s for h, s in zip(huges, smalls)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return Timing(min(smalls), min(huges), min(floors), statistics.median(ratios), low, high)


def _need_memory() -> None:
    free = _native.memory_room()["free"]
    available = fields_of("/proc/meminfo").get("MemAvailable", "").split()
    left = [int(available[0]) * 1024] if available else []
    if free is not None:
        left.append(free)
    if left and min(left) < _NEEDED:
        raise OSError(0, "too little memory is free")
