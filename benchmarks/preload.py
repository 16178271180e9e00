"""What the preload library costs a program that ends at once, in milliseconds.

    python benchmarks/preload.py [--pairs 200] [COMMAND...]

Each round starts the command (/bin/true) four times: without, with a preloaded library that has nothing
in it, with ours turned off (PYHUGETEXT=0), and with ours at work on a store that was warmed. Printed is
the median of the differences within the rounds, with the interval of 95 %, and the same of the fastest
tenth of both sides, which another load of the machine moves less.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from starts import Cost, estimate, start_command

import pyhugetext

SIDES = ("without", "empty library", "PYHUGETEXT=0", "at work")


def environments(empty: Path, store: Path) -> dict[str, dict[str, str]]:
    """The environment of each side."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "LD_PRELOAD"))}
    plain["PYHUGETEXT_STORE"] = str(store)
    library = str(Path(pyhugetext.__file__).parent / "libpyhugetext_preload.so")
    return {
        "without": plain,
        "empty library": {**plain, "LD_PRELOAD": str(empty)},
        "PYHUGETEXT=0": {**plain, "LD_PRELOAD": library, "PYHUGETEXT": "0"},
        "at work": {**plain, "LD_PRELOAD": library},
    }


def fastest(values: Sequence[float]) -> float:
    """The mean of the fastest tenth."""
    return statistics.mean(sorted(values)[: max(len(values) // 10, 1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("command", nargs="*", default=["/bin/true"])
    options = parser.parse_args()
    rng = random.Random(20260101)
    with tempfile.TemporaryDirectory() as place:
        empty = Path(place, "libempty.so")
        source = ["-x", "c", "/dev/null"]
        subprocess.run(["cc", "-shared", "-o", empty, *source], check=True)
        sides = environments(empty, Path(place, "store"))
        costs: dict[str, list[Cost]] = {side: [] for side in SIDES}
        for _ in range(5):
            start_command(options.command, sides["at work"])
        for _ in range(options.pairs):
            for side in rng.sample(SIDES, len(SIDES)):
                costs[side].append(start_command(options.command, sides[side]))
    print(f"{' '.join(options.command)}, {options.pairs} rounds, milliseconds more than")
    for base, side in (
        ("without", "empty library"),
        ("without", "at work"),
        ("empty library", "PYHUGETEXT=0"),
    ):
        for kind in ("wall", "cpu"):
            ours = [getattr(cost, kind) for cost in costs[side]]
            theirs = [getattr(cost, kind) for cost in costs[base]]
            more = estimate([a - b for a, b in zip(ours, theirs)])
            best = fastest(ours) - fastest(theirs)
            print(f"{base:>14}: {side:<14} {kind:<4} {more}, fastest tenth {best:+.3f}")


if __name__ == "__main__":
    main()
