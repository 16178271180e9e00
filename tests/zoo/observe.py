"""Runs a program in this process, then writes to a file what stats() says: observe.py PROGRAM OUTPUT."""

import json
import runpy
import sys

program, output = sys.argv[1:]
runpy.run_path(program, run_name="__main__")

import pyhugetext  # noqa: E402  after what it is asked about

stats = pyhugetext.stats()
names = (
    "text_bytes",
    "coverable_bytes",
    "mapped_bytes",
    "huge_bytes",
    "small_bytes",
    "private_bytes",
)
row = {name: getattr(stats, name) for name in (*names, "backing", "elapsed_ns")}
row["problems"] = list(stats.problems)
row["reason"] = stats.reason  # why nothing is huge; None where something is
row["uncovered"] = [
    f"{r.path.rpartition('/')[2]}: {r.reason}"
    for r in stats.regions
    if r.coverable_bytes > r.mapped_bytes
]
with open(output, "w") as file:
    json.dump(row, file)
