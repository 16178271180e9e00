"""One thing that was looked at, and reading small files of the kernel."""

from __future__ import annotations

import errno
import os
from typing import Any, NamedTuple

# What a check says: fine; it costs something; nothing works with it; neither good nor bad; the
# kernel does not tell.
OK, LIMIT, PROBLEM, INFO, UNKNOWN = "ok", "limit", "problem", "info", "unknown"
STATES = (OK, LIMIT, PROBLEM, INFO, UNKNOWN)


class Check(NamedTuple):
    """What was found: `text` for people, `facts` the same as plain values (sizes in bytes, times
    in nanoseconds)."""

    group: str  # kernel, process, machine, tried, start
    name: str
    state: str
    text: str
    facts: dict[str, Any]


def read_text(path: str) -> str | None:
    """A small file without its last line end; None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def read_number(path: str) -> int | None:
    """The decimal number in a small file; None where there is none."""
    text = read_text(path)
    digits = text is not None and text.lstrip("-").isascii() and text.lstrip("-").isdigit()
    return int(text) if text is not None and digits else None


def read_fields(path: str) -> dict[str, str]:
    """The lines `Name: value` of a file like /proc/self/status; empty where it cannot be read."""
    out: dict[str, str] = {}
    for line in (read_text(path) or "").splitlines():
        name, separator, value = line.partition(":")
        if separator:
            out.setdefault(name.strip(), value.strip())
    return out


def why(error: OSError) -> str:
    """An error in words, with the symbol that a manual page lists."""
    symbol = errno.errorcode.get(error.errno or 0, "")
    words = error.strerror or str(error)
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    symbol = "" if symbol in words else symbol  # Trouble names it already
    return f"{name}: " * bool(name) + words + f" ({symbol})" * bool(symbol)
