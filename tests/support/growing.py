"""Pieces for the tests of entries that grow: a library with much text, and what a store has of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.common import HUGE
from support.copies import TEXT, lay_out
from support.libraries import make_library
from support.record import Record
from support.store import Store

FAR = 40  # functions, a mebibyte apart
# Too much text for all of it to be built at once. What is between the functions never runs.
SOURCE = "\n".join(
    f'int g{n}(int x) {{ if (x == -1) __asm__ volatile(".skip 1048576, 0x90"); return x * 3 + {n}; }}'
    for n in range(FAR)
)
# Calls the functions that are named, then remaps, tells what it has, and calls the rest.
USE_FAR = """
import ctypes, json, sys
import pyhugetext
library = ctypes.CDLL(sys.argv[1])
def call(names):
    for n in names.split(",") if names else []:
        assert getattr(library, f"g{n}")(7) == 21 + int(n), n
call(sys.argv[2])
stats = pyhugetext.remap()
(region,) = (r for r in stats.regions if r.path == sys.argv[1])
print(json.dumps({**region._asdict(), "private": stats.private_bytes, "problems": stats.problems}))
call(sys.argv[3] if len(sys.argv) > 3 else "")
"""


def make_far(directory: Path, **changed: str) -> Path:
    """A library with much text; `changed` are pieces of its source to replace, by function."""
    source = SOURCE
    for name, other in changed.items():
        number = name.removeprefix("g")
        source = source.replace(f"return x * 3 + {number};", f"return {other};")
    directory.mkdir(exist_ok=True)
    return make_library(directory, more=source)


def use(
    store: Store, library: Path, before: str, after: str = "", **settings: str
) -> dict[str, Any]:
    result = store.run(USE_FAR, str(library), before, after, **settings)
    assert (result.returncode, result.stderr) == (0, "")
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def record_of(store: Store, library: Path) -> tuple[Path, Record]:
    (found,) = (
        (path, record)
        for path in store.records
        for record in [Record.read(path)]
        if record.origin == str(library)
    )
    return found


def bits(bitmap: bytes) -> set[int]:
    number = int.from_bytes(bitmap, "little")
    return {bit for bit in range(8 * len(bitmap)) if number >> bit & 1}


def chunks_of(library: Path, *functions: int) -> set[int]:
    """The 2 MiB of the copy in which functions are."""
    listing = subprocess.run(["nm", library], check=True, capture_output=True, text=True).stdout
    addresses = {
        line.split()[2]: int(line.split()[0], 16)
        for line in listing.splitlines()
        if len(line.split()) == 3
    }
    out = set()
    for function in functions:
        address = addresses[f"g{function}"]
        out |= {
            (offset + address - start) // HUGE
            for start, length, offset in lay_out(library).ranges
            if start <= address < start + length
        }
    assert out
    return out


def texts(library: Path) -> set[int]:
    return {chunk for chunk, use in enumerate(lay_out(library).uses) if use & TEXT}


def filled(copy: Path) -> set[int]:
    """The 2 MiB of the copy of which something is in the file."""
    found, at, size = set(), 0, copy.stat().st_size
    with open(copy, "rb") as file:
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole to the end
                break
            found.add(at // HUGE)
            at = (at // HUGE + 1) * HUGE
    return found


def verify(store: Store) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pyhugetext", "store", "verify"],
        env=store.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
