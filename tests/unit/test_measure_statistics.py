"""Ratios, their intervals and the verdict."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhugetext.measure.statistics import FEWEST_PAIRS, Ratio, ratio, verdict

times = st.floats(min_value=1e-6, max_value=1e12, allow_nan=False)
some_pairs = st.lists(st.tuples(times, times), min_size=1, max_size=60)


def like(one: Ratio, other: Ratio) -> bool:
    return one[3:] == other[3:] and all(
        math.isclose(a, b, rel_tol=1e-9) for a, b in zip(one[:3], other[:3])
    )


@given(some_pairs, st.randoms())
def test_order_of_the_pairs_does_not_matter(pairs, rng):
    shuffled = list(pairs)
    rng.shuffle(shuffled)
    assert ratio(pairs) == ratio(shuffled)


@given(some_pairs, st.floats(min_value=1e-3, max_value=1e3), st.floats(min_value=0.1, max_value=10))
def test_unit_does_not_matter_and_a_factor_comes_through(pairs, unit, factor):
    plain = ratio(pairs)
    assert like(ratio([(a * unit, b * unit) for a, b in pairs]), plain)
    slower = ratio([(a * factor, b) for a, b in pairs])
    assert like(slower, Ratio(*(x * factor for x in plain[:3]), plain.pairs))


@given(some_pairs)
def test_median_lies_in_its_interval_and_that_among_the_values(pairs):
    found = ratio(pairs)
    values = sorted(a / b for a, b in pairs)
    assert math.isclose(found.median, statistics.median(values), rel_tol=1e-12)
    assert values[0] <= found.low <= found.median <= found.high <= values[-1]
    assert found.pairs == len(pairs)


@given(some_pairs)
def test_more_confidence_is_a_wider_interval(pairs):
    narrow, wide = ratio(pairs, 0.8), ratio(pairs, 0.99)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_one_pair_and_two_give_their_extremes():
    assert ratio([(3, 2)])[:4] == (1.5, 1.5, 1.5, 1)
    assert ratio([(1, 2), (3, 2)])[:4] == (1.0, 0.5, 1.5, 2)


@pytest.mark.parametrize(
    "pairs", [[], [(1, 0)], [(0, 1)], [(-1, 1)], [(1, math.nan)], [(math.inf, 1)]]
)
def test_what_is_no_time_is_refused(pairs):
    with pytest.raises(ValueError, match="pair"):
        ratio(pairs)


@pytest.mark.parametrize("n", [7, 8, 25, 40])
def test_interval_is_that_of_a_plain_bootstrap(n):
    rng = random.Random(n)
    values = [rng.lognormvariate(0, 0.1) for _ in range(n)]
    found = ratio([(v, 1) for v in values])
    plain = sorted(statistics.median(rng.choices(values, k=n)) for _ in range(4000))
    # Both are counts of 4,000 draws: ranks agree within a percentage point.
    for at, quantile in ((found.low, 0.025), (found.high, 0.975)):
        below = sum(x < at for x in plain) / len(plain)
        upto = sum(x <= at for x in plain) / len(plain)
        assert below - 0.01 <= quantile <= upto + 0.01


@pytest.mark.parametrize("n", [12, 31])
def test_interval_holds_the_true_median_about_as_often_as_it_says(n):
    rng = random.Random(n)
    rounds = 150
    held = 0
    for _ in range(rounds):
        # Long-tailed, as disturbances are: one in ten is far off.
        spread = (0.02 if rng.random() < 0.9 else 0.5 for _ in range(n))
        found = ratio([(0.95 * math.exp(rng.gauss(0, s)), 1) for s in spread])
        held += found.low <= 0.95 <= found.high
    assert 0.89 <= held / rounds <= 0.99


@given(some_pairs)
def test_one_group_is_like_none_and_the_median_is_the_same_with_any(pairs):
    assert ratio(pairs, groups=[7] * len(pairs)) == ratio(pairs)
    grouped = ratio(pairs, groups=[i % 3 for i in range(len(pairs))])
    assert grouped.median == ratio(pairs).median
    assert grouped.low <= grouped.median <= grouped.high


def test_interval_covers_what_differs_between_groups():
    # Five processes that differ by a percent, each known to a tenth of one.
    rng = random.Random(5)
    levels = [0.99, 0.995, 1.0, 1.005, 1.01]
    pairs = [(level * rng.gauss(1, 0.002), 1.0) for level in levels for _ in range(40)]
    groups = [i // 40 for i in range(200)]
    alone, together = ratio(pairs), ratio(pairs, groups=groups)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert together.low < 0.996
    assert together.high > 1.004


def interval(low: float, high: float, pairs: int = 50) -> Ratio:
    return Ratio((low + high) / 2, low, high, pairs)


SOUND = interval(0.998, 1.002)


@pytest.mark.parametrize(
    ("effect", "control", "word", "sentence"),
    [
        (interval(0.95, 0.97), SOUND, "faster", "faster by 4.0 % (3.0 to 5.0 %)"),
        (interval(1.02, 1.04), SOUND, "slower", "slower by 3.0 % (2.0 to 4.0 %)"),
        (interval(0.99, 1.02), SOUND, "no difference", "no difference shown"),
        (interval(0.5, 0.6), interval(1.001, 1.1), "too noisy", "too noisy"),
        (interval(0.5, 0.6), interval(0.9, 0.999), "too noisy", "too noisy"),
        (interval(0.5, 0.6, FEWEST_PAIRS - 1), SOUND, "too few", "5 of at least 6"),
        (interval(0.5, 0.6), interval(0.9, 1.1, 2), "too few", "2 of at least 6"),
        (interval(0.5, 0.6), None, "too few", "0 of at least 6"),
    ],
)
def test_verdict_says_no_more_than_the_intervals(effect, control, word, sentence):
    found = verdict(effect, control)
    assert found.word == word
    assert sentence in found.sentence
