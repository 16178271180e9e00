"""The process that runs a statement, a job of its parent's (pyhugetext.measure.session), and tells of
each thing that the parent has to know.

It was started with PYHUGETEXT=0, so that the start-up hook did nothing, and begins by undoing that.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from pyhugetext import _api  # noqa: F401  (stats() would import it late)
from pyhugetext._stats import collecting  # noqa: F401
from pyhugetext.children.channel import Channel
from pyhugetext.measure import expectation, sides, switcher
from pyhugetext.measure.counters import Meters, tlb_events
from pyhugetext.measure.measurement import Quad
from pyhugetext.measure.statement import Raised, Statement


def _run(channel: Channel) -> None:
    job = channel.request
    # Before SETUP: only threads that are started later are counted.
    meters = Meters(tlb_events())
    gc.disable()
    channel.tell(event="phase", label="running SETUP")
    # As with `python -m timeit` it may import from the current directory, where nothing is looked
    # for before: what is needed later is there.
    if not os.environ.get("PYTHONSAFEPATH"):
        with contextlib.suppress(OSError):
            sys.path.insert(0, os.getcwd())
    repeat = Statement(job["setup"], job["stmt"]).set_up()
    channel.tell(event="phase", label="running STMT")
    repeat(1)
    channel.tell(event="phase", label="preparing the store")
    try:
        pages = sides.Sides(job["backing"])
        pages.prepare()
        repeat(1)
        channel.tell(event="text", **pages.describe())
    except sides.NothingHuge as error:
        channel.tell(event="failed", sentence=f"no text came to lie on huge pages: {error}")
        return
    pages.small()
    channel.tell(event="phase", label="finding how often to run STMT")
    one = switcher.Switcher(
        repeat,
        huge=pages.huge,
        small=pages.small,
        slot=job["slot"],
        loops=job["loops"],
        laps=job["laps"],
        meter=meters,
    )
    if job["expect"]:
        channel.tell(event="phase", label="looking whether a gain can be expected")
        found = expectation.of(lambda: repeat(one.loops))
        channel.tell(event="expectation", **found._asdict())
        if job["only_expect"]:
            channel.tell(event="done")
            return
    channel.tell(
        event="ranged",
        loops=one.loops,
        laps=one.laps,
        run_seconds=one.run_seconds,
        threaded=one.threaded,
    )
    # What it has to say from here on is not kept.
    os.dup2(1, 2)

    def on_quad(quad: Quad, share: float) -> None:
        channel.tell(event="quad", share=share, **quad._asdict())
        channel.tell(event="counters", **meters.as_dict(one.loops * one.laps))

    switcher.quads(one, job["seconds"], on_quad)
    channel.tell(event="done")


def main() -> int:
    channel = Channel()
    del os.environ["PYHUGETEXT"]
    try:
        _run(channel)
    except Raised as failure:
        channel.tell(event="failed", sentence=str(failure))
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    # What SETUP made is not our business any more: no finalizer may fail or hang.
    os._exit(status)
