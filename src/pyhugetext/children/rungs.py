"""Takes the rungs of the ladder one after the other, on the interpreter's own text."""

from __future__ import annotations

import shutil
from typing import Any

import pyhugetext
from pyhugetext import _api, _backing, _native, _settings
from pyhugetext.children.channel import answer

_TOLD = ("backing", "huge_bytes", "private_bytes", "fallbacks")


def _take(rung: str, stores: dict[str, bytes]) -> dict[str, Any]:
    """Moves to a rung, `` for what the environment asks for, and back; what it came to."""
    given: dict[str, Any] = {}
    if rung:
        given = {"backing": _backing.NUMBERS[rung], "min_text": 0, "include": b"", "exclude": b""}
    if rung and rung != "auto":
        given["building"] = _settings.BUILDING.index("always")
    stats = _api.remap_with(**stores, **given)
    region = max(stats.regions, key=lambda r: r.coverable_bytes)
    told = {
        "active": bool(region.huge_bytes) if rung else stats.active,
        **{name: getattr(region, name) for name in _TOLD},
        "reason": region.reason or stats.reason,
        "build": _native.snapshot()["reasons"],
    }
    pyhugetext.restore()
    return told


def _try(request: Any, told: dict[str, Any]) -> None:
    own = [request["store"]] if request["store"] else []
    stores = {
        "stores": _settings.encoded([_settings.current().system_store, *own]),
        "shm_stores": _settings.encoded([request["shm"]] if request["shm"] else []),
    }
    try:
        for rung in request["rungs"]:
            told[rung] = _take(rung, stores)
    finally:
        for path in request["remove"]:
            shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    answer(_try)
