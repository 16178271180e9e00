"""What the native headers say, for what Python or the documents say again."""

from __future__ import annotations

import re
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[2] / "src" / "native"


def header(name: str) -> str:
    """The text of a header, in whatever room it lies."""
    [path] = NATIVE.glob(f"**/{name}")
    return path.read_text()


def strings(name: str, array: str) -> tuple[str, ...]:
    """The texts in an array of a header."""
    found = re.search(rf"{array}\[\] = {{(.*?)}};", header(name), re.DOTALL)
    assert found, f"{name} has no {array}"
    return tuple(re.findall(r'"([^"]*)"', found[1]))


# The environment variables.
VARIABLES = strings("settings.h", "kVariables")
