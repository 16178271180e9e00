"""Switching the text of this process between small and huge pages, quickly and often."""

from __future__ import annotations

from typing import Any

import pyhugetext
from pyhugetext import _backing, _native, _settings
from pyhugetext._stats.model import sums_of


class NothingHuge(Exception):
    """No text came to lie on huge pages; the text says why."""


class Sides:
    """`huge()` and `small()` switch this process, by the binding itself: stats(), which remap()
    and restore() return, takes longer than the switch.

    `backing` as for remap(), None for the environment's. The limit on private memory is lifted.
    `inward` is the plan of other tools, for comparison.
    """

    def __init__(self, backing: str | None = None, *, inward: bool = False) -> None:
        self._request: dict[str, Any] = {"private_limit": _settings.NO_LIMIT, "inward": inward}
        if backing is not None:
            self._request["backing"] = _backing.NUMBERS[backing]

    def huge(self) -> None:
        """Text to huge pages."""
        _native.remap(**self._request)

    def small(self) -> None:
        """Text to where it was."""
        _native.restore()

    def prepare(self) -> None:
        """Builds the store entries that are missing, so that no switch waits for one. Leaves the
        text huge. NothingHuge with the reason where nothing can be moved."""
        if _native.remap(**self._request):
            _native.complete()
        raw = _native.snapshot()
        if any(region["mapped_bytes"] for region in raw["regions"]):
            return
        stats = pyhugetext.stats()
        largest = max(stats.regions, key=lambda r: (r.coverable_bytes, r.text_bytes), default=None)
        reasons = [largest.reason] if largest and largest.reason else [stats.reason]
        raise NothingHuge("; ".join(filter(None, (*reasons, *stats.problems))))

    @staticmethod
    def describe() -> dict[str, Any]:
        """What is on huge pages now, sizes in bytes; to be called after a run on the huge side,
        because pages of files come at their first use."""
        stats = pyhugetext.stats()
        return {"backing": stats.backing, **sums_of([stats])}
