"""The distribution of the ratios of a measurement, its control below it on the same axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pyhugetext.cli.reporting.benchfile import Bench
from pyhugetext.cli.reporting.markup import Markup, el
from pyhugetext.measure.statistics import Ratio

_WIDTH = 360
_LEFT, _RIGHT = 8, 352
_BINS = 43
_BAND = 58  # the height of a histogram
_ROW = 92  # of it with its name and its interval


class Axis:
    """Ratios to positions. What lies outside is drawn at the ends."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def at(self, ratio: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * self.share(ratio)

    def share(self, ratio: float) -> float:
        """Where it lies between the ends: 0 to 1."""
        return (min(max(ratio, self.low), self.high) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Two to seven round numbers."""
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [number * step for number in range(first, last + 1)]


def axis_of(series: Iterable[Sequence[float]], intervals: Iterable[Ratio | None]) -> Axis:
    """Wide enough for 1, the intervals, and all but the outermost fiftieth of each distribution."""
    ends = [1.0]
    for ratios in series:
        ordered = sorted(ratios)
        cut = len(ordered) // 50
        ends += ordered[cut : len(ordered) - cut]
    for ratio in intervals:
        if ratio is not None:
            ends += (ratio.low, ratio.high)
    low, high = min(ends), max(ends)
    margin = max((high - low) * 0.06, 0.001)
    return Axis(low - margin, high + margin)


def axis(bench: Bench) -> Axis:
    """Of both distributions."""
    return axis_of((bench.effect_ratios, bench.control_ratios), (bench.effect, bench.control))


def outside(bench: Bench) -> int:
    """How many ratios are drawn at an end of the axis because they lie beyond."""
    found = axis(bench)
    ratios = (*bench.effect_ratios, *bench.control_ratios)
    return sum(not found.low <= ratio <= found.high for ratio in ratios)


def _histogram(ratios: Sequence[float], axis: Axis, base: float) -> Markup:
    counts = [0] * _BINS
    width = (_RIGHT - _LEFT) / _BINS
    for ratio in ratios:
        counts[min(int((axis.at(ratio) - _LEFT) / width), _BINS - 1)] += 1
    top = max(counts)
    bars = []
    for number, count in enumerate(counts):
        if count:
            height = max(count / top * _BAND, 1)
            x = _LEFT + number * width
            bars.append(f"M{x + 0.4:.2f} {base:g}v{-height:.1f}h{width - 0.8:.2f}v{height:.1f}z")
    return el("path", class_="bars", d="".join(bars))


def _interval(ratio: Ratio, axis: Axis, y: float) -> Markup:
    low, middle, high = (axis.at(value) for value in (ratio.low, ratio.median, ratio.high))
    line = f"M{low:.2f} {y - 3:g}v6M{low:.2f} {y:g}H{high:.2f}M{high:.2f} {y - 3:g}v6"
    return el(
        "g",
        el("path", class_="interval", d=line),
        el("circle", class_="median", cx=round(middle, 2), cy=y, r=3.2),
    )


def _row(
    name: str, class_: str, ratio: Ratio, ratios: Sequence[float], axis: Axis, y: float
) -> Markup:
    base = y + 14 + _BAND
    return el(
        "g",
        el("text", name, x=_LEFT, y=y + 8),
        _histogram(ratios, axis, base),
        el("path", class_="base", d=f"M{_LEFT} {base:g}H{_RIGHT}"),
        _interval(ratio, axis, base + 8),
        class_=class_,
    )


def chart(bench: Bench) -> Markup:
    """The picture; page.css says how it looks."""
    found = axis(bench)
    rows = [_row("2 MiB / 4 KiB", "effect", bench.effect, bench.effect_ratios, found, 2)]
    if bench.control is not None:
        name = "control: 4 KiB / 4 KiB"
        rows.append(_row(name, "control", bench.control, bench.control_ratios, found, 2 + _ROW))
    bottom = 4 + _ROW * len(rows)
    one = found.at(1.0)
    ticks = [
        el(
            "g",
            el("path", class_="tick", d=f"M{found.at(tick):.2f} {bottom}v4"),
            el("text", f"{tick:.6g}", x=round(found.at(tick), 2), y=bottom + 15, class_="number"),
        )
        for tick in found.ticks()
    ]
    return el(
        "svg",
        el("title", f"Distribution of the ratios: {bench.sentence}"),
        el("path", class_="one", d=f"M{one:.2f} 0V{bottom}"),
        *rows,
        el("path", class_="base", d=f"M{_LEFT} {bottom}H{_RIGHT}"),
        *ticks,
        el("text", "\u2190 faster on 2 MiB pages", x=_LEFT, y=bottom + 30),
        el("text", "slower \u2192", x=_RIGHT, y=bottom + 30, class_="end"),
        viewBox=f"0 0 {_WIDTH} {bottom + 34}",
        role="img",
        class_="chart",
    )
