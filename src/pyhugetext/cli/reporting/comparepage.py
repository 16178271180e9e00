"""The page of two processes, or of one at two times, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pyhugetext._stats.model import Region, Stats, not_small, sums_of
from pyhugetext.cli import text
from pyhugetext.cli.reporting import drawing, parts, words
from pyhugetext.cli.reporting.benchfile import Bench
from pyhugetext.cli.reporting.markup import Markup, el
from pyhugetext.cli.reporting.model import STATES, Report, percent

_SHOWN = 300  # objects in the table
_NOTHING = "\u2013"  # where an object is not in a process


class Pair(NamedTuple):
    """Two reports, and what to call each: `before`, `process 42`."""

    left: Report
    right: Report
    names: tuple[str, str]

    @property
    def sides(self) -> tuple[tuple[str, Report], tuple[str, Report]]:
        return (self.names[0], self.left), (self.names[1], self.right)


class Row(NamedTuple):
    """An object on both sides; None where it is not loaded. `squares` are those of its map."""

    path: str
    regions: tuple[Region | None, Region | None]
    squares: tuple[Sequence[str], Sequence[str]]
    colour: int


def rows(pair: Pair) -> list[Row]:
    """The objects with coverable text of either, the largest first."""
    of_side = [{block.region.path: block for block in report.blocks} for _, report in pair.sides]
    found = []
    for path in dict.fromkeys((*of_side[0], *of_side[1])):
        left, right = (blocks.get(path) for blocks in of_side)
        found.append(
            Row(
                path,
                (left.region if left else None, right.region if right else None),
                (left.cells if left else (), right.cells if right else ()),
                left.colour if left else right.colour if right else 0,
            )
        )
    return sorted(found, key=lambda row: -max(r.coverable_bytes for r in row.regions if r))


def _mapped(one: Stats | Region) -> int:
    """What is on huge pages, without what is seen to be in small ones."""
    regions = one.regions if isinstance(one, Stats) else (one,)
    swapped = sum(region.swapped_bytes for region in regions)
    return not_small(one.mapped_bytes, swapped, one.small_bytes)


def headline(pair: Pair) -> str:
    """The one sentence."""
    shares = []
    for name, report in pair.sides:
        stats = report.stats
        share = percent(_mapped(stats), stats.coverable_bytes) or "nothing coverable"
        shares.append(f"{share} {name}")
    return f"Coverable text on huge pages: {', '.join(shares)}"


def page(pair: Pair, benches: Sequence[Bench], version: str, taken: str) -> str:
    """The whole document."""
    sections = [_summary(pair)]
    if benches:
        sections.append(parts.benches(benches))
    sections += [_change(pair), _maps(pair), _objects(pair)]
    return parts.document(headline(pair), sections, version, taken)


def _summary(pair: Pair) -> Markup:
    subjects = dict.fromkeys(report.subject.name for _, report in pair.sides)
    return el(
        "header",
        el("p", "Text of ", el("b", " beside ".join(subjects)), class_="subject"),
        el("h1", headline(pair)),
        el("div", *(_side(name, report) for name, report in pair.sides), class_="pair"),
    )


def _side(name: str, report: Report) -> Markup:
    stats = report.stats
    figures = (
        ("Coverable", text.size(stats.coverable_bytes)),
        ("On huge pages", text.size(_mapped(stats))),
        ("Private memory", text.size(stats.private_bytes)),
        ("Backing", stats.backing),
    )
    return el(
        "article",
        el("h2", name[:1].upper() + name[1:]),
        el("p", words.explanation(report), class_="quiet"),
        parts.bar(_mapped(stats), stats.coverable_bytes, stats.text_bytes),
        parts.figures(figures),
    )


def _signed(number: int) -> str:
    if not number:
        return "same"
    sign = "+" if number > 0 else "\u2212"
    return sign + text.size(abs(number))


_FIGURES = (
    ("Machine code", lambda stats: stats.text_bytes),
    ("Coverable text", lambda stats: stats.coverable_bytes),
    ("On huge pages", _mapped),
    ("On small pages, and coverable", lambda stats: stats.coverable_bytes - _mapped(stats)),
    ("In 2 MiB pages now", lambda stats: stats.huge_bytes),
    ("Private memory", lambda stats: stats.private_bytes),
)


def _change(pair: Pair) -> Markup:
    shown = []
    for name, value in _FIGURES:
        left, right = (value(report.stats) for _, report in pair.sides)
        shown.append(parts.row(name, (text.size(left), text.size(right), _signed(right - left))))
    return el(
        "section",
        el("h2", "What differs"),
        parts.box(
            "Figures of both",
            parts.header("Figure", *pair.names, "Difference"),
            el("tbody", *shown),
            long_names=True,
        ),
    )


def _maps(pair: Pair) -> Markup:
    shown = [row for row in rows(pair) if any(row.squares)]
    if not shown:
        return Markup()
    seen = {state for row in shown for side in row.squares for state in side}
    legend = [
        el("li", drawing.swatch(state, 1), " " + STATES[state]) for state in STATES if state in seen
    ]
    return el(
        "section",
        el("h2", "Maps"),
        el("p", "Each square is 2 MiB of memory with text in it; the largest objects come first."),
        el("ul", *legend, class_="legend"),
        el("div", *(_map_row(pair, row) for row in shown), class_="map"),
    )


def _map_row(pair: Pair, row: Row) -> Markup:
    halves = []
    for name, region, squares in zip(pair.names, row.regions, row.squares):
        if region is None:
            halves.append(el("div", el("span", f"{name}: not loaded"), class_="label"))
            continue
        share = percent(_mapped(region), region.coverable_bytes)
        note = f"{name}: {share} of {text.size(region.coverable_bytes)}"
        drawn = drawing.picture(squares, row.colour) if squares else Markup()
        halves.append(el("div", el("span", note), drawn, class_="label"))
    return el(
        "div",
        el("div", el("b", _name(row.path)), class_="label"),
        el("div", *halves, class_="pair"),
        class_="both",
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2] or "?"


def _objects(pair: Pair) -> Markup:
    found = rows(pair)
    if not found:
        return Markup()
    shown = []
    for row in found[:_SHOWN]:
        cells = [_cell(region, "coverable") for region in row.regions]
        cells += [_cell(region, "mapped") for region in row.regions]
        left, right = (_mapped(region) if region else 0 for region in row.regions)
        cells.append(_signed(right - left))
        cells += [_cell(region, "private") for region in row.regions]
        cells += [region.backing if region else _NOTHING for region in row.regions]
        shown.append(parts.row("", cells, el("span", _name(row.path), title=row.path)))
    a, b = pair.names
    header = (
        *(f"{what}, {name}" for what in ("Coverable", "On huge pages") for name in (a, b)),
        "Difference",
        *(f"{what}, {name}" for what in ("Private", "Backing") for name in (a, b)),
    )
    rest = len(found) - _SHOWN
    note = el("p", f"{text.count(rest, 'smaller object')} not shown.", class_="quiet")
    return el(
        "section",
        el("h2", "Objects"),
        parts.box(
            "Objects of both",
            parts.header("Object", *header),
            el("tbody", *shown),
            long_names=True,
        ),
        note if rest > 0 else "",
    )


def _cell(region: Region | None, what: str) -> str:
    if region is None:
        return _NOTHING
    sizes = {
        "coverable": region.coverable_bytes,
        "mapped": _mapped(region),
        "private": region.private_bytes,
    }
    return text.size(sizes[what])


def as_dict(pair: Pair) -> dict[str, Any]:
    """For --json: both sides, the differences right minus left, and the objects."""

    def side(name: str, report: Report) -> dict[str, Any]:
        return {
            "name": name,
            "process": dict(vars(report.subject)),
            "taken": report.taken,
            "stats": report.stats.as_dict(),
        }

    left, right = (sums_of([report.stats]) for _, report in pair.sides)
    return {
        "sides": [side(name, report) for name, report in pair.sides],
        "difference": {name: right[name] - left[name] for name in left},
        "objects": [
            {
                "path": row.path,
                "sides": [
                    None if region is None else {**sums_of([region]), "backing": region.backing}
                    for region in row.regions
                ],
            }
            for row in rows(pair)
        ],
    }
