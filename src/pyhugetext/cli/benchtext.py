"""What `pyhugetext bench` found, for people."""

from __future__ import annotations

import statistics
import textwrap
from typing import TYPE_CHECKING

from pyhugetext.cli import text
from pyhugetext.measure.measurement import CONTROL, EFFECT

if TYPE_CHECKING:
    from pyhugetext.measure.measurement import Measurement

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def duration(seconds: float) -> str:
    """A stretch of time with three or four digits: `12.4 us`."""
    unit, name = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{seconds / unit:.4g} {name}"


def lines(found: Measurement, columns: int | None = None) -> list[str]:
    """The figures, what they rest on, the verdict, and all of it in one line at the end. Within so
    many columns the remarks beside the figures give way."""
    rows = []
    for side in ("small", "huge"):
        laps = found.slots(side)
        rows.append((side, duration(statistics.median(laps) / found.loops / 1e9), "CPU time a run"))
    kinds = [(EFFECT, "effect", "huge / small")]
    if found.of(CONTROL):
        kinds.append((CONTROL, "control", "small / small"))
    for kind, name, what in kinds:
        ratio = found.ratio_of(kind, "lap")
        percent = f"{ratio.confidence:.0%} interval of {ratio.pairs}".replace("%", " %")
        rows.append((name, str(ratio), f"{what}, {percent}"))
    if found.kind == "statement":
        rows.append(("whole slots", str(found.ratio_of(EFFECT, "cpu")), "with all that disturbs"))
    rows.append(("wall clock", str(found.ratio_of(EFFECT, "wall")), ""))
    width = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    out = [f"{a:<{width[0]}}  {b:<{width[1]}}  {c}".rstrip() for a, b, c in rows]
    if columns is not None and max(map(len, out)) > columns:
        out = [f"{a:<{width[0]}}  {b}".rstrip() for a, b, _ in rows]
    for line in (*remarks(found), found.verdict.sentence, found.line):
        out += textwrap.wrap(line, columns) if columns is not None else [line]
    return out


def remarks(found: Measurement) -> list[str]:
    """What the figures rest on, a sentence a line."""
    of_kind = _statement(found) if found.kind == "statement" else _command(found)
    return [*of_kind, *_counters(found), *_ended(found)]


def _ended(found: Measurement) -> list[str]:
    """Where it was ended before its time: why, and that the interval allows for it."""
    precision = found.settings.get("precision") or 0.0
    reasons = {
        "narrow": f"known to {100 * precision:g} %",
        "decided": f"1 lies more than {100 * precision:g} % outside of the interval",
    }
    why = reasons.get(str(found.settings.get("ended")))
    looks = f"the interval is widened for up to {found.looks} looks at it"
    return [f"ended early: {why}; {looks}"] if why else []


def _statement(found: Measurement) -> list[str]:
    runs, laps = text.count(found.loops, "run"), text.count(found.laps, "lap")
    quads = text.count(len(found.of(EFFECT)), "quad")
    out = [f"{quads} of 4 slots, {laps} a slot, {runs} a lap"]
    seconds, slot = found.settings.get("run_seconds"), found.settings.get("slot")
    if seconds and slot and seconds > slot:
        out.append(f"STMT takes longer than a slot ({duration(seconds)}): one run a slot")
    if found.settings.get("threaded"):
        out.append("STMT runs in several threads: a slot is one lap")
    out.append(
        f"page faults a slot: {found.faults('small'):.1f} small, {found.faults('huge'):.1f} huge"
    )
    if found.text:
        mapped, coverable = (text.size(found.text[k]) for k in ("mapped_bytes", "coverable_bytes"))
        out.append(f"text on huge pages: {mapped} of {coverable}, backing {found.text['backing']}")
        out += _private(found)
    return out


def _command(found: Measurement) -> list[str]:
    if not found.text:
        return []
    of, backing = text.printable(found.text["command"]), found.text["backing"]
    mapped, coverable = (text.size(found.text[k]) for k in ("mapped_bytes", "coverable_bytes"))
    return [f"text on huge pages: {mapped} of {coverable}, backing {backing} ({of})"]


def _private(found: Measurement) -> list[str]:
    from pyhugetext import _settings

    private, limit = found.text["private_bytes"], _settings.current().private_limit
    if private <= limit:
        return []
    return [
        f"PYHUGETEXT_PRIVATE_LIMIT was lifted: {text.size(private)} private memory, a program gets "
        f"{text.size(limit)}"
    ]


def _counters(found: Measurement) -> list[str]:
    reasons: dict[str, list[str]] = {}
    out = []
    for name, entry in found.counters.items():
        if "unavailable" in entry:
            reasons.setdefault(entry["unavailable"], []).append(name)
        elif "small" in entry and "huge" in entry:
            small, huge = entry["small"], entry["huge"]
            share = f" ({huge / small:.2f})" if small else ""
            out.append(f"{name} a run: {small:,.4g} small, {huge:,.4g} huge{share}")
    for reason, names in reasons.items():
        out.append(f"{', '.join(names)}: not available here: {reason}")
    return out
