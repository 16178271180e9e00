"""Programs under the preload library: how they are run, and the ones that the tests compile."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.common import TESTS, big_source, clean_environment, tool
from support.installed import installed_files
from support.once import once

SOURCES = TESTS / "native" / "preload"
NAME = "libpyhugetext_preload.so"


def preload_library() -> Path:
    """The library of the installed package."""
    library = installed_files()[0] / NAME
    assert library.exists()
    return library


@dataclass
class Ended:
    """What a program came to, with the reports of it and of its children by process."""

    status: int
    stdout: str
    stderr: str
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def report(self) -> dict[str, Any]:
        """The only one."""
        [one] = self.reports.values()
        return one

    def region(self, name: str) -> dict[str, Any]:
        """The object with that file name, in the only report."""
        [found] = [r for r in self.report["regions"] if os.path.basename(r["path"]) == name]
        return found

    def said(self) -> tuple[int, str, str]:
        return self.status, self.stdout, self.stderr


class Preloaded:
    """Runs programs with the library and without."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = place / "store"
        self.count = 0
        self.library = preload_library()

    def environment(self, **env: str) -> dict[str, str]:
        return clean_environment(**{"PYHUGETEXT_STORE": str(self.store), **env})

    def plain(self, *command: str | Path, **env: str) -> Ended:
        return self._run(command, self.environment(**env), None)

    def __call__(self, *command: str | Path, preload: str = "", **env: str) -> Ended:
        self.count += 1
        place = self.place / f"reports{self.count}"
        place.mkdir()
        place.chmod(0o1777)
        libraries = preload.format(library=self.library) or str(self.library)
        own = {"LD_PRELOAD": libraries, "PYHUGETEXT_REPORT": f"{place}/%p.json"}
        return self._run(command, self.environment(**{**own, **env}), place)

    @staticmethod
    def _run(command: tuple[str | Path, ...], environ: dict[str, str], place: Path | None) -> Ended:
        result = subprocess.run(
            command,
            env=environ,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        ended = Ended(result.returncode, result.stdout, result.stderr)
        for file in sorted(place.iterdir()) if place else ():
            ended.reports[int(file.stem)] = json.loads(file.read_text())
        return ended


def _make(place: Path) -> None:
    compiler = tool("cc", "gcc", "clang")

    def compile_(source: Path, target: str, *flags: str | Path) -> None:
        command = [compiler, "-O1", "-Wall", "-o", place / target, source, *flags]
        subprocess.run(command, check=True, stdout=2)

    (place / "plugins").mkdir()
    shared = ("-shared", "-fPIC", "-ldl")
    for name, tag in (("big", "f"), ("own", "g")):
        (place / f"{name}.c").write_text(big_source(500, tag, padding=10_000))
        compile_(place / f"{name}.c", f"{name}.o", "-c", "-fPIC")
    big, own = place / "big.o", place / "own.o"
    compile_(big, "libbig.so", *shared)
    for name in ("allocator", "constructor", "first", "iterator", "second"):
        compile_(SOURCES / "libraries.c", f"lib{name}.so", *shared, f"-D{name.upper()}")
    compile_(SOURCES / "libraries.c", "libplugin.so", *shared, "-DPLUGIN")
    os.link(place / "libplugin.so", place / "plugins/libplugin.so")
    origin = "-Wl,--enable-new-dtags,-rpath,$ORIGIN"
    compile_(SOURCES / "libraries.c", "libcaller.so", *shared, "-DCALLER", f"{origin}/plugins")
    # The order of these two is what RTLD_NEXT goes by.
    behind = ("-Wl,--no-as-needed", f"-L{place}", "-lfirst", "-lsecond", "-lconstructor", origin)
    compile_(SOURCES / "program.c", "program", "-D_GNU_SOURCE", *behind, "-ldl", "-pthread")

    here = (own, f"-L{place}", "-lbig", "-Wl,-rpath,$ORIGIN")
    compile_(SOURCES / "large.c", "large", *here)
    compile_(SOURCES / "large.c", "large-fixed", "-no-pie", *here)
    # Without a library that is found by where the program lies.
    compile_(SOURCES / "large.c", "large-alone", own, big)
    # As the idea that this goes back to has objects linked again, to be covered whole.
    pages = ("-Wl,-z,common-page-size=2097152", "-Wl,-z,max-page-size=2097152")
    (place / "whole").mkdir()
    compile_(big, "whole/libbig.so", *shared, *pages)
    there = (own, f"-L{place}/whole", "-lbig", "-Wl,-rpath,$ORIGIN")
    compile_(SOURCES / "large.c", "whole/large", *there, *pages)


def programs() -> Path:
    """The directory with program.c and its libraries, compiled once a run."""
    return once("preload-programs", _make)
