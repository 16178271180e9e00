"""Children made by fork(), of a process that runs from a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.extensions import BIG
from support.libraries import USE_LIBRARY, aged_library
from support.store import filled_store

RESIDENT = """
import ctypes, os, re, sys
ctypes.CDLL(sys.argv[1])
import pyhugetext
stats = pyhugetext.remap()
(region,) = [r for r in stats.regions if r.path == sys.argv[1]]
if region.backing != "store":
    sys.exit(f"{region.reason} {region.fallbacks}")

def resident():
    total = 0
    with open("/proc/self/smaps") as file:
        for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", file.read())[1:]:
            start, end = (int(x, 16) for x in part.split(" ", 1)[0].split("-"))
            if region.start <= start and end <= region.end and " r-xp " in part.split("\\n", 1)[0]:
                total += int(re.search(r"Rss: +(\\d+) kB", part)[1])
    return total

sys.path.insert(0, sys.argv[2])
resident()
if os.fork() == 0:
    before = resident()
    import late
    print(before, resident(), flush=True)
    os._exit(0)
os.wait()
"""


def test_import_in_a_child_brings_in_nothing_that_the_child_does_not_use(
    tmp_path: Path, compile_extension: Callable[..., Path]
) -> None:
    """The page table of a child has none of the parent's libraries; a server's workers use few."""
    compile_extension("late", BIG)
    library = aged_library()
    store = filled_store(tmp_path / "store")
    store.start(USE_LIBRARY, str(library))
    done = store.run(RESIDENT, str(library), str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0 0\n"
