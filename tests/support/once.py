"""What a run of the tests makes once, whichever of its processes needs it first: installs, compiled
libraries. Tests that change one of these work on a copy."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from support.common import SHARED, TESTS, tool


def once(name: str, make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills. What is in it must not depend on the directory's own name."""
    place = SHARED / name
    with open(SHARED / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            unfinished = SHARED / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(place)
    return place


def compiled(target: Path, source: str, *command: str, libraries: Sequence[str] = ()) -> Path:
    """`command -o TARGET SOURCE libraries`, or a copy of what came out when another test asked for
    the same."""
    words = "\0".join([*command, target.name, source, *libraries])
    key = hashlib.sha256(words.encode()).hexdigest()[:16]

    def make(place: Path) -> None:
        file = place / f"{target.name}.c"
        file.write_text(source)
        subprocess.run([*command, "-o", place / target.name, file, *libraries], check=True)
        file.unlink()

    shutil.copy(once(f"compiled-{key}", make) / target.name, target)
    return target


def library_compiler(directory: Path) -> Callable[..., Path]:
    """What compiles C to shared libraries in a directory: `compile_(source, *flags, name=...)`."""
    compiler = tool("cc", "gcc", "clang")

    def compile_(source: str, *flags: str, name: str = "libsample.so") -> Path:
        command = (compiler, "-O1", "-shared", "-fPIC")
        return compiled(directory / name, source, *command, libraries=flags)

    return compile_


def builds_share_objects() -> dict[str, str]:
    """For the environment of cmake: objects that another build of the same sources made are taken as
    they are, also those of the installs by the Makefile. See compile_once.py."""
    launcher = f"{sys.executable};-IS;{TESTS / 'support/compile_once.py'}"
    place = Path(sys.prefix).parent / "objects"
    if not os.access(place, os.W_OK):
        place = SHARED / "objects"
        place.mkdir(exist_ok=True)
    kinds = ("CXX_COMPILER", "CXX_LINKER")
    return {"COMPILE_ONCE": str(place), **{f"CMAKE_{kind}_LAUNCHER": launcher for kind in kinds}}
