"""Takes the rungs of the ladder one after the other, on the interpreter's own text."""

from __future__ import annotations

import shutil
from typing import Any

import pyhugetext
from pyhugetext import _native, _settings
from pyhugetext.children.channel import answer

_TOLD = ("backing", "huge_bytes", "private_bytes", "fallbacks")


def _take(rung: str) -> dict[str, Any]:
    """Moves to a rung, `` for what the environment asks for, and back; what it came to."""
    settings = _settings.current()
    asked = settings.building
    if rung:
        settings.building = asked if rung == "auto" else "always"
        settings.min_text = 0
        stats = pyhugetext.remap(backing=rung, include=(), exclude=())
    else:
        stats = pyhugetext.remap()
    region = max(stats.regions, key=lambda r: r.coverable_bytes)
    told = {
        "active": bool(region.huge_bytes) if rung else stats.active,
        **{name: getattr(region, name) for name in _TOLD},
        "reason": region.reason or stats.reason,
        "build": _native.snapshot()["reasons"],
    }
    settings.building = asked
    pyhugetext.restore()
    return told


def _try(request: Any, told: dict[str, Any]) -> None:
    settings = _settings.current()
    settings.store, settings.shm_store = request["store"], request["shm"] or "/nonexistent/none"
    try:
        for rung in request["rungs"]:
            told[rung] = _take(rung)
    finally:
        for path in request["remove"]:
            shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    answer(_try)
