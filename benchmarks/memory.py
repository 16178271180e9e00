"""What a group of processes takes of memory, with text from each backing and without the package.

Run it with an interpreter of a virtual environment where pyhugetext and the module are installed.
For each backing, 1, 8 and 32 processes import the module, run a small piece of work and wait; when
all are there their memory is read from /proc/PID/smaps_rollup, as proc_pid_smaps(5) tells it. PSS
counts a page that several processes share once for all of them together. The disk store is a new
one, filled before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

MIB = 1 << 20
RESERVE = 1024 * MIB  # of memory that is left alone
SHARED = ("store", "shm")
SHM = Path(f"/dev/shm/pyhugetext-{os.geteuid()}")

WORK = {
    "torch": """
import torch
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
step = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    model(torch.randn(32, 64)).square().mean().backward()
    step.step()
""",
    "numpy": """
import numpy
matrix = numpy.random.default_rng(1).random((256, 256))
numpy.linalg.svd(matrix @ matrix)
numpy.sort(matrix.ravel())
""",
}
WAIT = """
import sys
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.read()
"""


@dataclass(frozen=True)
class Cell:
    """A group of processes; sizes in bytes, sums over the group."""

    backing: str
    processes: int
    pss: int = 0
    private_dirty: int = 0
    text: int = 0  # of our mappings: what is in memory, of each file once
    cached: int = 0  # of the store's files: in memory, mapped or not
    against_none: float | None = None  # ratio of PSS
    against_target: float | None = None  # of PSS to that without the package and one copy of text
    skipped: str | None = None


def settings(backing: str, store: str) -> dict[str, str]:
    """The environment of a process on this backing."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "PYTHON"))}
    keep.update(OMP_NUM_THREADS="1", PYHUGETEXT_STORE=store)
    if backing == "none":
        return {**keep, "PYHUGETEXT": "0"}
    return {
        **keep,
        "PYHUGETEXT_BACKING": backing,
        "PYHUGETEXT_BUILD": "always",
        "PYHUGETEXT_BUILD_TIME": "unlimited",
        "PYHUGETEXT_SHM_LIMIT": "unlimited",
        "PYHUGETEXT_PRIVATE_LIMIT": "unlimited",
    }


def available() -> int:
    """MemAvailable of proc_meminfo(5), in bytes."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvail")) * 1024


def rollup(pid: int) -> dict[str, int]:
    """The sums over the mappings of a process, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8", errors="replace") as file:
        next(file)
        fields = (line.split() for line in file)
        return {name.rstrip(":"): int(value) * 1024 for name, value, *_ in fields}


def our_text(pid: int, roots: tuple[str, ...]) -> dict[str, int]:
    """How much of each file that we map is in memory in this process, in bytes. Text in anonymous
    memory is ours too: nobody else has it in a Python that compiles nothing."""
    found: dict[str, int] = {}
    path = None
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            first, _, rest = line.partition(" ")
            if not first.endswith(":"):
                permissions, _, _, inode, *names = rest.rstrip("\n").split(None, 4)
                name = "".join(names)
                anonymous = permissions == "r-xp" and inode == "0" and name != "[vdso]"
                path = name if name.startswith(roots) or anonymous else None
            elif path is not None and first == "Rss:":
                found[path] = found.get(path, 0) + int(rest.split()[0]) * 1024
    return found


def cached(root: Path) -> int:
    """How much of the files below a directory is in memory, in bytes; see fincore(1)."""
    files = [str(path) for path in root.rglob("*") if path.is_file()]
    if not files or not shutil.which("fincore"):
        return 0
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", *files]
    return sum(map(int, subprocess.check_output(command, text=True).split()))


