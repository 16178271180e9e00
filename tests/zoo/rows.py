"""What the zoo found, compared and as a table; reads nothing but its results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

Row = dict[str, Any]
EXPECTED = 95  # per cent of what can be covered; what is less is explained


class Ended(Protocol):
    code: int
    out: str
    err: str


def difference(without: Ended, run: Ended) -> str:
    """What differs from the run without, in a sentence; empty where nothing does."""
    if run.code != without.code:
        return f"exit status {run.code}, without {without.code}: {run.err[-200:]}"
    if run.out != without.out:
        return f"stdout {run.out[-100:]!r}, without {without.out[-100:]!r}"
    if run.err != without.err:
        return f"stderr {run.err[-200:]!r}, without {without.err[-200:]!r}"
    return ""


def read(file: Path) -> list[Row]:
    """The last row of each wheel, in the order in which they were asked; a line that was cut off is none."""
    rows: dict[str, Row] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
            rows[row["wheel"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return list(rows.values())


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| wheel | text | covered | backing | private | without | first start | warm | same |",
        "|---|---:|---:|---|---:|---:|---:|---:|---|",
        *(_line(row) for row in rows),
    ]
    asked = [row for row in rows if "same" in row]
    same = sum(1 for row in asked if row["same"])
    lines += ["", f"{same} of {len(asked)} with the same output, exit status and stderr; "
              f"{len(rows) - len(asked)} skipped."]  # fmt: skip
    lines += _sentences(asked)
    return "\n".join(lines)


def _line(row: Row) -> str:
    if "same" not in row:
        return f"| {row['wheel']} | skipped: {row['skipped']} | | | | | | | |"
    name, stats = f"{row['wheel']} {row['version']}".strip(), row["stats"]
    if stats:
        sizes = [f"{stats['text_bytes'] / 2**20:.0f} MiB", f"{_share(stats):.0f} %", stats["backing"],
                 f"{stats['private_bytes'] / 2**20:.0f} MiB"]  # fmt: skip
    else:
        sizes = ["no figures", "", "", ""]
    off = row["off_s"]
    times = [f"{off:.2f} s", f"{row['first_s'] / off:.2f}", f"{row['on_s'] / off:.2f}"]
    return f"| {' | '.join([name, *sizes, *times, 'yes' if row['same'] else 'NO'])} |"


def _share(stats: Row) -> float:
    return 100 * stats["mapped_bytes"] / (stats["coverable_bytes"] or 1)


def _sentences(rows: Iterable[Row]) -> list[str]:
    found = []
    for row in rows:
        found += [f"- {row['wheel']}: {sentence}" for sentence in row["differences"]]
        found += [
            f"- {row['wheel']}, without, from run to run: {s}" for s in row["unsteady_without"]
        ]
        if row.get("warm_exit"):
            found.append(
                f"- {row['wheel']}: warm ended with {row['warm_exit']}: {row.get('warm_stderr')}"
            )
        if row["stats"] and _share(row["stats"]) < EXPECTED:
            found += [f"- {row['wheel']}, not covered: {s}" for s in row["stats"]["uncovered"]]
        if row["exit"]:
            found.append(f"- {row['wheel']}: ends with {row['exit']} without, too: {row['stderr']}")
    return found
