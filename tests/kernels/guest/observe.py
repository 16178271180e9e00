"""Runs in a guest, in the process that is asked: says in one line what stats() says and what smaps says.

python3.11 observe.py [--remap | --restore] [MODULE]
"""

import ctypes
import hashlib
import json
import re
import sys
import time

started = time.perf_counter()
options = [argument for argument in sys.argv[1:] if argument.startswith("--")]
for module in sys.argv[1:]:
    if not module.startswith("--"):
        __import__(module)
imported = time.perf_counter() - started

import pyhugetext  # noqa: E402  after what it is asked about

MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (...). \S+ \S+ \S+ *(.*)")
HUGE = re.compile(r"(?:FilePmdMapped|ShmemPmdMapped|AnonHugePages|\w+_Hugetlb): +(\d+) kB")


def smaps():
    """Of each mapping of text: start, end, bytes in huge pages, file."""
    found, text = [], False
    with open("/proc/self/smaps", errors="surrogateescape") as file:
        for line in file:
            head = MAPPING.match(line)
            huge = HUGE.match(line)
            if head:
                text = head[3] == "r-x"
                if text:
                    found.append([int(head[1], 16), int(head[2], 16), 0, head[4]])
            elif huge and text:
                found[-1][2] += int(huge[1]) << 10
    return found


def touch(start, end):
    """Uses each page of text there: of a file the kernel maps what is used."""
    for low, high, *_ in smaps():
        for address in range(max(low, start), min(high, end), 4096):
            ctypes.c_char.from_address(address).value  # noqa: B018  reading is the point


def compute():
    """The same everywhere, or the text that computes it is wrong."""
    text = repr(sorted((i * 7919 % 1009, str(i) * (i % 5)) for i in range(500)))
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        matrix = numpy.arange(3600.0).reshape(60, 60) % 17
        text += repr((matrix @ matrix).sum()) + repr(
            numpy.sort(matrix.ravel() * 3 % 11)[::97].tolist()
        )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if "--remap" in options:
    pyhugetext.remap()
if "--restore" in options:
    pyhugetext.restore()
elapsed = pyhugetext.stats().elapsed_ns
for region in pyhugetext.stats().regions:
    if region.mapped_bytes:
        touch(region.start, region.end)
stats, seen = pyhugetext.stats(), smaps()
objects = []
for region in stats.regions:
    if region.coverable_bytes:
        # What there was no time for may lie between what was taken.
        there = [one for one in seen if one[0] < region.end and one[1] > region.start]
        huge = sum(one[2] for one in there)
        objects.append({
            "name": region.path.rpartition("/")[2], "backing": region.backing, "status": region.status,
            "coverable": region.coverable_bytes, "mapped": region.mapped_bytes,
            "swapped": region.swapped_bytes, "says": region.huge_bytes, "smaps": huge,
            "swapped_text": any(one[3] != region.path for one in there),
            "private": region.private_bytes, "reason": region.reason, "why": list(region.fallbacks),
        })  # fmt: skip
print(json.dumps({
    "active": stats.active, "backing": stats.backing, "reason": stats.reason, "objects": objects,
    "private": stats.private_bytes, "ms": elapsed / 1e6, "import_ms": imported * 1e3,
    "problems": list(stats.problems), "result": compute(),
}))  # fmt: skip
