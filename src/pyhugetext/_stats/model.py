"""What stats() returns: immutable, JSON-ready, readable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pyhugetext._stats import kernel
from pyhugetext._stats.kernel import Kernel
from pyhugetext._stats.smaps import DELETED
from pyhugetext._words import table

# What a Region and Stats have in common: the columns of tables, and all that is summed.
SIZES = ("text_bytes", "coverable_bytes", "mapped_bytes", "huge_bytes", "private_bytes")
SUMMED = (*SIZES, "small_bytes")


class Region(NamedTuple):
    """One object with machine code in this process. Sizes in bytes, times in nanoseconds."""

    path: str
    build_id: str  # hexadecimal; empty where the object has none
    start: int  # of what was swapped; of the whole object where nothing was
    end: int
    text_bytes: int  # executable file text
    coverable_bytes: int = 0  # of it, what merging with read-only neighbours allows
    mapped_bytes: int = 0  # of it, inside swapped ranges
    swapped_bytes: int = 0  # the swapped ranges themselves, a multiple of 2 MiB
    huge_bytes: int = 0  # of them, what the kernel holds in 2 MiB pages now
    small_bytes: int = 0  # of them, what is in use and in small pages all the same
    private_bytes: int = 0  # of them, memory no other process shares
    backing: str = "none"  # file, store, shm, memfd, thp, hugetlb; none
    status: str = "small"  # huge: all coverable text; partial: some of it; small: nothing
    reason: str | None = None  # why not all of it
    fallbacks: tuple[str, ...] = ()  # why each better backing was not taken
    elapsed_ns: int = 0
    replaced: bool = False  # its file was deleted or replaced since: the next start runs another


class Stats(NamedTuple):
    """The state of this process at the call. Sizes in bytes, times in nanoseconds."""

    active: bool
    reason: str | None  # why not active
    backing: str  # of the regions; several are joined with "+", none is "none"
    regions: tuple[Region, ...]
    text_bytes: int  # all executable file text mapped
    coverable_bytes: int  # of it, what merging with read-only neighbours allows
    mapped_bytes: int  # of it, inside swapped ranges
    huge_bytes: int  # of the swapped ranges, in 2 MiB pages now, as /proc/self/smaps shows
    small_bytes: int  # of the swapped ranges, in use and in small pages, as the same shows
    private_bytes: int  # memory not shared with other processes because of us
    elapsed_ns: int  # spent remapping since the process started
    kernel: Kernel
    problems: tuple[str, ...]  # malformed settings, patterns that match nothing, refused calls
    strict: bool = False  # nothing became executable that was not: PYHUGETEXT_STRICT

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, strings and numbers, ready for json.dumps."""
        result = self._asdict()
        result["kernel"] = self.kernel._asdict()
        result["problems"] = list(self.problems)
        result["regions"] = [{**r._asdict(), "fallbacks": list(r.fallbacks)} for r in self.regions]
        return result

    def __str__(self) -> str:
        return format_stats(self)


def total(
    regions: Sequence[Region],
    reason: str,
    elapsed_ns: int,
    problems: Iterable[str],
    strict: bool = False,
) -> Stats:
    """The sums over all regions; `reason` counts where nothing is on huge pages."""
    active = any(region.huge_bytes for region in regions)
    backings = sorted({r.backing for r in regions} - {"none"})
    return Stats(
        active=active,
        reason=None if active else reason,
        backing="+".join(backings) or "none",
        regions=tuple(regions),
        **sums_of(regions),
        elapsed_ns=elapsed_ns,
        kernel=kernel.read(),
        problems=tuple(problems),
        strict=strict,
    )


def by_coverable(regions: Iterable[Region]) -> tuple[list[Region], list[Region]]:
    """Those with coverable text, and those without."""
    shown: list[Region] = []
    small: list[Region] = []
    for region in regions:
        (shown if region.coverable_bytes or region.swapped_bytes else small).append(region)
    return shown, small


def sizes_of(one: Region | Stats) -> tuple[int, ...]:
    """The columns of a table, in bytes: SIZES."""
    return tuple(getattr(one, name) for name in SIZES)


def sums_of(several: Iterable[Region | Stats]) -> dict[str, int]:
    """The sums of SUMMED."""
    found = list(several)
    return {name: sum(getattr(one, name) for one in found) for name in SUMMED}


def not_small(mapped: int, swapped: int, small: int) -> int:
    """Of the text inside swapped ranges, what is not seen to be in small pages: the rest is in huge
    ones, or was not used yet."""
    return mapped - min(mapped * small // swapped, mapped) if swapped else mapped


def _kib(size: int) -> str:
    """A size in KiB with thousands separators."""
    return f"{size // 1024:,}"


def _path_of(region: Region) -> str:
    """Without the mark of the kernel's for a file that was replaced."""
    path = region.path
    return path[: -len(DELETED)] if region.replaced and path.endswith(DELETED) else path


def name_of(region: Region) -> str:
    """The basename, for tables, marked where the file was replaced."""
    path = _path_of(region)
    return (path.rpartition("/")[2] or path) + " (replaced)" * region.replaced


def replaced_line(regions: tuple[Region, ...]) -> list[str]:
    """A line that names the objects whose file was replaced, where there are any."""
    paths = [_path_of(region) for region in regions if region.replaced]
    if not paths:
        return []
    more = f" and {len(paths) - 3} more" if paths[3:] else ""
    return [f"deleted or replaced on disk since, still running: {', '.join(paths[:3])}{more}"]


def format_stats(stats: Stats) -> str:
    """The table of the regions that have coverable text, and a line for the rest."""
    shown, rest = by_coverable(stats.regions)
    rows: list[tuple[str, ...]] = [
        ("object", "text KiB", "coverable", "mapped", "huge", "private", "backing", "status")
    ]

    def add(name: str, one: Region | Stats, status: str) -> None:
        rows.append((name, *map(_kib, sizes_of(one)), one.backing, status))

    for r in shown:
        add(name_of(r) or "?", r, r.status)
    if rest:
        text = _kib(sum(r.text_bytes for r in rest))
        rows.append((f"({len(rest)} too small)", text, "0", "0", "0", "0", "none", "small"))
    add("total", stats, "")

    lines = ["pyhugetext: " + ("active" if stats.active else f"not active: {stats.reason}")]
    lines += table(rows[0], rows[1:], "lrrrrrll")
    lines += [f"{r.path}: {r.reason}" for r in shown if r.reason]
    if stats.small_bytes:
        lines.append(
            f"{_kib(stats.small_bytes)} KiB of what was swapped are in use and in small pages; "
            "pyhugetext.remap() mends what can be mended"
        )
    lines += replaced_line(stats.regions)
    lines += [f"problem: {problem}" for problem in stats.problems]
    # Rounded down: 100 % is all of it.
    share = 100 * stats.mapped_bytes // stats.coverable_bytes if stats.coverable_bytes else 0
    lines.append(
        f"{share} % of the coverable text swapped in {stats.elapsed_ns / 1e6:.2f} ms; "
        f"Linux {stats.kernel.release}, THP {stats.kernel.thp_enabled}{', strict' * stats.strict}"
    )
    return "\n".join(lines)
