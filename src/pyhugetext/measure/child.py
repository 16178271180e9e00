"""The process that runs a statement: `python -m pyhugetext.measure.child FD`.

It gets a job on stdin as JSON and writes lines of JSON to FD, one for each thing that its parent
(pyhugetext.measure.session) has to know. It was started with PYHUGETEXT=0, so that the start-up
hook did nothing, and begins by undoing that.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

from pyhugetext.measure.counters import Meters, tlb_events
from pyhugetext.measure.measurement import Quad
from pyhugetext.measure.statement import Failed, Statement


class _Channel:
    """To the parent. When it is gone there is nothing left to do."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd

    def send(self, event: str, **more: Any) -> None:
        line = (json.dumps({"event": event, **more}) + "\n").encode()
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except BrokenPipeError:
            os._exit(1)


def _run(job: dict[str, Any], channel: _Channel) -> None:
    # Before SETUP: only threads that are started later are counted.
    meters = Meters(tlb_events())
    gc.disable()
    channel.send("phase", label="running SETUP")
    repeat = Statement(job["setup"], job["stmt"]).set_up()
    channel.send("phase", label="running STMT")
    repeat(1)
    channel.send("phase", label="preparing the store")

    from pyhugetext.measure import sides, switcher

    try:
        pages = sides.Sides(job["backing"])
        pages.prepare()
        repeat(1)
        channel.send("text", **pages.describe())
    except sides.NothingHuge as error:
        channel.send("failed", sentence=f"no text came to lie on huge pages: {error}")
        return
    pages.small()
    channel.send("phase", label="finding how often to run STMT")
    one = switcher.Switcher(
        repeat,
        huge=pages.huge,
        small=pages.small,
        slot=job["slot"],
        loops=job["loops"],
        laps=job["laps"],
        meter=meters,
    )
    channel.send(
        "ranged",
        loops=one.loops,
        laps=one.laps,
        run_seconds=one.run_seconds,
        threaded=one.threaded,
    )
    # What it has to say from here on is not kept.
    os.dup2(1, 2)

    def on_quad(quad: Quad, share: float) -> None:
        channel.send("quad", share=share, **quad._asdict())
        channel.send("counters", **meters.as_dict(one.loops * one.laps))

    switcher.quads(one, job["seconds"], on_quad)
    channel.send("done")


def main() -> int:
    channel = _Channel(int(sys.argv[1]))
    job = json.load(sys.stdin)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    del os.environ["PYHUGETEXT"]
    sys.argv[:] = [""]
    try:
        _run(job, channel)
    except Failed as failure:
        channel.send("failed", sentence=str(failure))
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    # What SETUP made is not our business any more: no finalizer may fail or hang.
    os._exit(status)
