"""The suite's results as a table, and as a plot of the ratios with their intervals."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyhugetext.cli import text

HEADER = (
    "workload", "side", "backing", "ratio", "95 % interval", "control", "99 % interval", "huge",
    "private", "finding",
)  # fmt: skip
ALIGN = "lllrlrlrrl"

# Told by shape as well as by colour.
_MARKS = {"auto": ("o", "#1f6fb4"), "thp": ("s", "#c7622b"), "inward": ("^", "#5b8c3a")}
_WORDS = {
    "auto": "pyhugetext (auto)",
    "thp": "private copies (thp)",
    "inward": "private copies of whole pages inside the text (other tools)",
}


def machine_name(processor: str, release: str) -> str:
    """A file name from what decides about the figures: `amd-epyc-linux-6.18.44`."""
    words = re.sub(r"\(R\)|\(TM\)|\bCPU\b|@.*", " ", processor, flags=re.IGNORECASE)
    slug = re.sub(r"[^a-z0-9.]+", "-", f"{words}-linux-{release}".lower())
    return re.sub(r"-+", "-", slug).strip("-.")


def rows(document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The cells of the table, a line for each side of each workload."""
    for workload in document["workloads"]:
        title = workload["title"]
        if workload["skipped"]:
            yield (title, *[""] * (len(HEADER) - 2), f"skipped: {workload['skipped']}")
        for side, result in workload["sides"].items():
            if result.get("skipped"):
                yield (
                    title,
                    side,
                    *[""] * (len(HEADER) - 3),
                    f"nothing on huge pages: {result['skipped']}",
                )
                continue
            effect, control = result["effect"], result["control"]
            yield (
                title,
                side,
                result["text"]["backing"],
                f"{effect['median']:.4f}",
                _interval(effect),
                f"{control['median']:.4f}" if control else "",
                _interval(control) if control else "",
                text.size(result["text"]["huge_bytes"]),
                text.size(result["text"]["private_bytes"]),
                result["verdict"]["word"],
            )


def _interval(ratio: dict[str, Any]) -> str:
    return f"{ratio['low']:.4f} to {ratio['high']:.4f}"


def print_table(document: dict[str, Any]) -> None:
    """To stdout: with rich where that is installed and stdout is a terminal, else plain text."""
    machine = document["machine"]
    print(
        f"{machine['processor']}, Linux {machine['kernel']}, Python {machine['python']}: CPU time "
        "huge / small, below 1 is faster; control: small / small"
    )
    found = list(rows(document))
    if text.width_of(sys.stdout) is not None:
        try:
            table_module: Any = importlib.import_module("rich.table")
            console = importlib.import_module("rich.console").Console()
        except ImportError:
            pass
        else:
            table = table_module.Table(box=None, pad_edge=False)
            for name, align in zip(HEADER, ALIGN):
                table.add_column(name, justify="right" if align == "r" else "left")
            for row in found:
                style = {"faster": "green", "slower": "red"}.get(row[-1], "")
                table.add_row(*row, style=style)
            console.print(table)
            return
    print("\n".join(text.table(HEADER, found, ALIGN)))


def plot(document: dict[str, Any], stem: Path) -> list[Path]:
    """Writes `stem`.svg and `stem`.png; returns the two paths. ImportError without matplotlib."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "pyhugetext"
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    shown = [w for w in document["workloads"] if _measured(w)]
    sides = [side for side in _MARKS if any(side in w["sides"] for w in shown)]
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.75 * max(len(shown), 1)))
    for at, side in enumerate(sides):
        marker, colour = _MARKS[side]
        places, medians, lows, highs = [], [], [], []
        for row, workload in enumerate(shown):
            result = workload["sides"].get(side)
            place = row + (at - (len(sides) - 1) / 2) * 0.22
            if result is None:
                continue
            if result.get("skipped"):
                axes.annotate(
                    "nothing on huge pages", (1, place), color=colour, fontsize=7, va="center",
                    xytext=(4, 0), textcoords="offset points",
                )  # fmt: skip
                continue
            effect, control = result["effect"], result["control"]
            places.append(place)
            medians.append(effect["median"])
            lows.append(effect["median"] - effect["low"])
            highs.append(effect["high"] - effect["median"])
            if control:
                axes.plot(
                    [control["low"], control["high"]], [place, place], color="#888888",
                    linewidth=5, alpha=0.35, solid_capstyle="butt", zorder=1,
                )  # fmt: skip
        axes.errorbar(
            medians, places, xerr=[lows, highs], fmt=marker, color=colour, capsize=3,
            label=_WORDS[side], zorder=3,
        )  # fmt: skip
    axes.axvline(1, color="#444444", linewidth=1, zorder=2)
    axes.set_yticks(range(len(shown)), [workload["title"] for workload in shown])
    axes.invert_yaxis()
    axes.set_xlabel("CPU time, huge / small pages (left of 1: faster); grey: small against small")
    machine = document["machine"]
    axes.set_title(f"{machine['processor']}, Linux {machine['kernel']}, Python {machine['python']}")
    if sides:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    axes.grid(axis="x", alpha=0.3)
    paths = [stem.with_name(f"{stem.name}{end}") for end in (".svg", ".png")]
    metadata = {".svg": {"Date": None}, ".png": {}}
    for path in paths:
        figure.savefig(path, bbox_inches="tight", dpi=120, metadata=metadata[path.suffix])
    pyplot.close(figure)
    return paths


def _measured(workload: dict[str, Any]) -> dict[str, Any]:
    return {side: r for side, r in workload["sides"].items() if not r.get("skipped")}
