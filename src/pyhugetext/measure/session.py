"""Runs a statement in processes of its own and collects what they measure.

In several, one after the other, because each lies elsewhere in physical memory and has another
seed for its hashes: caches and branch predictors make differences of a percent from that, which no
amount of measuring in one process shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyhugetext.children import runner
from pyhugetext.measure.measurement import Measurement, MeasuringFailed, Quad, quad_from
from pyhugetext.measure.stopping import TIME, looks_at, settled


@dataclass
class Job:
    """What to measure. `backing` None is the environment's, `loops` and `laps` None find the
    number. `seconds` are divided among the processes."""

    setup: str
    stmt: str
    seconds: float
    slot: float
    backing: str | None = None
    loops: int | None = None
    laps: int | None = None
    processes: int = 1
    precision: float | None = None  # None measures for all of the time
    expect: bool = False  # look whether a gain can be expected, in the first process
    only_expect: bool = False


@dataclass
class Session:
    """What came back so far, complete or not. `on_event` gets (event, its fields); those of a
    quad hold the share of all that is done."""

    job: Job
    on_event: Callable[[str, dict[str, Any]], object] = lambda event, fields: None
    quads: list[Quad] = field(default_factory=list)
    text: dict[str, Any] = field(default_factory=dict)
    counters: list[dict[str, Any]] = field(default_factory=list)  # by process
    ranged: dict[str, Any] = field(default_factory=dict)
    process: int = 0  # how many were measured
    expectation: dict[str, Any] | None = None
    ended: str = TIME  # why it ended; see stopping
    _done: bool = False

    def run(self) -> None:
        """Measures to the end. MeasuringFailed where that is impossible; on any exception (Ctrl-C)
        the process and its children are killed, and what was measured is kept."""
        measured = 0
        while self.process < self.job.processes and measured < self.job.seconds * 1e9:
            first = len(self.quads)
            self._run_one()
            # One quad each may have taken all the time already.
            measured += sum(sum(quad.wall) for quad in self.quads[first:])
            self.process += 1
            if self.job.only_expect or self._settled():
                return

    @property
    def looks(self) -> list[int]:
        """After how many processes the interval is looked at; the last is the end."""
        if self.job.precision is None:
            return [self.job.processes]
        return looks_at(self.job.processes)

    def _settled(self) -> bool:
        """Whether the interval is good enough, at a point where that may be asked."""
        if self.job.precision is None or self.process not in self.looks[:-1]:
            return False
        found = self.measurement(settings={"looks": len(self.looks)})
        self.ended = settled(found.effect, self.job.precision) or TIME
        return self.ended != TIME

    def _run_one(self) -> None:
        self._done = False
        job = {**vars(self.job), "seconds": self.job.seconds / self.job.processes}
        job["expect"] = self.job.expect and not self.process
        # The same work in all of them.
        job.update((key, self.ranged[key]) for key in ("loops", "laps") if key in self.ranged)
        environ = runner.environment(
            PYHUGETEXT="0",
            PYHUGETEXT_BUILD="always",
            PYHUGETEXT_BUILD_TIME="unlimited",
            PYHUGETEXT_DEBUG=None,
        )
        try:
            # Apart: a terminal's Ctrl-C is for us.
            with runner.Child("pyhugetext.measure.child", job, environ, apart=True) as child:
                for fields in child.told():
                    self._take(fields.pop("event"), fields)
                    if self._done:
                        return
                raise child.unanswered()
        except runner.Unanswered as error:
            raise MeasuringFailed(f"the process that ran STMT {error}{error.line}") from None

    def _take(self, event: str, fields: dict[str, Any]) -> None:
        if event == "quad":
            self.quads.append(quad_from({**fields, "process": self.process}))
            fields["share"] = (self.process + fields["share"]) / self.job.processes
        elif event == "expectation":
            self.expectation = dict(fields)
        elif event == "failed":
            raise MeasuringFailed(fields["sentence"])
        elif event == "done":
            self._done = True
        elif event == "counters":
            self.counters[self.process :] = [fields]
        else:
            {"text": self.text, "ranged": self.ranged}.get(event, {}).update(fields)
        self.on_event(event, fields)

    def measurement(self, **more: Any) -> Measurement:
        """What was measured so far; `more` are fields of Measurement."""
        return Measurement(
            kind="statement",
            quads=tuple(self.quads),
            loops=self.ranged.get("loops", 1),
            laps=self.ranged.get("laps", 1),
            text=self.text,
            counters=average(self.counters),
            expectation=self.expectation,
            **more,
        )


def average(by_process: list[dict[str, Any]]) -> dict[str, Any]:
    """Counters as Meters.as_dict() gives them, of several processes made one."""
    out: dict[str, Any] = {}
    for name, first in (by_process[0] if by_process else {}).items():
        entries = [counters[name] for counters in by_process]
        if any("unavailable" in entry or entry.keys() != first.keys() for entry in entries):
            out[name] = next((e for e in entries if "unavailable" in e), first)
        else:
            out[name] = {side: sum(e[side] for e in entries) / len(entries) for side in first}
    return out
