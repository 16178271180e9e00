"""Whether what was huge in the store stays so.

Run it with an interpreter of a virtual environment where pyhugetext and the modules are installed,
on a machine that nobody else needs: it reads a file of the memory's size, a small page at a time, so
that the page cache takes all memory and leaves it in small pieces. (The file is a hole, and takes no
disk.) Of the 2 MiB pages of text in use, by the page table: mapped from the store by one entry each;
mapped from the store in small pages; left on small pages of the original.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

CHILD = """
import os, sys, time
sys.path += [path for path in sys.argv[2].split(":") if path]
began = time.perf_counter()
for name in sys.argv[1].split(","):
    __import__(name)
took = time.perf_counter() - began
import pyhugetext
from pyhugetext import _native

def tell():
    huge = small = left = 0
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    for region in _native.snapshot()["regions"]:
        for start, end, swapped, _ in region["pages"]:
            entry = _native.find_entries(fd, start, 1)[0]
            huge += swapped and entry == 1
            small += swapped and entry == 2
            left += (not swapped) and entry == 2
    os.close(fd)
    elapsed = pyhugetext.stats().elapsed_ns / 1e6
    print(huge, small, left, f"{took * 1e3:.0f} {elapsed:.1f}", flush=True)

tell()
for line in sys.stdin:
    if line == "remap\\n":
        pyhugetext.remap()
    tell()
"""


class Row(NamedTuple):
    huge: int
    small: int
    left: int
    import_ms: str
    elapsed_ms: str

    @property
    def share(self) -> float:
        return 100 * self.huge / max(self.huge + self.small + self.left, 1)


class Child:
    """A process that imports, tells, and waits."""

    def __init__(self, store: Path, options: argparse.Namespace) -> None:
        environ = {**os.environ, "PYHUGETEXT_STORE": str(store), "PYHUGETEXT_BACKING": "store"}
        environ["PYHUGETEXT_STORE_LIMIT"] = "16G"
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, options.modules, options.site],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.row = self._read()

    def _read(self) -> Row:
        assert self._process.stdout is not None
        huge, small, left, took, elapsed = self._process.stdout.readline().split()
        return Row(int(huge), int(small), int(left), took, elapsed)

    def remap(self) -> Row:
        assert self._process.stdin is not None
        self._process.stdin.write("remap\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> Row:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
        return self.row


def evict(store: Path) -> None:
    for copy in (store / "v1/objects").glob("*/*"):
        with open(copy, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fill_memory(directory: Path, size: int) -> None:
    """Reads a file of so many bytes, and keeps it in the page cache."""
    with open(directory / "ballast", "w+b", buffering=0) as file:
        file.truncate(size)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(0, size, 4096):
            os.pread(file.fileno(), 1, at)


def show(what: str, row: Row) -> None:
    print(
        f"| {what:<52} | {row.huge:>5} | {row.small:>5} | {row.left:>8} | {row.share:>6.1f} % "
        f"| {row.import_ms:>6} | {row.elapsed_ms:>10} |",
        flush=True,
    )


def measure(options: argparse.Namespace, place: Path) -> None:
    store = place / "store"
    # All of it is there from the beginning: what is left on the original is so for small pages alone.
    os.environ["PYHUGETEXT_BUILD_TIME"] = "unlimited"
    for _ in range(4):
        warm = Child(store, options).end()
    subprocess.run(["sync", "-f", str(store)], check=True)
    print(
        f"| {'2 MiB pages of text in use':<52} |  huge | small | original |    huge "
        "| import | activation |\n"
        f"|{'-' * 54}|------:|------:|---------:|--------:|-------:|-----------:|"
    )
    show("warm store", warm)

    evict(store)
    fill_memory(place, options.memory << 20)
    first = Child(store, options)
    show("memory filled, copies evicted: first process", first.row)
    second = Child(store, options)
    show("second process, the first running", second.row)
    show("the first after remap()", first.remap())
    show("the second after remap()", second.remap())
    show("third process, both running", Child(store, options).end())
    first.end()
    second.end()
    show("fourth process, alone", Child(store, options).end())
    (place / "ballast").unlink()

    fresh = place / "fresh"
    subprocess.run(["cp", "-a", str(store), str(fresh)], check=True)
    first = Child(fresh, options)
    show("store copied (cp -a, dirty): first process", first.row)
    show("second process, the first running", Child(fresh, options).end())
    show("third process, the first running", Child(fresh, options).end())
    show("the first after remap()", first.remap())
    first.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    parser.add_argument("--modules", default="duckdb,polars", help="what a process imports")
    parser.add_argument("--site", default="", help="directories to import from, behind the others")
    parser.add_argument("--memory", type=int, default=memory, help="MiB to fill")
    parser.add_argument("--directory", help="where the store is made; a disk")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="huge-for-good-", dir=options.directory))
    try:
        measure(options, place)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
