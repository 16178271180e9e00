"""When measuring may end before its time: at fixed points only, by an interval that is widened for
having been looked at so often (statistics.ratio), so that stopping early finds nothing that is
not there. The size of an effect found early is a little too large on average; its interval says by
how much it may be."""

from __future__ import annotations

import math

from pyhugetext.measure.statistics import FEWEST_PAIRS, MOST_LOOKS, Ratio

PRECISION = 0.003

NARROW, DECIDED, TIME = "narrow", "decided", "time"

# Below, an interval says too little of itself: of processes, and of pairs of whole commands.
_FEWEST_PROCESSES = 5
FEWEST_PAIRS_EARLY = 2 * FEWEST_PAIRS


def looks_at(processes: int) -> list[int]:
    """After how many of so many processes the interval is looked at: a third, two thirds, all."""
    points = {math.ceil(processes * part / MOST_LOOKS) for part in range(1, MOST_LOOKS + 1)}
    return sorted(n for n in points if n >= _FEWEST_PROCESSES or n == processes)


def settled(effect: Ratio, precision: float) -> str:
    """Why measuring may end: NARROW, the interval reaches no further than `precision` from its
    middle; DECIDED, 1 lies further than that outside of it. Empty where it may not."""
    if effect.pairs < FEWEST_PAIRS:
        return ""
    if effect.high - effect.low <= 2 * precision:
        return NARROW
    if effect.high < 1 - precision or effect.low > 1 + precision:
        return DECIDED
    return ""
