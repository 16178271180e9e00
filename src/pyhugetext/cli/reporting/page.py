"""The page: HTML with its style sheet and pictures inside, no script, nothing loaded."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from pyhugetext._stats.model import Region, Stats, sizes_of
from pyhugetext.cli import text
from pyhugetext.cli.reporting import chart, drawing, words
from pyhugetext.cli.reporting.benchfile import Bench
from pyhugetext.cli.reporting.markup import Markup, el, join
from pyhugetext.cli.reporting.model import (
    SMALL,
    STATES,
    Block,
    Report,
    name_of,
    percent,
    reason_of,
    without_addresses,
)

_SMALL_SHOWN = 200  # of objects without coverable text, which may be thousands


def _policy(style: str) -> str:
    """Allows this style sheet and nothing else, whatever slipped in."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def page(report: Report) -> str:
    """The whole document."""
    style = drawing.style("page.css")
    head = join(
        Markup('<meta charset="utf-8">\n'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_policy(style)}">\n'),
        Markup('<meta name="color-scheme" content="light dark">\n'),
        Markup('<meta name="referrer" content="no-referrer">\n'),
        el("title", f"{words.headline(report)}: {report.subject.name}"),
        el("style", style),
        between="",
    )
    sections = [_summary(report)]
    if report.benches:
        sections.append(_benches(report.benches))
    sections += [_map(report), _objects(report), _reasons(report), _machine(report)]
    body = el("body", el("main", *(s for s in sections if s), _footer(report)))
    return "<!doctype html>\n" + el("html", el("head", head), body, lang="en") + "\n"


def _footer(report: Report) -> Markup:
    version = f"pyhugetext {report.version}"
    return el(
        "footer", el("p", f"Written by {version} on {report.taken}. 1 MiB is 1,048,576 bytes.")
    )


# The head of the page.


def _summary(report: Report) -> Markup:
    subject, stats = report.subject, report.stats
    figures = (
        ("Machine code", text.size(stats.text_bytes)),
        ("Coverable", text.size(stats.coverable_bytes)),
        ("On huge pages", text.size(stats.mapped_bytes)),
        ("Private memory", text.size(stats.private_bytes)),
        ("Backing", stats.backing),
    )
    return el(
        "header",
        el("p", "Text of ", el("b", subject.name), class_="subject"),
        el("h1", words.headline(report)),
        el("p", words.explanation(report), class_="lead"),
        _bar(report),
        el("dl", *(el("div", el("dt", k), el("dd", v)) for k, v in figures), class_="figures"),
    )


def _bar(report: Report) -> Markup:
    """All machine code as one bar: covered, coverable, the rest."""
    stats = report.stats
    whole = max(stats.text_bytes, 1)
    parts = (
        ("covered", "on huge pages", stats.mapped_bytes),
        ("missed", "could be", stats.coverable_bytes - stats.mapped_bytes),
        ("beyond", "fills no 2 MiB page", stats.text_bytes - stats.coverable_bytes),
    )
    x = 0
    rects, legend = [], []
    for class_, meaning, size in parts:
        if size > 0:
            width = max(round(1000 * size / whole), 3)  # the smallest share is seen
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
    bar = el(
        "svg",
        *rects,
        viewBox=f"0 0 {max(x, 1)} 10",
        preserveAspectRatio="none",
        aria_hidden="true",
        class_="bar",
    )
    return el("div", bar, el("ul", *legend, class_="legend"))


# The map.


def _map(report: Report) -> Markup:
    if not report.blocks and not report.small_cells:
        return Markup()
    legend = [
        el("li", drawing.swatch(state, 1), " " + STATES[state]) for state in drawing.present(report)
    ]
    rows = [_map_row(*line) for line in words.lines(report)]
    return el(
        "section",
        el("h2", "Map"),
        el(
            "p",
            "Each square is 2 MiB of memory with text in it. Objects are in the order of their "
            "addresses, with their coverable text and how much of it is on huge pages; the "
            "largest have colours of their own.",
        ),
        el("ul", *legend, class_="legend"),
        el("div", *rows, class_="map"),
    )


def _map_row(name: str, note: str, states: Sequence[str], colour: int) -> Markup:
    label = el("div", el("b", name), el("span", note), class_="label")
    return el("div", label, drawing.picture(states, colour), class_="row")


# Measurements.


