"""Draws docs/assets/before-after.svg: the machine code of a Python that imports torch, without the
package and with it, as two calls of `pyhugetext report --json` found it.

    python docs/before_after.py -m torch docs/assets/before-after.svg

in an environment with the package and torch, after `pyhugetext warm torch`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pyhugetext.cli import text
from pyhugetext.cli.reporting.markup import Markup, el

WIDTH, MARGIN = 520, 12
COLUMNS, PITCH, SIDE = 48, 10.4, 8.6

# Of the report's map: legible on white and on black.
STYLE = """
:root { --ground: #ffffff; --ink: #1b2126; --quiet: #57626c; --small: #a36200; --huge: #2b69b1; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181b; --ink: #e4e8eb; --quiet: #9ba6af; --small: #dca43f; --huge: #71aae8; }
}
svg { font: 13px system-ui, "Liberation Sans", "DejaVu Sans", sans-serif; }
.ground { fill: var(--ground); }
text { fill: var(--ink); } text.quiet { fill: var(--quiet); } .title { font-weight: 600; font-size: 15px; }
.huge, .waiting { fill: var(--huge); } .waiting { opacity: .35; }
.small { fill: none; stroke: var(--small); stroke-width: .9; }
"""


def ask(modules: list[str], **variables: str) -> dict[str, Any]:
    """What the report says of a new process that imports these."""
    command = [sys.executable, "-m", "pyhugetext", "report", "--json"]
    for module in modules:
        command += ["-m", module]
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [*command, str(Path(place) / "page.html")],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def square(x: float, y: float) -> str:
    return f"M{x:g} {y:g}h{SIDE}v{SIDE}h-{SIDE}z"


def hatched(x: float, y: float) -> str:
    """As many small things."""
    third = SIDE / 3
    lines = (
        f"M{x:g} {y + third:.1f}h{SIDE}M{x:g} {y + 2 * third:.1f}h{SIDE}"
        f"M{x + third:.1f} {y:g}v{SIDE}M{x + 2 * third:.1f} {y:g}v{SIDE}"
    )
    return square(x, y) + lines


def squares(found: dict[str, Any], y: float) -> tuple[list[Markup], float]:
    """One for each 2 MiB of code that can be on huge pages; and where they end."""
    counts = {"huge": 0, "waiting": 0, "small": 0}
    for one in found["map"]:
        for state, number in one["cells"].items():
            counts["small" if state == "mixed" else state] += number
    parts: dict[str, list[str]] = {state: [] for state in counts}
    number = 0
    for state, count in counts.items():
        for _ in range(count):
            row, column = divmod(number, COLUMNS)
            draw = hatched if state == "small" else square
            parts[state].append(draw(MARGIN + column * PITCH, y + row * PITCH))
            number += 1
    shown = [el("path", class_=state, d="".join(paths)) for state, paths in parts.items() if paths]
    return shown, y + -(-number // COLUMNS) * PITCH


def words(found: dict[str, Any]) -> str:
    stats = found["stats"]
    size = text.size(stats["coverable_bytes"])
    if not stats["mapped_bytes"]:
        return f"{size} in {stats['coverable_bytes'] >> 12:,} pages of 4 KiB"
    number = sum(
        count for one in found["map"] for state, count in one["cells"].items() if state != "small"
    )
    share = 100 * stats["mapped_bytes"] // stats["coverable_bytes"]
    private = text.size(stats["private_bytes"]) if stats["private_bytes"] else "no memory"
    return f"{share} % in {number} pages of 2 MiB, {private} of its own"


def drawing(modules: list[str]) -> str:
    y = 26.0
    shown = [
        el("text", f"python with {text.listed(modules)}: a square is 2 MiB of code", x=MARGIN, y=y,
           class_="title")
    ]  # fmt: skip
    told = []
    for title, switch in (("without", "0"), ("with", "1")):
        found = ask(modules, PYHUGETEXT=switch)
        told.append(f"{title} pyhugetext: {words(found)}")
        y += 26
        shown.append(el("text", told[-1], x=MARGIN, y=y))
        cells, y = squares(found, y + 9)
        shown += cells
    y += 20
    key = (
        (hatched, "small", "in 4 KiB pages"),
        (square, "huge", "in a 2 MiB page"),
        (square, "waiting", "the same, not used yet"),
    )
    for number, (draw, state, meaning) in enumerate(key):
        x = MARGIN + number * 150
        shown.append(el("path", class_=state, d=draw(x, y - SIDE - 1)))
        shown.append(el("text", meaning, x=x + 12, y=y, class_="quiet"))
    height = y + 12
    return el(
        "svg",
        el("title", "; ".join(told)),
        el("style", Markup(STYLE)),
        el("rect", width=WIDTH, height=height, class_="ground"),
        *shown,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:g}",
        width=WIDTH,
        height=height,
        role="img",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("-m", dest="modules", action="append", required=True)
    options = parser.parse_args()
    options.file.write_text(drawing(options.modules) + "\n")


if __name__ == "__main__":
    main()
