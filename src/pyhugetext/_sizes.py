"""Sizes in words."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size(number: int) -> str:
    """Bytes in the unit that leaves one to four digits before the point: `335.2 MiB`."""
    if abs(number) < 1024:
        return f"{number} B"
    value = float(number)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"
