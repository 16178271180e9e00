"""PYHUGETEXT_DEBUG=1: one line on stderr for every decision, when it is made."""

from __future__ import annotations

import sys

from pyhugetext import _api
from pyhugetext._stats import Region

_told: dict[tuple[str, int], str] = {}
_started = False


def _line(region: Region) -> str:
    if region.swapped_bytes:
        text = f"{region.status}, {region.backing}, {region.swapped_bytes // 1024} KiB"
    else:
        text = "small"
    reasons = "; ".join(filter(None, (region.reason, *region.fallbacks)))
    return f"{region.path}: {text}" + (f" ({reasons})" if reasons else "")


def report() -> None:
    """Writes what is new since the last call."""
    global _started
    stats = _api.stats()
    lines = []
    if not _started:
        lines += [f"setting: {problem}" for problem in stats.problems]
        if not stats.active:
            lines.append(f"not active: {stats.reason}")
    _started = True
    for region in stats.regions:
        line = _line(region)
        if _told.get((region.path, region.start)) != line:
            _told[region.path, region.start] = line
            lines.append(line)
    if sys.stderr is not None:
        sys.stderr.write("".join(f"pyhugetext: {line}\n" for line in lines))
        sys.stderr.flush()
