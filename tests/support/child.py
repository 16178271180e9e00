"""What the tests run inside child processes: a second, independent reading of /proc, and exercises
on a library. Imported by path in the children, so only the standard library is at hand."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

_HEAD = re.compile(
    r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) \S+ (\d+) *(.*)\n?$",
)
_HUGE = ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Private_Hugetlb", "Shared_Hugetlb")

# start, end, permissions, file offset, inode, path
Line = tuple[int, int, str, int, int, str]


def request(backing: str, path: str) -> dict[str, Any]:
    """What the binding is asked for: one object on one backing."""
    from pyhugetext import _backing, _settings

    return {
        "backing": _backing.NUMBERS[backing],
        "include": _settings.encoded((path,)),
        "exclude": b"",
    }


def maps() -> list[Line]:
    """All mappings, those that continue each other joined: whether the kernel joined them says
    nothing about the layout."""
    out: list[Line] = []
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        for text in file:
            match = _HEAD.match(text)
            assert match, text
            start, end, permissions, offset, inode, path = match.groups()
            line = (int(start, 16), int(end, 16), permissions, int(offset, 16), int(inode), path)
            last = out[-1] if out else None
            if (
                last
                and last[1] == line[0]
                and (last[2], last[4], last[5]) == (line[2], line[4], line[5])
                and (not line[4] or last[3] + last[1] - last[0] == line[3])
            ):
                out[-1] = (last[0], line[1], *last[2:])
            else:
                out.append(line)
    return out


def within(low: int, high: int) -> list[Line]:
    return [line for line in maps() if line[0] < high and line[1] > low]


def span(path: str) -> tuple[int, int]:
    """From the first to the last mapping of a file; its bss may reach further."""
    lines = [line for line in maps() if line[5] == path]
    return lines[0][0], lines[-1][1]


def huge_bytes(start: int, end: int) -> int:
    """What smaps says is in 2 MiB pages, of the mappings that lie inside [start, end)."""
    total, inside = 0, False
    with open("/proc/self/smaps", encoding="utf-8", errors="surrogateescape") as file:
        for text in file:
            match = _HEAD.match(text)
            if match:
                inside = start <= int(match[1], 16) and int(match[2], 16) <= end
            elif inside and text.startswith(_HUGE):
                total += int(text.split()[1]) * 1024
    return total


def region(stats: Any, path: str) -> dict[str, Any]:
    """The one region of a path."""
    found = [r for r in stats.as_dict()["regions"] if r["path"] == path]
    assert len(found) == 1, (path, found)
    return found[0]


def readable(lines: list[Line]) -> Iterator[tuple[int, int]]:
    """What can be read and not written: text, constants, and RELRO."""
    for line in lines:
        if line[2].startswith("r-"):
            yield line[0], line[1]


def fingerprint(lines: list[Line]) -> str:
    """A digest of the bytes that are readable and not writable in `lines`."""
    digest = hashlib.sha256()
    # Through the kernel: where RELRO reaches over padding behind the end of the file, as lld lays
    # it out, reading directly would raise SIGBUS.
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for start, end in readable(lines):
            with contextlib.suppress(OSError):
                digest.update(os.pread(memory.fileno(), end - start, start))
    return digest.hexdigest()


def pointers_of(library: ctypes.CDLL, size: int) -> str:
    """A digest of the relocated table of layouts.sample_source."""
    return hashlib.sha256(bytes((ctypes.c_char * size).in_dll(library, "pointers"))).hexdigest()


def results_of(library: ctypes.CDLL, functions: int) -> list[int]:
    """What every function of common.big_source returns, alone and called from C."""
    library.f_sum.restype = ctypes.c_long
    return [getattr(library, f"f_{i}")(i + 7) for i in range(functions)] + [library.f_sum(11)]


def exercise(path: str, observe: Callable[[], Any], backings: list[str]) -> dict[str, Any]:
    """Remaps and restores what is mapped from `path` with each backing, and records all that can
    be seen from inside. `observe()` returns what must never change."""
    import pyhugetext

    first = observe()  # also binds what is bound lazily
    low, high = span(path)
    before = within(low - (4 << 20), high + (4 << 20))
    inside = within(low, high)
    record: dict[str, Any] = {
        "maps": before,
        "observed": observe() == first,
        "fingerprint": fingerprint(inside),
        "backings": {},
    }
    for backing in backings:
        after = region(pyhugetext.remap(backing=backing, include=path), path)
        step = {
            "region": after,
            "smaps": huge_bytes(after["start"], after["end"]),
            "same results": observe() == first,
            "same bytes": fingerprint(inside) == record["fingerprint"],
            "writable and executable": [line for line in maps() if "wx" in line[2]],
        }
        step["restored"] = region(pyhugetext.restore(), path)
        step["same results restored"] = observe() == first
        step["same bytes restored"] = fingerprint(inside) == record["fingerprint"]
        step["same maps restored"] = within(low, high) == inside
        step["maps restored"] = within(low, high)
        record["backings"][backing] = step
    return record


def report(record: Any) -> None:
    """Hands a record to the test."""
    print(json.dumps(record), flush=True)
