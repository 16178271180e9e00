"""Pages."""

from __future__ import annotations

PAGE = 4096
HUGE = 2 << 20  # a huge page


def down(number: int, unit: int = PAGE) -> int:
    """The multiple of the unit at or below a number."""
    return number // unit * unit


def up(number: int, unit: int = PAGE) -> int:
    """The multiple of the unit at or above a number."""
    return -(-number // unit) * unit
