"""The ratios of a measurement in the order of measuring, those of its control below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pyhugetext.cli.reporting.chart import Axis
from pyhugetext.cli.reporting.markup import Markup, el
from pyhugetext.measure.measurement import CONTROL, EFFECT
from pyhugetext.measure.statistics import Ratio

if TYPE_CHECKING:
    from pyhugetext.measure.measurement import Measurement

_WIDTH, _LEFT, _RIGHT = 360, 34, 352
_BAND = 96
_GAP = 26


class Points(NamedTuple):
    """The ratios of each kind, each with the process it comes from."""

    effect: tuple[tuple[float, int], ...]
    control: tuple[tuple[float, int], ...]


def points_of(found: Measurement) -> Points:
    def ratios(kind: str) -> tuple[tuple[float, int], ...]:
        return tuple(
            (huge / small, quad.process)
            for quad in found.of(kind)
            for huge, small in found.pairs(quad)
        )

    return Points(ratios(EFFECT), ratios(CONTROL))


def _panel(
    name: str, class_: str, points: Sequence[tuple[float, int]], axis: Axis, top: float
) -> Markup:
    base = top + _BAND
    step = (_RIGHT - _LEFT) / max(len(points), 1)

    def y(ratio: float) -> float:
        return base - _BAND * axis.share(ratio)

    dots, borders = [], []
    for number, (ratio, process) in enumerate(points):
        x = _LEFT + step * (number + 0.5)
        dots.append(f"M{x:.1f} {y(ratio):.1f}h0")
        if number and process != points[number - 1][1]:
            borders.append(f"M{_LEFT + step * number:.1f} {top:g}V{base:g}")
    ticks = [
        el("text", f"{tick:.6g}", x=_LEFT - 4, y=round(y(tick) + 3, 1), class_="end number")
        for tick in axis.ticks()
    ]
    return el(
        "g",
        el("text", name, x=_LEFT, y=top - 5),
        el("path", class_="base", d=f"M{_LEFT} {top:g}V{base:g}H{_RIGHT}" + "".join(borders)),
        el("path", class_="one", d=f"M{_LEFT} {y(1.0):.1f}H{_RIGHT}"),
        el("path", class_="dots", d="".join(dots)),
        *ticks,
        class_=class_,
    )


def drawn(points: Points, effect: Ratio, axis: Axis) -> Markup:
    """The picture; page.css says how it looks."""
    top = 16.0
    high, low = axis.share(effect.high), axis.share(effect.low)
    band = el(
        "rect",
        class_="band",
        x=_LEFT,
        y=round(top + _BAND * (1 - high), 1),
        width=_RIGHT - _LEFT,
        height=round(max(_BAND * (high - low), 0.8), 1),
    )
    panels = [band, _panel("2 MiB / 4 KiB", "effect", points.effect, axis, top)]
    bottom = top + _BAND
    if points.control:
        top = bottom + _GAP
        panels.append(_panel("control: 4 KiB / 4 KiB", "control", points.control, axis, top))
        bottom = top + _BAND
    told = (
        f"{len(points.effect)} ratios in the order of measuring, their median {effect}; "
        f"{len(points.control)} of the control"
    )
    return el(
        "svg",
        el("title", told),
        *panels,
        el("text", "first", x=_LEFT, y=bottom + 13),
        el("text", "last", x=_RIGHT, y=bottom + 13, class_="end"),
        viewBox=f"0 0 {_WIDTH} {bottom + 18:g}",
        role="img",
        class_="chart",
    )
