"""Importing modules in a child process, which then tells something about itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyhugetext.children import runner
from pyhugetext.cli import text
from pyhugetext.cli.outcome import USAGE, Failure


def check_names(modules: Sequence[str]) -> None:
    """Failure where one of them cannot be a module's name."""
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise Failure(f"{module!r} is no module's name", USAGE)


def told_after_importing(
    modules: Sequence[str], tell: str, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Imports modules in a child with the interpreter of this process, and returns what it tells
    then (see children/importing.py). The current directory is left out of the path, as for an
    installed script. Failure where an import fails, with what it printed on stderr."""
    request = {"modules": list(modules), "tell": tell}
    try:
        told, printed = runner.ask("pyhugetext.children.importing", request, environ)
    except runner.Unanswered as error:
        _show(error.printed)
        what = f"importing {text.listed(modules)}" if modules else "starting the interpreter"
        raise Failure(f"{what} failed: it {error}") from None
    module, missing = told["module"], told["missing"]
    if module and missing and (module == missing or module.startswith(f"{missing}.")):
        raise Failure(f"no module named {missing!r} for {sys.executable}")
    if told["error"]:
        _show(printed)
        what = f"importing {module}" if module else "looking at the process"
        raise Failure(f"{what} failed: {told['error']}")
    return told


def _show(printed: bytes) -> None:
    """What the child printed, on stderr."""
    shown = printed.decode("utf-8", "backslashreplace")
    if shown:
        text.complain(shown if shown.endswith("\n") else shown + "\n")