@contextmanager
def group(code: str, environ: dict[str, str], count: int) -> Iterator[list[int]]:
    """So many processes that have done their work; their ids. MemoryError where it gets short."""
    started: list[subprocess.Popen[str]] = []
    try:
        for first in range(0, count, os.cpu_count() or 1):
            batch = [
                subprocess.Popen(
                    [sys.executable, "-c", code + WAIT],
                    env=environ,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for _ in range(min(os.cpu_count() or 1, count - first))
            ]
            started += batch
            for process in batch:
                assert process.stdout
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError(f"a process ended with status {process.wait()}")
            if available() < RESERVE:
                raise MemoryError(f"less than {RESERVE // MIB} MiB left at {len(started)}")
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.communicate()


def measure(backing: str, code: str, count: int, store: Path) -> Cell:
    roots = (str(store), str(SHM), "/memfd:pyhugetext:")
    with group(code, settings(backing, str(store)), count) as pids:
        time.sleep(0.5)
        sums = [rollup(pid) for pid in pids]
        texts = [our_text(pid, roots) for pid in pids]
        if backing != "none" and not all(texts):
            return Cell(backing, count, skipped="a process got no text on this backing")
        names = {name for text in texts for name in text}
        of_each = (
            max if backing in SHARED else sum
        )  # a memfd of one name is another in each process
        return Cell(
            backing,
            count,
            pss=sum(s["Pss"] for s in sums),
            private_dirty=sum(s["Private_Dirty"] for s in sums),
            text=sum(of_each(text.get(name, 0) for text in texts) for name in names),
            cached={"store": cached(store), "shm": cached(SHM)}.get(backing, 0),
        )


def run(backing: str, code: str, counts: list[int], store: Path) -> list[Cell]:
    """The cells of one backing; those that would not fit are told and left out."""
    cells: list[Cell] = []
    one = 0
    for count in counts:
        need = one * count
        if need and available() - need < RESERVE:
            reason = f"{need // MIB} MiB needed, {available() // MIB} MiB available"
            cells.append(Cell(backing, count, skipped=reason))
            continue
        print(f"{backing}: {count} processes", file=sys.stderr)
        try:
            cell = measure(backing, code, count, store)
        except (MemoryError, RuntimeError) as error:
            cell = Cell(backing, count, skipped=str(error))
        cells.append(cell)
        # What is not shared grows with the group; before any is known, that of one process.
        one = max(one, cell.private_dirty // count)
    return cells


def compare(cells: list[Cell]) -> list[Cell]:
    """The cells with their ratios to the cell without the package."""
    base = {cell.processes: cell for cell in cells if cell.backing == "none" and not cell.skipped}
    out = []
    for cell in cells:
        none = base.get(cell.processes)
        if none and not cell.skipped and cell is not none:
            one_copy = cell.text // (1 if cell.backing in SHARED else cell.processes)
            ratios = {
                "against_none": cell.pss / none.pss,
                "against_target": cell.pss / (none.pss + one_copy),
            }
            cell = Cell(**{**asdict(cell), **ratios})
        out.append(cell)
    return out


def table(cells: list[Cell]) -> str:
    head = ("processes", "backing", "PSS MiB", "each", "dirty", "text", "cached")
    lines: list[tuple[str, ...]] = [(*head, "PSS/none", "PSS/(none+copy)")]
    for c in sorted(cells, key=lambda cell: cell.processes):
        start = (str(c.processes), c.backing)
        if c.skipped:
            lines.append((*start, *("-",) * (len(lines[0]) - 2)))
            continue
        sizes = (c.pss, c.pss // c.processes, c.private_dirty, c.text, c.cached)
        ratios = ("-" if r is None else f"{r:.3f}" for r in (c.against_none, c.against_target))
        lines.append((*start, *(f"{size / MIB:,.1f}" for size in sizes), *ratios))
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = (
        "  ".join(v.ljust(w) if i == 1 else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths)))
        for row in lines
    )
    skipped = [
        f"not measured: {c.backing}, {c.processes} processes: {c.skipped}"
        for c in cells
        if c.skipped
    ]
    return "\n".join([*rows, *skipped])


@contextmanager
def clean_shm() -> Iterator[None]:
    """Removes what is in the store in shared memory afterwards and was not before."""
    before = set(SHM.rglob("*"))
    try:
        yield
    finally:
        for path in sorted(set(SHM.rglob("*")) - before, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if SHM not in (*before, *(p.parent for p in before)) and SHM.is_dir():
            SHM.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--module", default="torch", help="what each process imports")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--backings", nargs="+", default=["store", "shm", "memfd", "thp"])
    parser.add_argument("--directory", help="where the store is made (default: as tempfile(3))")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if min(options.processes) < 1:
        parser.error("--processes needs numbers of 1 and more")
    code = WORK.get(options.module, f"import {options.module}\n")

    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="pyhugetext-memory-", dir=options.directory) as folder:
        store = Path(folder)
        with clean_shm():
            for backing in ("none", *options.backings):
                with group(code, settings(backing, folder), 1):
                    pass  # fills the store, and the page cache
                os.sync()  # pages not yet on disk count as dirty
                cells += run(backing, code, sorted(options.processes), store)
    cells = compare(cells)
    if options.json:
        result = {
            "python": sys.version,
            "kernel": os.uname().release,
            "machine": os.uname().machine,
            "module": options.module,
            "cells": [asdict(cell) for cell in cells],
        }
        print(json.dumps(result, indent=2))
        return
    print(
        f"import {options.module} and some work, Python {sys.version.split()[0]}, Linux "
        f"{os.uname().release}; sums over the processes in MiB.\n"
        "text: our mappings in memory, shared files once; cached: the store's files in memory.\n"
    )
    print(table(cells))


if __name__ == "__main__":
    main()
