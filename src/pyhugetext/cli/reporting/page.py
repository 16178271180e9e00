"""The page: HTML with its style sheet and pictures inside, no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence

from pyhugetext._stats.model import Region, Stats, sizes_of
from pyhugetext.cli import text
from pyhugetext.cli.reporting import drawing, parts, words
from pyhugetext.cli.reporting.markup import Markup, el
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


def page(report: Report) -> str:
    """The whole document."""
    sections = [_summary(report)]
    if report.benches:
        sections.append(parts.benches(report.benches))
    sections += [_map(report), _objects(report), _reasons(report), _machine(report)]
    title = f"{words.headline(report)}: {report.subject.name}"
    return parts.document(title, sections, report.version, report.taken)


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
        parts.figures(figures),
    )


def _bar(report: Report) -> Markup:
    """All machine code as one bar: covered, coverable, the rest."""
    stats = report.stats
    return parts.bar(stats.mapped_bytes, stats.coverable_bytes, stats.text_bytes)


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


# Tables.


def _objects(report: Report) -> Markup:
    names = ("Text", "Coverable", "On huge pages", "Share", "Huge now", "Private", "Backing")
    ordered = sorted(report.blocks, key=lambda block: -block.region.coverable_bytes)
    rows = [
        parts.row(
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
        rows.append(parts.row(words.small_objects(report), cells, drawing.swatch(SMALL, 0)))
    return el(
        "section",
        el("h2", "Objects"),
        parts.box(
            "Objects",
            parts.header("Object", *names),
            el("tbody", *rows),
            el("tfoot", parts.row("Total", _figures(report.stats))),
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
        parts.box("Small objects", parts.header("Object", "Text", "Reason"), el("tbody", *rows)),
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
