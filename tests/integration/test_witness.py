"""A library whose text comes from the store stays an executable mapping, of one page, by which
needrestart(1) and its like see that a process runs a file that was replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.common import HUGE, Run
from support.layouts import PRELUDE, last_record

pytestmark = pytest.mark.quick

# Read-only data behind the text, so that all text is in 2 MiB pages that can be covered.
SOURCE = f"""
__asm__(".text; .skip {HUGE + HUGE // 2}, 0x90");
int answer(void) {{ return 42; }}
const char constants[{5 * HUGE // 2}] = {{1}};
"""

CODE = """
import os, pyhugetext, shutil
library = ctypes.CDLL(path)

def executable():
    # As needrestart reads them: deleted, or of another inode than the name has now.
    return [line for line in map(str.split, open("/proc/self/maps"))
            if "x" in line[1] and len(line) > 5 and line[5] == path]

before = h.region(pyhugetext.remap(backing="store", include=path), path)
low = h.span(path)[0]
fresh = path + ".new"
shutil.copy(path, fresh)
os.replace(fresh, path)
witness = executable()
right = library.answer() == 42
h.report([before, [line[6:] for line in witness], [int(w[0].split("-")[0], 16) for w in witness],
          low, right])
"""


@pytest.fixture
def covered(compile_library: Callable[..., Path]) -> Path:
    return compile_library(SOURCE)


def run(python: Run, library: Path, tmp_path: Path) -> Any:
    env = {"PYHUGETEXT": "0", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return last_record(python(PRELUDE + CODE, str(library), env=env))


def test_replaced_library_is_seen_as_one(python: Run, covered: Path, tmp_path: Path) -> None:
    region, marks, addresses, low, right = run(python, covered, tmp_path)
    if region["backing"] != "store":
        pytest.skip(f"no text from the store here: {region['reason']}")
    assert region["mapped_bytes"] == region["text_bytes"] > HUGE
    assert right
    assert marks == [["(deleted)"]]
    assert addresses[0] > low  # tools take the first mapping for the library's beginning


def test_restore_takes_it_away(python: Run, covered: Path, tmp_path: Path) -> None:
    code = CODE[: CODE.index("low =")] + (
        "for _ in range(3):\n"
        "    pyhugetext.restore()\n"
        "    alone = executable()\n"
        "    again = h.region(pyhugetext.remap(backing='store', include=path), path)\n"
        "h.report([before, len(alone), len(executable()), again['mapped_bytes']])\n"
    )
    env = {"PYHUGETEXT": "0", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    region, alone, both, mapped = last_record(python(PRELUDE + code, str(covered), env=env))
    if region["backing"] != "store":
        pytest.skip(f"no text from the store here: {region['reason']}")
    assert (alone, both, mapped) == (1, 1, region["mapped_bytes"])
