"""Processes that try what was changed: that it loads and where, and that what is there is imported."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any, NamedTuple

from pyhugetext import _words
from pyhugetext._units import HUGE, PAGE
from pyhugetext.children import place, runner
from pyhugetext.children.endings import ending
from pyhugetext.image.rights import Left

_SECONDS = 120.0  # to load one object
_IMPORTS = 300.0  # to import all
_MOST_CRASHES = 8
_HEADERS = re.compile(rb"^AT_PHDR: +0x([0-9a-f]+)", re.M)  # ld.so(8), LD_SHOW_AUXV


class Imported(NamedTuple):
    """What a process came to that imported modules: the files whose machine code it had then, what
    stats() said, and why modules were not imported."""

    files: tuple[str, ...]
    stats: dict[str, Any] | None
    failures: dict[str, str]


def load(path: str) -> None:
    """Loads a changed library in a process of its own. Left where that fails, or where it comes to
    no multiple of 2 MiB."""
    environ = runner.environment(PYHUGETEXT="0")
    try:
        told = runner.ask("pyhugetext.children.loading", {"path": path}, environ, _SECONDS).told
    except runner.Unanswered as error:
        raise Left(f"a process that loaded it {error}{error.line}") from None
    if told["error"]:
        # The file has another name by then.
        said = told["error"].partition(": ")[2].replace(f"{path}: ", "")
        raise Left(f"it does not load by itself: {said}")
    _check_address(told["low"])


def run(path: str) -> None:
    """The same for a changed interpreter, which runs a few lines."""
    text = _said([path, "-I", "-S", place.__file__], runner.environment(PYHUGETEXT="0")).strip()
    _check_address(int(text) if text.isdigit() else None)


def load_program(path: str) -> None:
    """The same for a changed program that glibc's dynamic linker loads: it is loaded and not run, as
    ldd does it. Its headers are in its first page."""
    environ = runner.environment(
        PYHUGETEXT="0", LD_PRELOAD=None, LD_SHOW_AUXV="1", LD_TRACE_LOADED_OBJECTS="1"
    )
    found = _HEADERS.search(_said([path], environ))
    _check_address(int(found[1], 16) // PAGE * PAGE if found else None)


def _said(command: list[str], environ: dict[str, str]) -> bytes:
    """What a changed program prints. Left where it does not run."""
    try:
        done = subprocess.run(
            command, env=environ, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except OSError as error:
        raise Left(f"it does not run: {_words.reason(error)}") from None
    except subprocess.TimeoutExpired:
        raise Left(f"it did not end within {_SECONDS:.0f} seconds") from None
    if done.returncode:
        raise Left(f"it {ending(done.returncode)}")
    return done.stdout


def _check_address(low: int | None) -> None:
    if low is None:
        raise Left("where it was loaded is not to be seen")
    if low % HUGE:
        raise Left("it was loaded at no multiple of 2 MiB all the same")


def import_all(modules: list[str], environ: dict[str, str], remap: bool) -> Imported:
    """Imports modules in a process of their own, without the one at which such a process ended, and
    calls remap() then if told so. Unanswered where one ends that has not begun to."""
    failures: dict[str, str] = {}
    for _ in range(_MOST_CRASHES):
        left = [module for module in modules if module not in failures]
        last = ""
        child = runner.Child(
            "pyhugetext.children.environment",
            {"modules": left, "remap": remap},
            environ,
            apart=True,
        )
        with child:
            try:
                for told in child.told(_IMPORTS):
                    if "files" in told:
                        return Imported(tuple(told["files"]), told["stats"], failures)
                    if "failed" in told:
                        failures[told["failed"]] = told["error"]
                    else:
                        last = told["importing"]
                raise child.unanswered()
            except runner.Unanswered as error:
                if not last or last in failures:
                    raise
                failures[last] = f"the process {error}{error.line}"
    return Imported((), None, failures)


def environment(*kept: str) -> dict[str, str]:
    """This process's environment without settings of the package but those that are kept."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYHUGETEXT") or name in kept
    }
