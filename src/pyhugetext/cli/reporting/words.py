"""The sentences of a report."""

from __future__ import annotations

from collections.abc import Sequence

from pyhugetext._backing import LABELS
from pyhugetext._stats.model import not_small
from pyhugetext.cli import text
from pyhugetext.cli.reporting.model import Block, Report, percent, without_addresses

_NAMED = 4


def headline(report: Report) -> str:
    """The one sentence."""
    stats = report.stats
    if not stats.coverable_bytes:
        return "No text of this process fills a 2 MiB page"
    if not stats.active:
        return "All text of this process is on small pages"
    swapped = sum(region.swapped_bytes for region in stats.regions)
    mapped = not_small(stats.mapped_bytes, swapped, stats.small_bytes)
    share = percent(mapped, stats.coverable_bytes)
    return f"{share} of the coverable text is on huge pages"


def explanation(report: Report) -> str:
    """What the headline leaves out."""
    stats = report.stats
    if not stats.active:
        return f"The reason: {without_addresses(stats.reason or 'not known')}."
    mapped, coverable = text.size(stats.mapped_bytes), text.size(stats.coverable_bytes)
    now = f"The kernel holds {text.size(stats.huge_bytes)} in 2 MiB pages at this moment"
    if stats.small_bytes:
        now += f", and {text.size(stats.small_bytes)} of what was moved in small ones"
    if report.waiting:
        now += "; more comes in when it is first used"
    return (
        f"{mapped} of {coverable} of machine code that 2 MiB pages can hold, by way of "
        f"{backing(report)}. {now}. {memory(report)}"
    )


def backing(report: Report) -> str:
    names = report.stats.backing.split("+")
    return " and ".join(LABELS.get(name, name) for name in names)


def memory(report: Report) -> str:
    private = report.stats.private_bytes
    if not private:
        return "It costs no memory of the process's own."
    return f"It costs {text.size(private)} of memory that no other process shares."


def covered(block: Block) -> str:
    """Under an object's name: its coverable text, and how much of it is on huge pages."""
    region = block.region
    mapped = not_small(region.mapped_bytes, region.swapped_bytes, region.small_bytes)
    share = percent(mapped, region.coverable_bytes)
    return f"{text.size(region.coverable_bytes)}, {share}"


def names(blocks: Sequence[Block]) -> str:
    """Some of them by name."""
    listed = [block.name for block in blocks]
    if len(listed) > _NAMED + 1:
        listed[_NAMED:] = [f"{len(listed) - _NAMED} more"]
    return text.listed(listed)


def lines(report: Report) -> list[tuple[str, str, Sequence[str], int]]:
    """The lines of the map: name, note, cells, colour; the last one has what is small."""
    out: list[tuple[str, str, Sequence[str], int]] = [
        (block.name, covered(block), block.cells, block.colour) for block in report.blocks
    ]
    if report.small_cells:
        size = text.size(sum(region.text_bytes for region in report.small))
        note = f"{size}, none fills a 2 MiB page"
        out.append((small_objects(report), note, report.small_cells, 0))
    return out


def small_objects(report: Report) -> str:
    """The name of what has no line of its own."""
    return f"{text.count(len(report.small), 'small object')}"
