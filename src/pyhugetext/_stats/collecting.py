"""Putting the engine's snapshot and the kernel's smaps together into Stats."""

from __future__ import annotations

import bisect
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pyhugetext import _backing, _native
from pyhugetext._stats import sentences, smaps
from pyhugetext._stats.model import Region, Stats, total

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhugetext._native import RawRegion, RawSnapshot

    # Why not all of an object is on huge pages, from bytes swapped, resident and huge.
    Reason = Callable[[RawRegion, int, int, int], str | None]

_OFF = "turned off by PYHUGETEXT=0"


class Mappings:
    """A process's mappings, found by address."""

    def __init__(self, mappings: list[smaps.Mapping]) -> None:
        self.all = mappings
        self._starts = [mapping.start for mapping in mappings]

    def within(self, start: int, end: int) -> list[smaps.Mapping]:
        first = max(bisect.bisect_right(self._starts, start) - 1, 0)
        last = bisect.bisect_left(self._starts, end)
        return [m for m in self.all[first:last] if m.end > start]


def _runs(pages: list[tuple[int, int, bool, sentences.Outcome]]) -> list[tuple[int, int]]:
    """The swapped pages joined to ranges."""
    runs: list[tuple[int, int]] = []
    for start, end, swapped, _ in pages:
        if not swapped:
            continue
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def _reason(raw: RawRegion, swapped: int, resident: int, huge: int, off: bool) -> str | None:
    name = sentences.status_name(raw["outcome"])
    if name == "pending" and off:
        return _OFF
    left: dict[str, list[int]] = {}
    for start, _end, page_swapped, outcome in raw["pages"]:
        if page_swapped and sentences.is_ok(outcome):
            continue
        text = sentences.sentence(outcome)
        if swapped and text:
            left.setdefault(text, []).append(start)
    # Of all of it, where no page says more: restore() may have come to none.
    parts = [] if name == "ok" or left else [sentences.sentence(raw["outcome"])]
    for text, starts in left.items():
        more = f" and {len(starts) - 1} more" if len(starts) > 1 else ""
        parts.append(f"2 MiB at {starts[0]:#x}{more}: {text}")
    return joined(parts, resident, huge)


def joined(parts: list[str], resident: int, huge: int) -> str | None:
    """The reasons as one, with that of the kernel behind them; None for none."""
    if huge < resident:
        parts.append(f"the kernel holds {huge // 1024} of {resident // 1024} KiB in 2 MiB pages")
    return "; ".join(parts) or None


def _fallbacks(raw: RawRegion) -> tuple[str, ...]:
    out = []
    for number, name in enumerate(_backing.LADDER, 1):
        if number == raw["backing"]:
            break
        outcome = raw["tried"][number]
        if sentences.status_name(outcome) not in ("pending", "ok"):
            out.append(f"{name}: {sentences.sentence(outcome)}")
    return tuple(out)


def region_of(
    raw: RawRegion, mappings: Mappings, reason: Reason, fallbacks: tuple[str, ...] = ()
) -> Region:
    """What the kernel's figures say of one object, of this process or of another."""
    runs = _runs(raw["pages"])
    backing = _backing.NAMES[raw["backing"]]
    ours = [m for start, end in runs for m in mappings.within(start, end)]
    swapped = sum(end - start for start, end in runs)
    huge = min(sum(m.huge for m in ours), swapped)
    private = 0
    if backing in _backing.PRIVATE:
        private = min(sum(m.private for m in ours), swapped)
    elif runs:
        private = sum(m.anonymous for m in ours)
    # Pages of shared backings come at their first use: what is not resident is not small.
    resident = min(sum(m.resident for m in ours), swapped)
    whole = sentences.is_ok(raw["outcome"]) and huge >= resident
    return Region(
        path=raw["path"],
        build_id=raw["build_id"],
        start=runs[0][0] if runs else raw["low"],
        end=runs[-1][1] if runs else raw["high"],
        text_bytes=raw["text_bytes"],
        coverable_bytes=raw["coverable_bytes"],
        mapped_bytes=raw["mapped_bytes"],
        swapped_bytes=swapped,
        huge_bytes=huge,
        small_bytes=max(resident - huge, 0),
        private_bytes=private,
        backing=backing,
        status="small" if not swapped else "huge" if whole else "partial",
        reason=reason(raw, swapped, resident, huge),
        fallbacks=fallbacks,
        elapsed_ns=raw["elapsed_ns"],
        replaced=_is_replaced(raw, mappings),
    )


