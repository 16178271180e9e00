"""Runs a statement in a process of its own and collects what it measures."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from pyhugetext.measure.endings import MeasuringFailed, ending, kill_group, last_line, uninterrupted
from pyhugetext.measure.measurement import Measurement, Quad

_POLL = 0.2  # seconds between looks whether the process is still there


@dataclass
class Job:
    """What to measure. `backing` None is the environment's, `loops` None finds the number."""

    setup: str
    stmt: str
    seconds: float
    slot: float
    backing: str | None = None
    loops: int | None = None


@dataclass
class Session:
    """What came back so far, complete or not. `on_event` gets (event, its fields)."""

    job: Job
    on_event: Callable[[str, dict[str, Any]], object] = lambda event, fields: None
    quads: list[Quad] = field(default_factory=list)
    text: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    ranged: dict[str, Any] = field(default_factory=dict)
    _done: bool = False

    def run(self) -> None:
        """Measures to the end. MeasuringFailed where that is impossible; on any exception (Ctrl-C)
        the process and its children are killed, and what was measured is kept."""
        reader, writer = os.pipe()
        try:
            with tempfile.TemporaryFile() as errors:
                process = None
                try:
                    with uninterrupted():
                        process = self._start(writer, errors)
                    os.close(writer)
                    writer = -1
                    self._listen(reader, process)
                finally:
                    if process is not None:
                        kill_group(process)
                if not self._done:
                    raise MeasuringFailed(
                        f"the process that ran STMT {ending(process.returncode)}"
                        + last_line(errors)
                    )
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def _start(self, writer: int, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            "PYHUGETEXT": "0",
            "PYHUGETEXT_BUILD": "always",
            "PYHUGETEXT_BUILD_LIMIT": "unlimited",
        }
        environ.pop("PYHUGETEXT_DEBUG", None)
        process = subprocess.Popen(
            [sys.executable, "-m", "pyhugetext.measure.child", str(writer)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(writer,),
            start_new_session=True,  # a terminal's Ctrl-C is for us
        )
        return process

    def _listen(self, reader: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # gone already: noticed below
            process.stdin.write(json.dumps(vars(self.job)).encode())
            process.stdin.close()
        rest = b""
        while not self._done:
            gone = process.poll() is not None
            ready, _, _ = select.select([reader], [], [], 0 if gone else _POLL)
            # A child of STMT may hold the other end open.
            if not ready:
                if gone:
                    return
                continue
            data = os.read(reader, 1 << 16)
            if not data:
                process.wait()
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                fields = json.loads(line)
                self._take(fields.pop("event"), fields)

    def _take(self, event: str, fields: dict[str, Any]) -> None:
        if event == "quad":
            self.quads.append(
                Quad(fields["kind"], *(tuple(fields[name]) for name in Quad._fields[1:]))
            )
        elif event == "failed":
            raise MeasuringFailed(fields["sentence"])
        elif event == "done":
            self._done = True
        else:
            known = {"text": self.text, "counters": self.counters, "ranged": self.ranged}
            known.get(event, {}).update(fields)
        self.on_event(event, fields)

    def measurement(self, **more: Any) -> Measurement:
        """What was measured so far; `more` are fields of Measurement."""
        return Measurement(
            kind="statement",
            quads=tuple(self.quads),
            loops=self.ranged.get("loops", 1),
            laps=self.ranged.get("laps", 1),
            text=self.text,
            counters=self.counters,
            **more,
        )
