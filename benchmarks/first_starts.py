"""What the first starts of a program cost when the store is empty, and what is huge at the last.

Run it with an interpreter of a virtual environment where pyhugetext and the modules are installed.
For each statement, several times: a new store, then START after START with the package, each in turns
with one without it. The table has the ratio of each pair, by start, as a median with a 95 % bootstrap
interval; and of the last start what share of the text pages that a run without the package has in
its page table is on huge pages, the activation (stats().elapsed_ns), private memory, and what the
store takes.

A virtual machine's memory may be its own only from the first touch on, and until it was free for a
while, which costs several milliseconds for 2 MiB that real memory does not. With --backed a process
holds all memory but some, and lets go of as much as programs take.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import select
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
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
# What the holder takes and lets go of at a time, what it leaves free, and besides while a program
# runs.
SLICE, LEFT, AHEAD = 16 * MIB, 400 * MIB, 200 * MIB
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


class Holder:
    """A process that holds all free memory but a little, so that the host has given it. While a
    program runs it lets go of as much as is taken."""

    def __init__(self) -> None:
        to, self._write = os.pipe()
        self._read, out = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            try:
                os.close(self._write)
                os.close(self._read)
                _hold(to, out)
            finally:
                os._exit(0)
        os.close(to)
        os.close(out)

    def _ask(self, what: bytes) -> None:
        os.write(self._write, what)
        os.read(self._read, 1)

    @contextlib.contextmanager
    def letting_go(self) -> Iterator[None]:
        self._ask(b"hold")
        self._ask(b"let")
        try:
            yield
        finally:
            self._ask(b"stop")

    def end(self) -> None:
        os.close(self._write)
        os.waitpid(self._process, 0)
        os.close(self._read)


def _free() -> int:
    """Bytes, of the machine."""
    with open("/proc/meminfo", "rb") as file:
        (line,) = (line for line in file if line.startswith(b"MemFree:"))
    return int(line.split()[1]) << 10


def _hold(commands: int, answers: int) -> None:
    """The holder's side: until its commands end."""
    size = _free() // SLICE * SLICE
    memory = mmap.mmap(-1, size + SLICE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    held = 0  # the first bytes of it
    while command := os.read(commands, 8):
        if command == b"hold":
            while held < size and _free() > LEFT:
                for at in range(held, held + SLICE, 4096):
                    memory[at] = 1
                held += SLICE
            os.write(answers, b".")
            continue
        os.write(answers, b".")
        while not select.select([commands], [], [], 0.001)[0]:
            while held and _free() < LEFT + AHEAD:
                held -= SLICE
                memory.madvise(mmap.MADV_DONTNEED, held, SLICE)
        os.read(commands, 8)
        os.write(answers, b".")


def size_of(store: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in store.glob("v1/objects/*/*"))


def measure(code: str, rounds: int, starts: int, folder: Path, holder: Holder | None) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "PYTHON"))}
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
                with holder.letting_go() if holder else contextlib.nullcontext():
                    pair[which] = start(code, off if which == "off" else on).wall
            ratios[n].append(pair["on"] / pair["off"])
            base.append(pair["off"])
        sizes.append(size_of(folder / "store") / MIB)
        with holder.letting_go() if holder else contextlib.nullcontext():
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
    parser.add_argument("--backed", action="store_true",
                        help="hold memory that is let go of while a program starts")  # fmt: skip
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, Linux {os.uname().release}, "
          f"load {os.getloadavg()[0]:.1f}; medians with 95 % intervals")  # fmt: skip
    holder = Holder() if options.backed else None
    for name in options.workloads:
        with tempfile.TemporaryDirectory(prefix="pyhugetext-", dir=options.directory) as folder:
            measure(WORKLOADS[name], options.rounds, options.starts, Path(folder), holder)
    if holder:
        holder.end()


if __name__ == "__main__":
    main()
