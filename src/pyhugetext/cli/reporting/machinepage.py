"""The page of all Python processes of a machine."""

from __future__ import annotations

from pyhugetext.cli import text
from pyhugetext.cli.coverage import unread_lines
from pyhugetext.cli.processes import Close
from pyhugetext.cli.reporting import parts
from pyhugetext.cli.reporting.machine import Machine, mapped_of, package_of
from pyhugetext.cli.reporting.markup import Markup, el
from pyhugetext.cli.reporting.model import name_of, percent, without_addresses

_SHOWN = 300  # processes and objects, the ones with the most to gain


def headline(machine: Machine) -> str:
    """The one sentence."""
    total = machine.total
    if not machine.processes:
        return "No Python process was seen"
    count = text.count(total["processes"], "Python process", "Python processes")
    share = percent(total["on_huge_bytes"], total["coverable_bytes"])
    if not share:
        return f"{count}, and no text that fills a 2 MiB page"
    return f"{count}, {share} of their coverable text on huge pages"


def page(machine: Machine, where: str, version: str, taken: str) -> str:
    """The whole document; `where` names the machine's kernel."""
    sections = [
        _summary(machine, where),
        _savings(machine),
        _processes(machine),
        _objects(machine),
        _unread(machine),
    ]
    return parts.document(headline(machine), sections, version, taken)


def _summary(machine: Machine, where: str) -> Markup:
    total = machine.total
    figures = (
        ("Coverable", text.size(total["coverable_bytes"])),
        ("On huge pages", text.size(total["on_huge_bytes"])),
        ("Still on small pages", text.size(total["left_bytes"])),
        ("Private memory", text.size(total["private_bytes"])),
        ("Text in memory", text.size(total["share_bytes"])),
    )
    return el(
        "header",
        el("p", "Text of ", el("b", "all Python processes"), f" under {where}", class_="subject"),
        el("h1", headline(machine)),
        el("p", _sharing(machine), class_="lead") if machine.processes else "",
        parts.bar(total["on_huge_bytes"], total["coverable_bytes"], total["text_bytes"]),
        parts.figures(figures),
    )


def _sharing(machine: Machine) -> str:
    """What they share, in words."""
    total = machine.total
    shared = total["resident_bytes"] - total["share_bytes"]
    share = percent(max(shared, 0), total["resident_bytes"]) or "0 %"
    return (
        f"Their machine code takes {text.size(total['share_bytes'])} of memory. If each process had "
        f"its own, that would be {text.size(total['resident_bytes'])}: sharing the pages of files "
        f"and stores saves {share}. In the sizes of text below, what several processes have mapped "
        "counts for each of them; in the memory it counts once."
    )


def _savings(machine: Machine) -> Markup:
    total = machine.total
    left = [one for one in machine.processes if one.stats.coverable_bytes > mapped_of(one)]
    items = []
    if total["left_bytes"]:
        pages, huge = total["left_bytes"] // 4096, -(-total["left_bytes"] // (2 << 20))
        items.append(
            f"{text.size(total['left_bytes'])} of coverable text run from small pages, in "
            f"{text.count(len(left), 'process', 'processes')}: up to {pages:,} entries of "
            f"translation caches, which {huge:,} would do for."
        )
    if total["page_table_bytes"]:
        items.append(
            f"Page tables for it take up to {text.size(total['page_table_bytes'])}: each process "
            "has its own."
        )
    if total["spare_bytes"]:
        items.append(
            f"{text.size(total['spare_bytes'])} are private copies of text that another process "
            "has, too: a store that they share would hold it once."
        )
    if machine.without:
        items.append(
            f"In {text.count(len(machine.without), 'process', 'processes')} the package is not "
            "loaded (not installed for that Python, started with PYHUGETEXT=0, or before it was "
            f"installed): {_named(machine.without)}."
        )
    said = el("ul", *(el("li", item) for item in items)) if items else el("p", _NOTHING_LEFT)
    return el("section", el("h2", "What huge text would still save"), said)


_NOTHING_LEFT = "Nothing: all coverable text is on huge pages, and no copy is there twice."
_NAMED = 8


def _named(processes: list[Close]) -> str:
    names = [f"{one.program} ({one.pid})" for one in processes[:_NAMED]]
    rest = len(processes) - _NAMED
    return text.listed([*names, f"{rest} more"] if rest > 0 else names)


def _processes(machine: Machine) -> Markup:
    if not machine.processes:
        return Markup()
    names = (
        *("User", "Package", "Coverable", "On huge pages", "Share", "Still small", "Private"),
        *("Memory", "Backing"),
    )
    rows = [
        parts.row("", _cells(one), el("span", f"{one.program} {one.pid}", title=_why(one)))
        for one in machine.processes[:_SHOWN]
    ]
    rest = len(machine.processes) - _SHOWN
    note = f"{text.count(rest, 'process', 'processes')} with less to gain not shown. "
    return el(
        "section",
        el("h2", "Processes"),
        parts.box("Processes", parts.header("Process", *names), el("tbody", *rows)),
        el(
            "p",
            f"{note if rest > 0 else ''}Those with the most text on small pages come first. Memory is "
            "a process's share of what the text takes: a page that four map counts a quarter for "
            "each. The package is loaded where its start-up hook ran, active where it put text on "
            "huge pages.",
            class_="quiet",
        ),
    )


def _why(one: Close) -> str:
    return without_addresses(one.stats.reason or "") or package_of(one)


def _cells(one: Close) -> tuple[str, ...]:
    stats, mapped = one.stats, mapped_of(one)
    return (
        one.user,
        package_of(one),
        text.size(stats.coverable_bytes),
        text.size(mapped),
        percent(mapped, stats.coverable_bytes),
        text.size(max(stats.coverable_bytes - mapped, 0)),
        text.size(stats.private_bytes),
        text.size(one.held.share),
        stats.backing,
    )


def _objects(machine: Machine) -> Markup:
    if not machine.objects:
        return Markup()
    rows = [
        parts.row(
            "",
            (
                f"{one.processes:,}",
                f"{one.huge_in:,}",
                text.size(one.coverable_bytes),
                text.size(one.left_bytes),
                text.size(one.private_bytes),
            ),
            el("span", name_of(one.path), title=one.path),
        )
        for one in machine.objects[:_SHOWN]
    ]
    names = ("Processes", "Huge in", "Coverable", "Still small", "Private")
    rest = len(machine.objects) - _SHOWN
    return el(
        "section",
        el("h2", "Objects"),
        parts.box("Objects", parts.header("Object", *names), el("tbody", *rows)),
        el("p", f"{text.count(rest, 'object')} with less to gain not shown.", class_="quiet")
        if rest > 0
        else "",
    )


def _unread(machine: Machine) -> Markup:
    lines = unread_lines(machine.unread)
    if not lines:
        return Markup()
    items = [el("li", line[:1].upper() + line[1:]) for line in lines]
    return el("section", el("h2", "What was not read"), el("ul", *items))
