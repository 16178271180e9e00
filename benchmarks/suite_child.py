"""One workload of the suite in a process of its own: what suite_run.py starts.

It begins on small text, without the start-up hook, and measures one side after the other with the
same data, each against small text. What it finds goes to the descriptor that it is given, a line of
JSON each: {"side", "share"} now and then, {"side", "result"} for each side, {"versions"} before,
{"skipped"} where the workload cannot run.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import workloads

from pyhugetext.measure.measurement import Measurement, Quad
from pyhugetext.measure.sides import NothingHuge, Sides
from pyhugetext.measure.switcher import Switcher, quads

# What is compared with small text: backing, and whether the plan is that of other tools, which
# take the whole 2 MiB pages inside the text and copy them to anonymous memory.
SIDES: dict[str, tuple[str, bool]] = {
    "auto": ("auto", False),
    "thp": ("thp", False),
    "inward": ("thp", True),
}

# Seconds between switches: several iterations, the fastest of which counts.
_SLOT = 0.04


def measure(
    run: Callable[[], object], side: str, seconds: float, tell: Callable[..., None]
) -> None:
    """Measures one side and tells the result; in words where there is none."""
    backing, inward = SIDES[side]
    sides = Sides(backing, inward=inward)
    try:
        sides.prepare()
    except NothingHuge as error:
        tell(side=side, result={"skipped": str(error)})
        sides.small()
        return
    measured: list[Quad] = []

    def repeat(loops: int) -> None:
        for _ in itertools.repeat(None, loops):
            run()

    def on_quad(quad: Quad, share: float) -> None:
        measured.append(quad)
        tell(side=side, share=share)

    sides.small()
    switcher = Switcher(repeat, huge=sides.huge, small=sides.small, slot=_SLOT)
    quads(switcher, seconds, on_quad)
    found = Measurement(
        kind="statement", quads=tuple(measured), loops=switcher.loops, laps=switcher.laps
    )
    sides.huge()
    run()  # pages of files come at their first use
    text = sides.describe()
    sides.small()
    slots = sorted(found.slots("small"))
    tell(
        side=side,
        result={
            "quads": found.as_dict()["samples"]["quads"],
            "iteration_ns": slots[len(slots) // 2] // found.loops,
            "text": text,
        },
    )


def main() -> None:
    name, sides, seconds, descriptor = sys.argv[1:]
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as messages:

        def tell(**message: Any) -> None:
            messages.write(json.dumps(message) + "\n")
            messages.flush()

        try:
            run = workloads.prepare(name)
        except ImportError as error:
            tell(skipped=f"{type(error).__name__}: {error}")
            return
        tell(versions={each: metadata.version(each) for each in workloads.load(name).NEEDS})
        run()
        gc.collect()
        gc.freeze()
        gc.disable()

        def iteration() -> None:
            run()
            # The same garbage at the same place each time, and memory that does not grow.
            gc.collect(0)

        for side in sides.split(","):
            measure(iteration, side, float(seconds), tell)


if __name__ == "__main__":
    main()
