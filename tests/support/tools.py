"""The program that the tools look at, run by path in a child: `tools.py LIBRARY SECONDS`.

Loads the library, runs its text and the interpreter's in turns (for `stuck` in place of seconds:
never leaves the library), and says what became of both: its first line of output is JSON with
`pid`, `interpreter` and `library`, the latter two regions of stats().
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import time
from typing import Any

# prctl(2); lets a debugger attach that is no ancestor of ours, where Yama forbids that.
PR_SET_PTRACER = 0x59616D61


def allow_debuggers() -> None:
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)


def load(path: str) -> Any:
    sample = ctypes.CDLL(path)
    sample.sample_outer.argtypes = [ctypes.c_ulong]
    sample.sample_outer.restype = ctypes.c_ulong
    return sample.sample_outer


def python_file() -> str:
    """Where the interpreter's text is from."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "/libpython3" in line and "x" in line.split()[1]:
                return line.split(None, 5)[5].strip()
    return os.readlink("/proc/self/exe")


def run_in_interpreter() -> int:
    total = 0
    for i in range(30_000):
        total += i % 7
    return total


def allocate() -> bytearray:
    return bytearray(1 << 20)


def run_in_turns(call: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run_in_interpreter()
        allocate()
        call(200_000)


def main() -> None:
    import pyhugetext

    allow_debuggers()
    call = load(sys.argv[1])
    plain = os.environ.get("PYHUGETEXT") == "0"
    stats = pyhugetext.stats() if plain else pyhugetext.remap()
    regions = stats.as_dict()["regions"]
    texts = [r for r in regions if "python" in os.path.basename(r["path"]) and r["coverable_bytes"]]
    said = {
        "pid": os.getpid(),
        "interpreter": max(texts, key=lambda r: r["text_bytes"], default=None),
        "library": next((r for r in regions if r["path"] == sys.argv[1]), None),
    }
    if plain:
        said["interpreter"] = {"path": python_file()}
    print(json.dumps(said), flush=True)
    if sys.argv[2] == "stuck":
        call(1 << 60)
    run_in_turns(call, float(sys.argv[2]))


if __name__ == "__main__":
    main()
