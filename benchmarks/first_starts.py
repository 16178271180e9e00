"""What the first starts of a program cost when the store is empty, and what is huge at the last.

Run it with an interpreter of a virtual environment where pyhugetext and the modules are installed.
For each statement, several times: a new store, then START after START with the package, each in turns
with one without it. The table has the ratio of each pair, by start, as a median with a 95 % bootstrap
interval; and of the last start what share of the text pages that a run without the package has in
its page table is on huge pages, the activation (stats().elapsed_ns), private memory, and what the
store takes.

A virtual machine's memory may be its own only from the first touch on, and until it was free for a
while: 2 MiB then cost several milliseconds that they do not cost elsewhere, and less is built in the
time there is. PYHUGETEXT_BUILD_TIME is handed on, to see what more time would give.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import struct
import sys
import tempfile
from pathlib import Path

from starts import Estimate, estimate, start

WORKLOADS = {
    "pass": "pass",
    "numpy": "import numpy",
    "torch": "import torch",
    "polars": "import polars",
    "cv2": "import cv2",
    "vtk": "import vtk",
    "tensorflow": "import tensorflow",
}
MIB = 1 << 20
# The text pages in the page table, by file and offset in it.
USED = """
import json, os, struct
used = {}
with open("/proc/self/maps") as maps, open("/proc/self/pagemap", "rb") as pagemap:
    for line in maps:
        span, flags, offset, _, inode, *path = line.split(None, 5)
        if flags[2] != "x" or inode == "0":
            continue
        start, end = (int(part, 16) for part in span.split("-"))
        pagemap.seek(start // 4096 * 8)
        entries = struct.unpack(f"={(end - start) // 4096}Q", pagemap.read((end - start) // 512))
        pages = [int(offset, 16) // 4096 + i for i, entry in enumerate(entries) if entry >> 63]
        used.setdefault(path[0].strip(), []).extend(pages)
json.dump(used, open(os.environ["TOLD"], "w"))
"""
TOLD = """
import json, os, pyhugetext
from pyhugetext import _native
stats = pyhugetext.stats()
runs = {r["path"]: (r["low"], [(a, b) for a, b, huge, _ in r["pages"] if huge])
        for r in _native.snapshot()["regions"]}
told = {"elapsed": stats.elapsed_ns, "private": stats.private_bytes, "runs": runs}
json.dump(told, open(os.environ["TOLD"], "w"))
"""


def offsets_of(path: str) -> list[tuple[int, int, int]]:
    """Of the segments of a file: virtual address, offset, bytes."""
    with open(path, "rb") as file:
        head = file.read(64)
        at, size, count = (
            struct.unpack_from("<Q", head, 32)[0],
            *struct.unpack_from("<HH", head, 54),
        )
        file.seek(at)
        table = file.read(size * count)
    out = []
    for i in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", table, i * size)
        if kind == 1:
            out.append((address, offset, length))
    return out


def share(used: dict[str, list[int]], runs: dict[str, tuple[int, list[tuple[int, int]]]]) -> float:
    """Of the pages that were used without the package, those on huge pages with it."""
    total = huge = 0
    for path, pages in used.items():
        total += len(pages)
        low, spans = runs.get(path, (0, []))
        if not spans:
            continue
        segments = offsets_of(path)
        program = segments[0][0] > 0 and low == segments[0][0] & -4096
        bias = 0 if program else low - (segments[0][0] & -4096)
        for page in pages:
            offset = page * 4096
            for address, begin, length in segments:
                if begin & -4096 <= offset < begin + length:
                    at = bias + address + offset - begin
                    huge += any(a <= at < b for a, b in spans)
                    break
    return huge / total if total else 0.0


def size_of(store: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in store.glob("v1/objects/*/*"))


def measure(code: str, rounds: int, starts: int, folder: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "PYTHON"))}
    if (time := os.environ.get("PYHUGETEXT_BUILD_TIME")) is not None:
        environ["PYHUGETEXT_BUILD_TIME"] = time
    told = folder / "told"
    off = {**environ, "PYHUGETEXT": "0", "TOLD": str(told)}
    on = {**environ, "PYHUGETEXT_STORE": str(folder / "store"), "TOLD": str(told)}
    on["PYHUGETEXT_EXCLUDE"] = "/nonexistent"  # as many variables as without
    for _ in range(2):
        start(code, off)
    start(code + USED, off)
    used = json.loads(told.read_text())
    ratios: list[list[float]] = [[] for _ in range(starts)]
    base: list[float] = []
    shares, elapsed, sizes, private = [], [], [], []
    for i in range(rounds):
        shutil.rmtree(folder / "store", ignore_errors=True)
        for n in range(starts):
            pair = {}
            for which in random.Random(i * starts + n).sample(("off", "on"), 2):
                pair[which] = start(code, off if which == "off" else on).wall
            ratios[n].append(pair["on"] / pair["off"])
            base.append(pair["off"])
        sizes.append(size_of(folder / "store") / MIB)
        start(code + TOLD, on)
        last = json.loads(told.read_text())
        shares.append(share(used, last["runs"]))
        elapsed.append(last["elapsed"] / 1e6)
        private.append(last["private"] / MIB)
    print(f"\n{code}: {estimate(base)} ms without, {rounds} rounds")
    for n, values in enumerate(ratios):
        print(f"  start {n + 1}: {estimate(values)} of that")
    one = estimate(shares)
    print(f"  then: {Estimate(one.median * 100, one.low * 100, one.high * 100)} % of the used text "
          f"pages huge, activation {estimate(elapsed)} ms, private {max(private):.0f} MiB, "
          f"store {max(sizes):.0f} MiB", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--starts", type=int, default=5, help="of each round")
    parser.add_argument("--directory", help="where the stores are made (default: as tempfile(3))")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, Linux {os.uname().release}, "
          f"load {os.getloadavg()[0]:.1f}; medians with 95 % intervals")  # fmt: skip
    for name in options.workloads:
        with tempfile.TemporaryDirectory(prefix="pyhugetext-", dir=options.directory) as folder:
            measure(WORKLOADS[name], options.rounds, options.starts, Path(folder))


if __name__ == "__main__":
    main()
