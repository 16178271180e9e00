"""All Python processes of a machine: what they have in common, and what huge text would still save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pyhugetext._stats.model import not_small, sums_of
from pyhugetext._units import HUGE, PAGE
from pyhugetext.cli.processes import Close, Unread, running_python_closely

FORMAT = "pyhugetext-machine-1"


class Shared(NamedTuple):
    """An object that processes have mapped."""

    path: str
    processes: int
    huge_in: int  # in how many of them some of its text is on huge pages
    coverable_bytes: int  # summed over the processes, as what follows
    left_bytes: int  # coverable, and on small pages
    private_bytes: int  # of copies that one process has for itself
    spare_bytes: int  # of those copies, what one for all would save


class Machine(NamedTuple):
    """All that a page shows."""

    processes: tuple[Close, ...]
    unread: tuple[Unread, ...]
    objects: tuple[Shared, ...]  # the ones with the most text left on small pages first

    @property
    def without(self) -> list[Close]:
        """Those in which the package is not loaded."""
        return [one for one in self.processes if not one.loaded]

    @property
    def total(self) -> dict[str, int]:
        stats = [one.stats for one in self.processes]
        found = sums_of(stats)
        coverable, mapped = found["coverable_bytes"], sum(map(mapped_of, self.processes))
        left = max(coverable - mapped, 0)
        return {
            "processes": len(stats),
            **found,
            "on_huge_bytes": mapped,
            "left_bytes": left,
            # Of each 2 MiB in small pages a process has a page table of its own.
            "page_table_bytes": left // HUGE * PAGE,
            "spare_bytes": sum(one.spare_bytes for one in self.objects),
            "resident_bytes": sum(one.held.resident for one in self.processes),
            "share_bytes": sum(one.held.share for one in self.processes),
        }


def mapped_of(one: Close) -> int:
    """What is on huge pages, without what is seen to be in small ones."""
    stats = one.stats
    swapped = sum(region.swapped_bytes for region in stats.regions)
    return not_small(stats.mapped_bytes, swapped, stats.small_bytes)


def gather() -> Machine:
    """Looks at all of them, for reading."""
    found = list(running_python_closely())
    seen = [one for one in found if isinstance(one, Close)]
    return build(seen, [one for one in found if isinstance(one, Unread)])


def build(seen: Sequence[Close], unread: Sequence[Unread]) -> Machine:
    """Puts it together."""
    ordered = sorted(seen, key=lambda one: mapped_of(one) - one.stats.coverable_bytes)
    return Machine(tuple(ordered), tuple(unread), tuple(_objects(seen)))


def _objects(seen: Sequence[Close]) -> list[Shared]:
    by_path: dict[str, list[Any]] = {}
    for one in seen:
        for region in one.stats.regions:
            if region.coverable_bytes or region.swapped_bytes:
                by_path.setdefault(region.path, []).append(region)
    out = []
    for path, regions in by_path.items():
        mapped = [not_small(r.mapped_bytes, r.swapped_bytes, r.small_bytes) for r in regions]
        coverable = sum(r.coverable_bytes for r in regions)
        private = [r.private_bytes for r in regions]
        out.append(
            Shared(
                path,
                len(regions),
                sum(1 for bytes_ in mapped if bytes_),
                coverable,
                max(coverable - sum(mapped), 0),
                sum(private),
                sum(private) - max(private),
            )
        )
    return sorted(out, key=lambda one: (-one.left_bytes, -one.coverable_bytes, one.path))


def package_of(one: Close) -> str:
    """Whether the package is there, and whether it put anything on huge pages, in words."""
    if not one.loaded:
        return "not loaded"
    return "active" if one.stats.active else "loaded"


def as_dict(machine: Machine) -> dict[str, Any]:
    """For --json."""
    return {
        "format": FORMAT,
        "total": machine.total,
        "processes": [
            {
                "pid": one.pid,
                "user": one.user,
                "program": one.program,
                "loaded": one.loaded,
                "active": one.stats.active,
                "reason": one.stats.reason,
                "backing": one.stats.backing,
                **sums_of([one.stats]),
                "left_bytes": max(one.stats.coverable_bytes - mapped_of(one), 0),
                "resident_bytes": one.held.resident,
                "share_bytes": one.held.share,
            }
            for one in machine.processes
        ],
        "objects": [one._asdict() for one in machine.objects],
        "unreadable": [{"pid": one.pid, "reason": one.reason} for one in machine.unread],
    }
