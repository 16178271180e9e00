"""The map: a square for each 2 MiB of text, filled as far as it is in a 2 MiB page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from pyhugetext.cli import text
from pyhugetext.cli.reporting import words
from pyhugetext.cli.reporting.markup import Markup, el, join
from pyhugetext.cli.reporting.model import HUGE, MIXED, STATES, WAITING, Report

COLUMNS = 32
_SIDE = 10  # of a square; the unit of all else
_PITCH = 12

# Of the picture that stands alone.
_WIDTH = 660
_LABEL = 236
_SCALE = (_WIDTH - _LABEL - 24) / (COLUMNS * _PITCH)
_LETTER = 6  # the width of one in a note, about


def style(name: str) -> Markup:
    """A style sheet of this package, behind that of the colours and the squares."""
    sheets = (files(__package__).joinpath(sheet) for sheet in ("squares.css", name))
    return Markup("".join(sheet.read_text("utf-8") for sheet in sheets))


def _square(x: float, y: float, side: float) -> str:
    return f"M{x:g} {y:g}h{side:g}v{side:g}h{-side:g}z"


def _hatching(x: float, y: float) -> str:
    return f"M{x + 1} {y + 5}l4-4M{x + 1} {y + 9}l8-8M{x + 5} {y + 9}l4-4"


def cells(states: Sequence[str]) -> Markup:
    """The squares of an object, row by row, as a path for each way of drawing."""
    full, frame, pale, lines = [], [], [], []
    for number, state in enumerate(states):
        row, column = divmod(number, COLUMNS)
        x, y = column * _PITCH, row * _PITCH
        if state == HUGE:
            full.append(_square(x, y, _SIDE))
            continue
        frame.append(_square(x + 0.5, y + 0.5, _SIDE - 1))
        if state == WAITING:
            pale.append(_square(x, y, _SIDE))
        elif state == MIXED:
            full.append(f"M{x} {y}v{_SIDE}h{_SIDE}z")
        else:
            lines.append(_hatching(x, y))
    ways = (("full", full), ("pale", pale), ("frame", frame), ("lines", lines))
    return join(*(el("path", class_=name, d="".join(parts)) for name, parts in ways if parts))


def _height(count: int) -> int:
    """Of so many squares."""
    rows = -(-count // COLUMNS)
    return max(rows * _PITCH - (_PITCH - _SIDE), 0)


def told(states: Sequence[str]) -> str:
    """The squares in words, for who cannot see them."""
    parts = []
    for state, meaning in STATES.items():
        number = states.count(state)
        if number:
            parts.append(f"{number} {meaning}")
    return f"{text.count(len(states), 'cell')} of 2 MiB: {', '.join(parts)}"


def picture(states: Sequence[str], colour: int) -> Markup:
    """The squares alone, as wide as there is room; what they say is their title."""
    width = COLUMNS * _PITCH - (_PITCH - _SIDE)
    return el(
        "svg",
        el("title", told(states)),
        cells(states),
        viewBox=f"0 0 {width} {_height(len(states))}",
        role="img",
        class_=f"cells c{colour}",
    )


def swatch(state: str, colour: int) -> Markup:
    """A single square, for a legend or a table."""
    return el(
        "svg",
        cells((state,)),
        viewBox=f"0 0 {_SIDE} {_SIDE}",
        aria_hidden="true",
        class_=f"swatch c{colour}",
    )


def present(report: Report) -> list[str]:
    """The states on the map, for the legend."""
    seen = {state for block in report.blocks for state in block.cells} | set(report.small_cells)
    return [state for state in STATES if state in seen]


def _group(
    name: str, note: str, states: Sequence[str], colour: int, y: float
) -> tuple[Markup, float]:
    """A line of the picture that stands alone: name, note, squares. Also its height."""
    shown = el(
        "g",
        el("title", f"{name}: {told(states)}"),
        el("text", text.shorten(name, 34), x=0, y=11),
        el("text", note, x=0, y=25, class_="note"),
        el("g", cells(states), transform=f"translate({_LABEL} 2) scale({_SCALE:.4f})"),
        transform=f"translate(12 {y:g})",
        class_=f"c{colour}",
    )
    return shown, max(_height(len(states)) * _SCALE + 12, 38)


def alone(report: Report) -> str:
    """The map as an SVG file of its own."""
    y = 30.0
    parts = [
        el("text", report.subject.name, x=12, y=y, class_="title"),
        el("text", words.headline(report), x=12, y=y + 20, class_="note"),
    ]
    y += 38
    left = 12.0
    for state in present(report):
        wide = 18 + len(STATES[state]) * _LETTER + 20
        if left + wide > _WIDTH and left > 12:
            left, y = 12.0, y + 19
        square = el("g", cells((state,)), transform=f"translate({left:g} {y:g}) scale(1.1)")
        parts.append(el("g", square, class_="c1"))
        parts.append(el("text", STATES[state], x=left + 18, y=y + 10, class_="note"))
        left += wide
    y += 31
    for line in words.lines(report):
        group, height = _group(*line, y)
        parts.append(group)
        y += height
    height = y + 6
    return el(
        "svg",
        el("title", f"Text of {report.subject.name}"),
        el("desc", words.headline(report)),
        el("style", style("map.css")),
        el("rect", width=_WIDTH, height=height, class_="ground"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {height:g}",
        width=_WIDTH,
        height=height,
        role="img",
    )
