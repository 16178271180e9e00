"""Stands before the compiler's command, for cmake's CMAKE_CXX_COMPILER_LAUNCHER and .._LINKER_LAUNCHER:
runs it where no build has had the same from the same sources, and copies what came out then otherwise.
The package is installed for the tests and several of them build it, each in a way of its own, from
sources that must be the same. A source that is missing or another one is seen: all of them are part of
what an object is found by."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path


def identity(command: list[str], output: str) -> str:
    """What the output depends on: the options, and the content of all that may be read."""
    sources = [word for word in command if word.endswith(".cpp")]
    root = os.path.abspath(sources[0]).rpartition("/src/native/")[0] if sources else ""
    if (sources and not root) or any("cmTC_" in word for word in command):
        return ""  # cmake's own, by whose output it gets to know the compiler
    told = hashlib.sha256()
    compiler = os.path.realpath(shutil.which(command[0]) or command[0])  # c++ may be g++
    told.update(f"{compiler} {os.stat(compiler).st_mtime_ns}".encode())
    named = False  # what is only where something comes to lie
    # The versions of cmake that build here put the language's option in different places.
    for word in sorted(command[1:], key=lambda word: word.startswith("-std=")):
        if not named and word != "-MD":
            # pip builds with a pybind11 of its own, which is this one if it has the same version.
            version = Path(word, "pybind11/detail/common.h")
            if version.is_file():
                told.update(version.read_bytes())
                word = "PYBIND11"
            told.update((word.replace(root, "ROOT") if root else word).encode() + b"\0")
        named = word in ("-o", "-MT", "-MF")
    read = [Path(word) for word in command if word.endswith((".o", ".a"))] if not sources else []
    for path in (*read, *sorted(Path(root, "src/native").rglob("*") if root else ())):
        if path.is_file():
            told.update(f"{path.name}\0".encode() + path.read_bytes())
    return told.hexdigest() + os.path.splitext(output)[1]


def main() -> int:
    command = sys.argv[1:]
    try:
        output = command[command.index("-o") + 1]
        cached = Path(os.environ["COMPILE_ONCE"], identity(command, output))
    except (ValueError, KeyError):
        return subprocess.call(command)
    if cached.is_dir():
        return subprocess.call(command)
    with open(f"{cached}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.exists():
            status = subprocess.call(command)
            if status == 0:
                shutil.copy(output, f"{cached}.new")
                os.rename(f"{cached}.new", cached)
            return status
    shutil.copy(cached, output)
    if "-MF" in command:  # what a second build of the same directory would look at
        Path(command[command.index("-MF") + 1]).write_text(f"{output}:\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
