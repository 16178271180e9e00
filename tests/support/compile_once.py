"""Stands before the compiler's command, for cmake's CMAKE_CXX_COMPILER_LAUNCHER and .._LINKER_LAUNCHER:
runs it where no build has had the same from the same sources, and copies what came out then otherwise.
The package is installed for the tests and several of them build it, each in a way of its own, from
sources that must be the same. A source that is missing or another one is seen: all of them are part of
what an object is found by."""

# Before each command of a build: nothing is imported that takes longer than it helps.
from __future__ import annotations

import fcntl
import hashlib
import os
import sys


def found(command: str) -> str:
    """The path of the program that a command's first word is."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep) if "/" not in command else [""]
    paths = (os.path.join(place, command) for place in places)
    return next((path for path in paths if os.access(path, os.X_OK)), command)


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def below(directory: str) -> list[str]:
    """All files there, in an order that depends on their names only."""
    return sorted(
        os.path.join(place, name) for place, _, names in os.walk(directory) for name in names
    )


def identity(command: list[str], output: str) -> str:
    """What the output depends on: the options, and the content of all that may be read."""
    sources = [word for word in command if word.endswith(".cpp")]
    root = os.path.abspath(sources[0]).rpartition("/src/native/")[0] if sources else ""
    if (sources and not root) or any("cmTC_" in word for word in command):
        return ""  # cmake's own, by whose output it gets to know the compiler
    told = hashlib.sha256()
    compiler = os.path.realpath(found(command[0]))  # c++ may be g++
    told.update(f"{compiler} {os.stat(compiler).st_mtime_ns}".encode())
    named = False  # what is only where something comes to lie
    # The versions of cmake that build here put the language's option in different places.
    for word in sorted(command[1:], key=lambda word: word.startswith("-std=")):
        # Each interpreter has a directory of its own to build in, whose name comes into no object.
        if not named and word != "-MD" and not word.startswith("-ffile-prefix-map="):
            # pip builds with a pybind11 of its own, which is this one if it has the same version.
            version = f"{word}/pybind11/detail/common.h"
            if os.path.isfile(version):
                told.update(content(version))
                word = "PYBIND11"
            told.update((word.replace(root, "ROOT") if root else word).encode() + b"\0")
        named = word in ("-o", "-MT", "-MF")
    read = [word for word in command if word.endswith((".o", ".a"))] if not sources else []
    for path in (*read, *(below(f"{root}/src/native") if root else ())):
        if os.path.isfile(path):
            told.update(f"{os.path.basename(path)}\0".encode() + content(path))
    return told.hexdigest() + os.path.splitext(output)[1]


def run(command: list[str]) -> int:
    return os.waitstatus_to_exitcode(
        os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)[1]
    )


def copy(source: str, target: str) -> None:
    with open(target, "wb") as file:
        file.write(content(source))
        os.fchmod(file.fileno(), os.stat(source).st_mode & 0o777)


def main() -> int:
    command = sys.argv[1:]
    try:
        output = command[command.index("-o") + 1]
        name = identity(command, output)
        cached = os.path.join(os.environ["COMPILE_ONCE"], name)
    except (ValueError, KeyError):
        name = ""
    if not name:
        os.execvp(command[0], command)
    with open(f"{cached}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(cached):
            status = run(command)
            if status == 0:
                copy(output, f"{cached}.new")
                os.rename(f"{cached}.new", cached)
            return status
    copy(cached, output)
    if "-MF" in command:  # what a second build of the same directory would look at
        with open(command[command.index("-MF") + 1], "w") as file:
            file.write(f"{output}:\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