def _benches(benches: Iterable[Bench]) -> Markup:
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
    table = _box(
        "Ratios",
        _header("Ratio", *(name for name, _ in columns)),
        el("tbody", *(_row(name, cells) for name, cells in rows)),
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


# Tables.


def _box(label: str, *parts: Markup) -> Markup:
    """A table that scrolls within itself where it is wider than the page."""
    table = el("table", *parts)
    return el("div", table, class_="box", tabindex="0", role="region", aria_label=label)


def _header(*names: str) -> Markup:
    return el("thead", el("tr", *(el("th", name, scope="col") for name in names)))


def _row(name: str, cells: Iterable[str], *shown: Markup) -> Markup:
    """A row, with what is `shown` in the place of its name or before it."""
    return el("tr", el("th", *shown, name, scope="row"), *(el("td", cell) for cell in cells))


def _objects(report: Report) -> Markup:
    names = ("Text", "Coverable", "On huge pages", "Share", "Huge now", "Private", "Backing")
    ordered = sorted(report.blocks, key=lambda block: -block.region.coverable_bytes)
    rows = [
        _row(
            "",
            _figures(block.region),
            drawing.swatch("huge" if block.region.swapped_bytes else SMALL, block.colour),
            el("span", block.name, title=block.region.path),
        )
        for block in ordered
    ]
    if report.small:
        size = sum(region.text_bytes for region in report.small)
        cells = [text.size(size), "0 B", "0 B", "", "0 B", "0 B", "none"]
        rows.append(_row(words.small_objects(report), cells, drawing.swatch(SMALL, 0)))
    return el(
        "section",
        el("h2", "Objects"),
        _box(
            "Objects",
            _header("Object", *names),
            el("tbody", *rows),
            el("tfoot", _row("Total", _figures(report.stats))),
        ),
        el(
            "p",
            "Huge now is what the kernel holds in 2 MiB pages at this moment. It counts the "
            "read-only data beside the text and leaves out what was not used yet, so it may be "
            "more or less than the text.",
            class_="quiet",
        ),
    )


def _figures(one: Region | Stats) -> tuple[str, ...]:
    *sizes, huge, private = map(text.size, sizes_of(one))
    share = percent(one.mapped_bytes, one.coverable_bytes)
    return (*sizes, share, huge, private, one.backing)


# What is not on huge pages.


def _reasons(report: Report) -> Markup:
    """Each reason with the objects it holds for."""
    grouped: dict[str, list[Block]] = {}
    for block in report.blocks:
        reason = reason_of(block.region)
        if reason:
            grouped.setdefault(reason, []).append(block)
    for block in report.blocks:
        for fallback in block.region.fallbacks:
            sentence = f"Not by the backing {without_addresses(fallback)}"
            grouped.setdefault(sentence, []).append(block)
    parts = [
        el("div", el("dt", reason[:1].upper() + reason[1:]), el("dd", words.names(blocks)))
        for reason, blocks in grouped.items()
    ]
    for problem in report.stats.problems:
        parts.append(el("div", el("dt", problem), el("dd", "told by pyhugetext")))
    content = [el("dl", *parts, class_="reasons")] if parts else []
    if report.small:
        content.append(_small(report.small))
    if not content:
        return Markup()
    return el("section", el("h2", "What is not, and why"), *content)


def _small(regions: tuple[Region, ...]) -> Markup:
    rows = [
        el(
            "tr",
            el("th", el("span", name_of(region.path), title=region.path), scope="row"),
            el("td", text.size(region.text_bytes)),
            el("td", reason_of(region), class_="words"),
        )
        for region in regions[:_SMALL_SHOWN]
    ]
    hidden = regions[_SMALL_SHOWN:]
    if hidden:
        size = text.size(sum(region.text_bytes for region in hidden))
        rows.append(
            el("tr", el("th", f"{len(hidden)} more", scope="row"), el("td", size), el("td"))
        )
    return el(
        "details",
        el("summary", f"{text.count(len(regions), 'object')} without coverable text"),
        _box("Small objects", _header("Object", "Text", "Reason"), el("tbody", *rows)),
    )


# Where it was.


def _machine(report: Report) -> Markup:
    kernel, subject = report.stats.kernel, report.subject
    elapsed = report.stats.elapsed_ns  # not known of other processes
    pool = (
        "none"
        if not kernel.hugetlb_total
        else f"{kernel.hugetlb_free} of {kernel.hugetlb_total} pages of 2 MiB free"
    )
    facts = [
        ("Process", str(subject.pid) if subject.pid is not None else "started for this report"),
        ("Executable", subject.executable),
        ("Kernel", f"Linux {kernel.release}"),
        ("Transparent huge pages", f"{kernel.thp_enabled or 'not in this kernel'}"),
        ("Their defragmentation", kernel.thp_defrag),
        ("In shared memory", kernel.shmem_enabled),
        (
            "Size of a huge page",
            text.size(kernel.huge_page_bytes) if kernel.huge_page_bytes else None,
        ),
        ("Reserved pool (hugetlb)", pool),
        ("vm.max_map_count", f"{kernel.max_map_count:,}" if kernel.max_map_count else None),
        ("Time spent remapping", f"{elapsed / 1e6:.2f} ms" if elapsed else None),
    ]
    shown = [el("div", el("dt", name), el("dd", fact)) for name, fact in facts if fact]
    return el("section", el("h2", "Process and machine"), el("dl", *shown, class_="facts"))
