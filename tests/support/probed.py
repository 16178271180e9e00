"""A library in whose functions debuggers and the kernel plant breakpoints."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from support.common import HUGE, big_source
from support.layouts import compile_object, link

FUNCTIONS = 600
BACKINGS = ("memfd", "thp")

# What a child does with it; behind layouts.PRELUDE.
LIBRARY = """
library = ctypes.CDLL(path)
f_5 = library.f_5
target = ctypes.cast(f_5, ctypes.c_void_p).value

def call(times=1):
    assert [f_5(i) for i in range(times)] == [3 * i + 5 for i in range(times)]

def all_right():
    return h.results_of(library, 600) == [3 * (i + 7) + i for i in range(600)] + [
        sum(3 * 11 + i for i in range(600))]
"""


def probed_library(directory: Path) -> Path:
    source = (
        "#include <signal.h>\n#include <unistd.h>\n"
        + big_source(FUNCTIONS, padding=10_000)
        + textwrap.dedent("""
            __attribute__((noinline)) int inner(int x) { if (x) raise(x); else pause(); return x; }
            __attribute__((noinline)) int outer(int x) { return inner(x) + 1; }
        """)
    )
    return link(
        directory / "libprobed.so", [compile_object(source, directory / "p.o")], None, "-shared"
    )


def page_of(address: int) -> int:
    return address // HUGE * HUGE


def check_left_small(region: dict[str, Any], *targets: int) -> None:
    pages = sorted({page_of(target) for target in targets})
    # The first page is named where another one of the object was swapped.
    more = f" and {len(pages) - 1} more" if len(pages) > 1 else ""
    where = f"2 MiB at {pages[0]:#x}{more}: " if region["mapped_bytes"] else ""
    assert f"{where}modified in memory" in region["reason"]
    assert 0 < region["coverable_bytes"] - region["mapped_bytes"] <= len(pages) * HUGE
    assert region["huge_bytes"] == region["swapped_bytes"]
