"""Ratios with intervals, and the verdict on them. Pure Python, the same answer at every call."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# A 95 % interval of a median does not exist for fewer: the extremes of five values miss it in
# 2 * 0.5 ** 5 = 6 % of all cases.
FEWEST_PAIRS = 6

EFFECT_CONFIDENCE = 0.95
# A control that is sound must not cry wolf in every twentieth run.
CONTROL_CONFIDENCE = 0.99

# Who looks at an interval several times and stops when he likes it is wrong more often than the
# interval says. So it is made wider: by the share of cases that each of several looks may be wrong
# in, for 95 % of all of them together (Pocock, Biometrika 64, 1977).
_POCOCK = {1: 0.05, 2: 0.0294, 3: 0.0221}
MOST_LOOKS = len(_POCOCK)

_RESAMPLES = 4000
_SEED = 20260101


class Ratio(NamedTuple):
    """The median of ratios, the interval that holds it with `confidence`, and of how many. With
    fewer than FEWEST_PAIRS `low` and `high` are the extremes."""

    median: float
    low: float
    high: float
    pairs: int
    confidence: float = EFFECT_CONFIDENCE

    def __str__(self) -> str:
        return f"{self.median:.4f} ({self.low:.4f} to {self.high:.4f})"

    @property
    def contains_one(self) -> bool:
        return self.low <= 1.0 <= self.high


def ratio(
    pairs: Sequence[tuple[float, float]],
    confidence: float = EFFECT_CONFIDENCE,
    groups: Sequence[int] = (),
    looks: int = 1,
) -> Ratio:
    """The median of numerator / denominator over pairs (of CPU times: huge, small), with its
    bootstrap interval. `groups` tells by a number for each pair which belong together, as those
    of one process do: then groups are drawn before pairs are drawn from them, so that the interval
    covers what differs between groups. With several `looks`, at which measuring may end, it is
    widened to hold it with that confidence whichever was the last. ValueError for no pairs, or
    times that are not positive."""
    if not pairs:
        raise ValueError("no pairs to compare")
    values = []
    for numerator, denominator in pairs:
        if not (0 < numerator < math.inf and 0 < denominator < math.inf):
            raise ValueError(f"({numerator!r}, {denominator!r}) is no pair of times")
        values.append(numerator / denominator)
    by_group: dict[int, list[float]] = {}
    for group, value in zip(groups, values):
        by_group.setdefault(group, []).append(value)
    values.sort()
    n = len(values)
    median = (values[(n - 1) // 2] + values[n // 2]) / 2
    if n < FEWEST_PAIRS:
        return Ratio(median, values[0], values[-1], n, confidence)
    if len(by_group) > 1:
        medians = _resampled_groups([sorted(by_group[group]) for group in sorted(by_group)])
    else:
        medians = _resampled_medians(values)
    cut = (1 - confidence) / 2 * _POCOCK[min(looks, MOST_LOOKS)] / _POCOCK[1]
    low = medians[int(cut * len(medians))]
    high = medians[min(int((1 - cut) * len(medians)), len(medians) - 1)]
    # An average of two equal floats may differ from them in the last bit.
    return Ratio(median, min(low, median), max(high, median), n, confidence)


def _resampled_medians(values: Sequence[float]) -> list[float]:
    """The medians of bootstrap resamples of sorted values, sorted.

    Drawing n values with replacement is taking n uniform numbers for indices; the median needs
    only the middle ones of them in order, whose distribution is known: Beta(k, n + 1 - k) for the
    k-th. So a resample costs one or two random numbers instead of n and a sort.
    """
    rng = random.Random(_SEED)
    n, half = len(values), len(values) // 2
    last = n - 1
    medians = []
    for _ in range(_RESAMPLES):
        if n % 2:
            upper = rng.betavariate(half + 1, half + 1)
            medians.append(values[min(int(n * upper), last)])
        else:
            upper = rng.betavariate(half + 1, half)
            # The largest of `half` uniform numbers below `upper`.
            lower = upper * rng.random() ** (1 / half)
            medians.append(
                (values[min(int(n * lower), last)] + values[min(int(n * upper), last)]) / 2
            )
    medians.sort()
    return medians


def _resampled_groups(groups: list[list[float]]) -> list[float]:
    """The medians of two-stage resamples, groups first, sorted."""
    rng = random.Random(_SEED)
    medians = []
    for _ in range(_RESAMPLES // 2):
        drawn: list[float] = []
        for group in rng.choices(groups, k=len(groups)):
            drawn += rng.choices(group, k=len(group))
        medians.append(statistics.median(drawn))
    medians.sort()
    return medians


class Verdict(NamedTuple):
    """What was found: a word for programs, a sentence for people."""

    word: str  # faster, slower, no difference, too noisy, too few
    sentence: str


def verdict(effect: Ratio, control: Ratio | None) -> Verdict:
    """What the ratios of CPU time say, no more than they do. `control` compares the same with
    itself; None where it was not measured yet."""
    if effect.pairs < FEWEST_PAIRS or control is None or control.pairs < FEWEST_PAIRS:
        found = min(effect.pairs, control.pairs if control else 0)
        return Verdict(
            "too few",
            f"no verdict: {found} of at least {FEWEST_PAIRS} pairs measured for it and its control",
        )
    if not control.contains_one:
        return Verdict(
            "too noisy",
            "no verdict: this machine is too noisy, the control (the same on both sides) shows "
            f"{control}",
        )
    if effect.contains_one:
        low, high = 100 * (1 - effect.high), 100 * (1 - effect.low)
        return Verdict(
            "no difference",
            f"no difference shown (between {-low:.1f} % slower and {high:.1f} % faster)",
        )
    word, sign = ("faster", -1) if effect.median < 1 else ("slower", 1)
    middle, *ends = (sign * 100 * (x - 1) for x in (effect.median, effect.low, effect.high))
    return Verdict(word, f"{word} by {middle:.1f} % ({min(ends):.1f} to {max(ends):.1f} %)")
