"""The page of a measurement: what was found, the pairs in the order of measuring, the control."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from pyhugetext.cli import text
from pyhugetext.cli.benchtext import duration, remarks
from pyhugetext.cli.reporting import benchfile, chart, parts, sequence
from pyhugetext.cli.reporting.markup import Markup, el

if TYPE_CHECKING:
    from pyhugetext.measure.measurement import Measurement


def page(found: Measurement, version: str, taken: str) -> str:
    """The whole document."""
    bench = benchfile.bench_of(found, "")
    sections = [
        _summary(found),
        parts.benches([bench]),
        _sequence(found),
        _basis(found),
        _machine(found),
    ]
    return parts.document(found.line, sections, version, taken)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _summary(found: Measurement) -> Markup:
    from pyhugetext.measure.summary import name_of

    figures = [
        (f"A run on {name} pages", _run(found, side))
        for side, name in (("small", "4 KiB"), ("huge", "2 MiB"))
    ]
    figures.append(("Pairs", f"{found.effect.pairs:,}"))
    seconds = found.settings.get("elapsed_seconds")
    if isinstance(seconds, (int, float)):
        figures.append(("Measured in", f"{seconds:.0f} s"))
    if found.text:
        figures.append(("Text on huge pages", text.size(int(found.text["mapped_bytes"]))))
    expected = (found.expectation or {}).get("sentence")
    return el(
        "header",
        el("p", "Measured: ", el("b", name_of(found.settings)), class_="subject"),
        el("h1", _sentence(found.verdict.sentence)),
        el("p", f"Before measuring: {expected}.", class_="lead") if expected else "",
        parts.figures(figures),
        el("p", "In one line, to be sent to somebody: ", el("code", found.line), class_="quiet"),
    )


def _run(found: Measurement, side: str) -> str:
    return duration(statistics.median(found.slots(side)) / found.loops / 1e9)


def _sequence(found: Measurement) -> Markup:
    points = sequence.points_of(found)
    series = [[ratio for ratio, _ in kind] for kind in points]
    axis = chart.axis_of(series, (found.effect,))
    return el(
        "section",
        el("h2", "Pair by pair"),
        el(
            "p",
            "Each dot is one ratio, in the order of measuring from left to right; the band is the "
            "interval of the median. A slope or steps that the control shows as well come from "
            "the machine. Upright lines part processes.",
        ),
        el("div", sequence.drawn(points, found.effect, axis), class_="bench sequence"),
    )


def _basis(found: Measurement) -> Markup:
    """What the figures rest on, as the terminal shows it."""
    lines = [el("li", line) for line in remarks(found)]
    return el("section", el("h2", "What it rests on"), el("ul", *lines)) if lines else Markup()


def _machine(found: Measurement) -> Markup:
    machine = found.machine
    guest = machine.get("hypervisor")
    facts = (
        ("Processor", machine.get("processor")),
        ("Processors", machine.get("processors")),
        ("Virtual machine", None if guest is None else "yes" if guest else "no"),
        ("Kernel", machine.get("kernel") and f"Linux {machine['kernel']}"),
        ("Transparent huge pages", machine.get("thp_enabled")),
        ("Python", machine.get("python")),
        ("Executable", machine.get("executable")),
        ("Backing", found.text.get("backing")),
    )
    shown = [el("div", el("dt", name), el("dd", str(fact))) for name, fact in facts if fact]
    return el("section", el("h2", "Where"), el("dl", *shown, class_="facts"))
