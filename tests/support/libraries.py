"""Libraries with much text, in C."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from support.once import compiled, once

# A library of about 6 MiB of text, most of it never executed.
SOURCE = """
#define F(n) int f##n(int x) {{ if (x == -1) __asm__ volatile(".skip 131072, 0x90"); \\
                               return x * {factor} + n; }}
F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15) F(16) F(17)
F(18) F(19) F(20) F(21) F(22) F(23) F(24) F(25) F(26) F(27) F(28) F(29) F(30) F(31) F(32) F(33)
F(34) F(35) F(36) F(37) F(38) F(39) F(40) F(41) F(42) F(43) F(44) F(45) F(46) F(47) F(48) F(49)
long all(int x) {{ return f0(x) + f20(x) + f49(x); }}
"""
# Opens the library at sys.argv[1] and lets it compute. remap(), since no import follows.
USE_LIBRARY = """
import ctypes, sys, pyhugetext
library = ctypes.CDLL(sys.argv[1])
pyhugetext.remap()
factor = int(sys.argv[2]) if len(sys.argv) > 2 else 3
assert getattr(library, "all")(7) == 3 * 7 * factor + 69, "another library's code"
"""


def make_library(
    directory: Path, factor: int = 3, build_id: int | None = 0x1234, more: str = ""
) -> Path:
    """Compiles the library; `factor` changes what it computes and nothing else. `more` is C source
    to put behind."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) on the path")
    known = "none" if build_id is None else f"0x{build_id:08x}"
    flags = ("-O1", "-shared", "-fPIC", "-pthread", f"-Wl,--build-id={known}")
    source = SOURCE.format(factor=factor) + more
    return compiled(directory / "libvictim.so", source, compiler, *flags)


def two_libraries(directory: Path) -> tuple[Path, Path]:
    """Libraries of the same size and build-id that compute different things."""
    made = []
    for factor in (3, 5):
        place = directory / str(factor)
        place.mkdir()
        made.append(make_library(place, factor))
    assert made[0].stat().st_size == made[1].stat().st_size
    return made[0], made[1]


def aged_library() -> Path:
    """The same, to be read by everybody and changed by nobody, older than two seconds: what is younger
    may be changed again within its times."""

    def make(place: Path) -> None:
        make_library(place).chmod(0o755)
        place.chmod(0o755)
        time.sleep(2.5)

    return once("aged", make) / "libvictim.so"
