"""What the pages have in common: the document around them, figures, bars, tables, measurements."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from pyhugetext.cli import text
from pyhugetext.cli.reporting import chart, drawing
from pyhugetext.cli.reporting.benchfile import Bench
from pyhugetext.cli.reporting.markup import Markup, el, join


def _policy(style: str) -> str:
    """Allows this style sheet and nothing else, whatever slipped in."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def document(title: str, sections: Iterable[Markup], version: str, taken: str) -> str:
    """A whole page with its style sheet inside, no script, and nothing that is loaded."""
    style = drawing.style("page.css")
    head = join(
        Markup('<meta charset="utf-8">\n'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_policy(style)}">\n'),
        Markup('<meta name="color-scheme" content="light dark">\n'),
        Markup('<meta name="referrer" content="no-referrer">\n'),
        el("title", title),
        el("style", style),
        between="",
    )
    written = f"Written by pyhugetext {version} on {taken}. 1 MiB is 1,048,576 bytes."
    footer = el("footer", el("p", written))
    body = el("body", el("main", *(s for s in sections if s), footer))
    return "<!doctype html>\n" + el("html", el("head", head), body, lang="en") + "\n"


def figures(named: Iterable[tuple[str, str]]) -> Markup:
    """Some figures, large."""
    return el("dl", *(el("div", el("dt", k), el("dd", v)) for k, v in named), class_="figures")


def bar(mapped: int, coverable: int, whole: int) -> Markup:
    """Machine code as one bar: covered, coverable, the rest."""
    shares = (
        ("covered", "on huge pages", mapped),
        ("missed", "could be", coverable - mapped),
        ("beyond", "fills no 2 MiB page", whole - coverable),
    )
    x = 0
    rects, legend = [], []
    for class_, meaning, size in shares:
        if size > 0:
            width = max(round(1000 * size / max(whole, 1)), 3)  # the smallest share is seen
            rects.append(el("rect", class_=class_, x=x, width=width, height=10))
            x += width
            key = el(
                "svg",
                el("rect", class_=class_, width=10, height=10),
                viewBox="0 0 10 10",
                aria_hidden="true",
                class_="swatch",
            )
            legend.append(el("li", key, el("b", text.size(size)), " " + meaning))
    drawn = el(
        "svg",
        *rects,
        viewBox=f"0 0 {max(x, 1)} 10",
        preserveAspectRatio="none",
        aria_hidden="true",
        class_="bar",
    )
    return el("div", drawn, el("ul", *legend, class_="legend"))


def box(label: str, *parts: Markup, long_names: bool = False) -> Markup:
    """A table that scrolls within itself where it is wider than the page; where its columns have
    `long_names`, these take several lines."""
    table = el("table", *parts, class_="long" if long_names else None)
    return el("div", table, class_="box", tabindex="0", role="region", aria_label=label)


def header(*names: str) -> Markup:
    return el("thead", el("tr", *(el("th", name, scope="col") for name in names)))


def row(name: str, cells: Iterable[str], *shown: Markup) -> Markup:
    """A row, with what is `shown` in the place of its name or before it."""
    return el("tr", el("th", *shown, name, scope="row"), *(el("td", cell) for cell in cells))


# Measurements.


def benches(benches: Iterable[Bench]) -> Markup:
    return el(
        "section",
        el("h2", "Does it run faster?"),
        el(
            "p",
            "CPU time on 2 MiB pages divided by CPU time on 4 KiB pages, measured in turns: below "
            "1 is faster. The control measures 4 KiB pages against themselves; what it shows is "
            "noise.",
        ),
        *(_bench(bench) for bench in benches),
    )


def _bench(bench: Bench) -> Markup:
    columns = [("2 MiB / 4 KiB", bench.effect)]
    if bench.control is not None:
        columns.append(("control", bench.control))
    rows = (
        ("Median", [f"{ratio.median:.4f}" for _, ratio in columns]),
        ("From", [f"{ratio.low:.4f}" for _, ratio in columns]),
        ("To", [f"{ratio.high:.4f}" for _, ratio in columns]),
        ("Confidence", [f"{100 * ratio.confidence:g} %" for _, ratio in columns]),
        ("Pairs", [f"{ratio.pairs:,}" for _, ratio in columns]),
    )
    table = box(
        "Ratios",
        header("Ratio", *(name for name, _ in columns)),
        el("tbody", *(row(name, cells) for name, cells in rows)),
    )
    beyond = chart.outside(bench)
    note = f"{text.count(beyond, 'ratio')} beyond the axis, drawn at its ends."
    return el(
        "article",
        el("h3", bench.sentence[:1].upper() + bench.sentence[1:] + "."),
        el("p", el("code", bench.title)),
        el("div", chart.chart(bench), table, class_="sides"),
        el("p", note, class_="quiet") if beyond else "",
        class_="bench",
    )