def _is_replaced(raw: RawRegion, mappings: Mappings) -> bool:
    """Whether what is still mapped of the original says so. The engine keeps the name that it had
    when it was swapped."""
    names = {raw["path"], raw["path"] + smaps.DELETED}
    return any(
        m.path in names and smaps.is_replaced(m.path)
        for m in mappings.within(raw["low"], raw["high"])
    )


NOT_LOADED = "not loaded by the dynamic linker: its lifetime is not known"


def not_loaded(mapping: smaps.Mapping) -> Region:
    """An executable file mapping that belongs to no object."""
    return Region(
        path=mapping.path,
        build_id="",
        start=mapping.start,
        end=mapping.end,
        text_bytes=mapping.end - mapping.start,
        reason=NOT_LOADED,
    )


def foreign(spans: list[tuple[int, int]], mappings: Mappings) -> list[smaps.Mapping]:
    """Executable file mappings outside the spans (sorted) of all loaded objects."""
    lows = [low for low, _ in spans]
    out = []
    for m in mappings.all:
        ours = m.retired or m.path.startswith("/memfd:pyhugetext:")
        if "x" not in m.permissions or not m.inode or ours:
            continue
        at = bisect.bisect_right(lows, m.start) - 1
        if at < 0 or m.start >= spans[at][1]:
            out.append(m)
    return out


def _matches(path: str, pattern: str) -> bool:
    try:
        return fnmatchcase(path, pattern)
    except re.error:  # Python before 3.11, for ranges that go down, as in [z-a]
        return False


def _unmatched(name: str, patterns: tuple[str, ...], regions: list[Region]) -> list[str]:
    return [
        f"{name} pattern {pattern!r} matches no mapped object"
        for pattern in patterns
        if not any(_matches(region.path, pattern) for region in regions)
    ]


def _why_inactive(raw: RawSnapshot, regions: list[Region]) -> str:
    if not raw["started"]:
        return (
            "not started: the start-up hook did not run (python -S, or no pyhugetext.pth where "
            "site looks); pyhugetext.remap() starts it"
        )
    if sentences.status_name(raw["machine"]) in ("other_engine", "watched"):
        return sentences.sentence(raw["machine"])
    if not sentences.is_ok(raw["machine"]):
        return "this machine's page size is not 4 KiB, or its huge page not 2 MiB"
    if not sentences.is_ok(raw["last"]):
        return sentences.sentence(raw["last"])
    if not raw["enabled"]:
        return "put back by restore()"
    for region in regions:
        if region.coverable_bytes and region.reason:
            # The reason is that of the last backing tried, which the list ends with.
            rest = [text for text in region.fallbacks if not text.endswith(region.reason)]
            return f"{region.path}: {'; '.join((region.reason, *rest))}"
    return "no mapped object is large enough"


def collect(
    off: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    problems: tuple[str, ...],
    strict: bool = False,
) -> Stats:
    """Takes the statistics now."""
    raw = _native.snapshot()
    found = [*problems, *raw["reasons"]]
    try:
        mappings = Mappings(smaps.read())
    except OSError as error:
        mappings = Mappings([])
        found.append(f"/proc/self/smaps cannot be read ({error}): huge_bytes is not known")

    def reason(region: RawRegion, swapped: int, resident: int, huge: int) -> str | None:
        return _reason(region, swapped, resident, huge, off)

    regions = [
        region_of(r, mappings, reason, _fallbacks(r)) for r in raw["regions"] if r["text_bytes"]
    ]
    spans = sorted((r["low"], r["high"]) for r in raw["regions"])
    regions += [not_loaded(m) for m in foreign(spans, mappings)]
    found += _unmatched("include", include, regions)
    found += _unmatched("exclude", exclude, regions)
    why = ""
    if not any(region.huge_bytes for region in regions):
        why = _OFF if off else _why_inactive(raw, regions)
    elif not sentences.is_ok(raw["last"]):
        found.append(f"the last look at this process failed: {sentences.sentence(raw['last'])}")
    return total(regions, why, raw["elapsed_ns"], found, strict)
