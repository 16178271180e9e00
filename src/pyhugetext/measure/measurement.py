"""What a measurement found, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pyhugetext.measure import summary
from pyhugetext.measure.statistics import (
    CONTROL_CONFIDENCE,
    EFFECT_CONFIDENCE,
    Ratio,
    Verdict,
    ratio,
    verdict,
)

FORMAT = "pyhugetext-bench-1"

EFFECT = "effect"
CONTROL = "control"


class MeasuringFailed(Exception):
    """Nothing can be measured; the text is one sentence."""


class Quad(NamedTuple):
    """Four slots in the order small, huge, huge, small (in the control small four times): what
    each took, in nanoseconds, and the page faults that fell into it. A slot is made of laps of the
    same work; of a command it is one run, and one lap."""

    kind: str  # EFFECT or CONTROL
    lap: tuple[int, int, int, int]  # CPU time of the fastest lap
    cpu: tuple[int, int, int, int]  # CPU time of the whole slot
    wall: tuple[int, int, int, int]  # wall-clock time of the whole slot
    faults: tuple[int, int, int, int]
    process: int = 0  # which of several processes it ran in


@dataclass(frozen=True)
class Measurement:
    """Ratios are huge / small: below 1 is faster. `control` compares small with small."""

    kind: str  # "statement" or "command"
    quads: tuple[Quad, ...]
    loops: int = 1  # runs of the statement a lap
    laps: int = 1  # laps a slot
    settings: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)  # what was on huge pages
    counters: Mapping[str, Any] = field(default_factory=dict)
    expectation: Mapping[str, Any] | None = None  # expectation.Expectation as a dict

    @property
    def effect(self) -> Ratio:
        """Of the CPU time of the fastest laps. ValueError when no quad is complete."""
        return self.ratio_of(EFFECT, "lap")

    @property
    def control(self) -> Ratio:
        """The same with small text on both sides. ValueError when no quad is complete."""
        return self.ratio_of(CONTROL, "lap")

    @property
    def verdict(self) -> Verdict:
        return verdict(self.effect, self.control if self.of(CONTROL) else None)

    def of(self, kind: str) -> list[Quad]:
        return [quad for quad in self.quads if quad.kind == kind]

    def pairs(self, quad: Quad, clock: str = "lap") -> list[tuple[int, int]]:
        """(huge, small) of a quad. Of a statement one: what drifts evenly hits both alike; of a
        command each neighbouring two."""
        a, b, c, d = getattr(quad, clock)
        return [(b + c, a + d)] if self.kind == "statement" else [(b, a), (c, d)]

    def slots(self, side: str, what: str = "lap") -> list[int]:
        """CPU times of the fastest laps of the effect on one side, "small" or "huge", in order."""
        at = (1, 2) if side == "huge" else (0, 3)
        return [getattr(quad, what)[i] for quad in self.of(EFFECT) for i in at]

    def faults(self, side: str) -> float:
        """Page faults a slot, on average: those of the switch itself are not in it."""
        found = self.slots(side, "faults")
        return sum(found) / len(found) if found else 0.0

    def ratio_of(self, kind: str, clock: str) -> Ratio:
        """Of the effect or the control, by "lap", "cpu" or "wall". ValueError when no quad is
        complete."""
        confidence = EFFECT_CONFIDENCE if kind == EFFECT else CONTROL_CONFIDENCE
        found = [(pair, quad.process) for quad in self.of(kind) for pair in self.pairs(quad, clock)]
        pairs, groups = [pair for pair, _ in found], [group for _, group in found]
        # Nothing ends because of the control.
        return ratio(pairs, confidence, groups, self.looks if kind == EFFECT else 1)

    @property
    def line(self) -> str:
        """All of it in one line."""
        return summary.line(self.settings, self.verdict.word, self.effect, self.machine)

    @property
    def looks(self) -> int:
        """At how many points measuring might have ended early, the end included."""
        looks = self.settings.get("looks")
        return looks if isinstance(looks, int) and looks > 0 else 1

    def as_dict(self) -> dict[str, Any]:
        """Ready for json.dumps; from_dict() reads it."""

        def both(clock: str) -> dict[str, Any]:
            control = self.ratio_of(CONTROL, clock)._asdict() if self.of(CONTROL) else None
            return {"effect": self.ratio_of(EFFECT, clock)._asdict(), "control": control}

        return {
            "format": FORMAT,
            "kind": self.kind,
            **both("lap"),
            "whole": both("cpu"),
            "wall": both("wall"),
            "verdict": self.verdict._asdict(),
            "samples": {
                "loops": self.loops,
                "laps": self.laps,
                "quads": [
                    {name: list(v) if isinstance(v, tuple) else v for name, v in zip(q._fields, q)}
                    for q in self.quads
                ],
                "faults_per_slot": {side: self.faults(side) for side in ("small", "huge")},
            },
            "text": dict(self.text),
            "counters": dict(self.counters),
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "expectation": None if self.expectation is None else dict(self.expectation),
            "line": self.line,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Measurement:
        """What as_dict() gave. ValueError for anything else."""
        try:
            if document["format"] != FORMAT or document["kind"] not in ("statement", "command"):
                raise ValueError(f"its format is {document['format']!r}")
            samples = document["samples"]
            return cls(
                kind=document["kind"],
                quads=tuple(quad_from(raw) for raw in samples["quads"]),
                loops=int(samples["loops"]),
                laps=int(samples["laps"]),
                settings=dict(document["settings"]),
                machine=dict(document["machine"]),
                text=dict(document["text"]),
                counters=dict(document["counters"]),
                # Files of before had none.
                expectation=dict(document.get("expectation") or {}) or None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the JSON of pyhugetext bench ({FORMAT}): {error}") from None


def quad_of(kind: str, slots: Sequence[Sequence[int]], process: int = 0) -> Quad:
    """A quad of four slots, each (lap, cpu, wall, faults)."""
    lap, cpu, wall, faults = (_four(row) for row in zip(*slots))
    return Quad(kind, lap, cpu, wall, faults, process)


def quad_from(raw: Mapping[str, Any]) -> Quad:
    """A quad from its JSON. KeyError, TypeError or ValueError where it is none."""
    if raw["kind"] not in (EFFECT, CONTROL):
        raise ValueError(f"a quad of kind {raw['kind']!r}")
    lap, cpu, wall, faults = (_four(raw[name]) for name in ("lap", "cpu", "wall", "faults"))
    return Quad(raw["kind"], lap, cpu, wall, faults, int(raw["process"]))


def _four(values: Sequence[int]) -> tuple[int, int, int, int]:
    a, b, c, d = (int(value) for value in values)
    return a, b, c, d
