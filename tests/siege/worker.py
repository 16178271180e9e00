"""One process that is besieged: takes steps from a seed until its number or its time is up, judges
after each, and notes each before it is taken, in a file that is read when it ends badly.

argv: the configuration as JSON; see driver.py.
"""

from __future__ import annotations

import collections
import errno
import json
import mmap
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import children
import outside
import steps
from world import LeftOut, World, Wrong

import pyhugetext
from pyhugetext import _native

STATISTICS = 128  # steps between two looks at stats() and smaps
MAPPINGS = 16  # and at the number of mappings
LINE = 64  # bytes of a note
NOTES = 32

# How often in ten thousand. The core kinds, without which a run proves nothing, come first.
CORE = {
    steps.remap: 1100, steps.restore: 650, steps.call: 2500, steps.load: 600, steps.unload: 300,
    steps.start_thread: 200, steps.stop_threads: 150, children.fork: 25, children.vfork: 150,
    children.spawn: 30,
}  # fmt: skip
OTHERS = {
    steps.remap_all: 60, steps.public: 15, steps.other_namespace: 8, children.execute: 12,
    steps.tick: 200, steps.advise: 1500, steps.protect: 1200, steps.patch: 30, children.race: 6, children.refuse: 8, steps.tighten: 15, steps.beside: 1200,
    children.ask_linker: 8, children.preloaded: 8,
    children.change_user: 5, steps.bring_in: 12, steps.uprobe: 8, steps.replace_file: 5,
    outside.attach: 12, outside.breakpoint_: 10, outside.drop_cache: 6, outside.prune: 4,
    outside.poison_record: 8, outside.poison_copy: 6, outside.move: 8, outside.fill: 8,
    outside.future: 6, outside.kill_builder: 1, outside.start_python: 2, outside.pressure: 2,
}  # fmt: skip
KINDS = {**CORE, **OTHERS}


def name_of(kind: steps.Step) -> str:
    return kind.__name__.rstrip("_")


class Notes:
    """The last steps, as another process can read them after this one has crashed."""

    def __init__(self, path: str) -> None:
        with open(path, "w+b") as file:
            file.truncate(LINE * NOTES)
            self._memory = mmap.mmap(file.fileno(), LINE * NOTES)

    def add(self, number: int, what: str) -> None:
        at = number % NOTES * LINE
        self._memory[at : at + LINE] = f"{number} {what}".encode().ljust(LINE)


def besiege(
    world: World, notes: Notes, seed: str, least: int, most: int, until: float
) -> dict[str, object]:
    kinds, weights = list(KINDS), list(KINDS.values())
    taken: collections.Counter[str] = collections.Counter()
    left_out: collections.Counter[str] = collections.Counter()
    spent: collections.Counter[str] = collections.Counter()
    world.begin()
    number = most_mappings = covered = 0
    steps.load(world)
    steps.remap_all(world)
    covered += world.judge_statistics() > 0
    choose = random.Random(seed)
    while number < most and (number < least or time.monotonic() < until):
        number += 1
        [kind] = choose.choices(kinds, weights)
        # What a step draws depends on what it finds, which must not change the steps after it.
        world.chance.seed(f"{seed}:{number}")
        name = name_of(kind)
        notes.add(number, name)
        started = time.monotonic()
        try:
            kind(world)
            taken[name] += 1
        except LeftOut as reason:
            left_out[f"{name}: {reason}"] += 1
        except OSError as error:
            # What harms a store that is full itself may find no room.
            if error.errno != errno.ENOSPC or kind.__module__ != "outside":
                raise
            left_out[f"{name}: {error.strerror}"] += 1
        world.judge()
        if number % MAPPINGS == 0:
            most_mappings = max(most_mappings, world.judge_mappings())
        if number % STATISTICS == 0:
            notes.add(number, f"{name}, then statistics")
            covered += world.judge_statistics() > 0
        spent[name] += time.monotonic() - started
    notes.add(number + 1, "end")
    finish(world)
    return {"steps": taken, "left out": left_out, "mappings": most_mappings,
            "mappings after": world.judge_mappings() - world.mappings_before,
            "covered": covered, "seconds": spent}  # fmt: skip


def finish(world: World) -> None:
    """All that was taken is given back; nothing of ours may then be mapped."""
    steps.tick_no_more(world)
    for layout in sorted(world.loaded):
        world.loaded.pop(layout).close()
    while world.probes:
        os.close(world.probes.pop())
    for start, size in world.neighbours:
        world.libc.munmap(steps.ctypes.c_void_p(start), steps.ctypes.c_size_t(size))
    _native.restore()
    world.judge()
    world.judge_statistics()
    left = [region for region in pyhugetext.stats().as_dict()["regions"] if region["swapped_bytes"]]
    modified = [region for region in left if "modified" not in (region["reason"] or "")]
    if modified:
        raise Wrong(f"still swapped after restore(): {modified}")
    outside.judge_files(world)
    if not left and (ours := world.mappings_of_ours()):
        raise Wrong(f"still mapped after restore(): {ours}")


def main() -> None:
    config = json.loads(sys.argv[1])
    warnings.simplefilter("ignore", DeprecationWarning)  # of fork() with threads
    signal.signal(signal.SIGPROF, signal.SIG_IGN)  # one may be on its way when the timer stops
    world = World(
        config["place"], config["pool"], config["backing"], config["layouts"],
        random.Random(config["seed"]), config["rights"], config["broken"],
        factors=dict.fromkeys(config["layouts"], 3),
    )  # fmt: skip
    until = time.monotonic() + (config["seconds"] or 1e9)
    notes = Notes(config["notes"])
    told = besiege(world, notes, config["seed"], config["least"], config["steps"], until)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
