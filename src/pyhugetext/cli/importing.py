"""Importing modules in a child process, which then tells something about itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyhugetext.cli.outcome import USAGE, Failure
from pyhugetext.measure.endings import ending

_SHOWN = 64 << 10  # bytes of what a failed import printed

# The current directory is left out of the path, as for an installed script.
_CHILD = """
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
import json, os
result, code, *modules = sys.argv[1:]
del sys.argv[1:]
told = {"module": None, "error": None, "missing": None}
try:
    import importlib
    for told["module"] in modules:
        importlib.import_module(told["module"])
    told["module"] = None
    import pyhugetext
    exec(code)
except BaseException as error:
    told["error"] = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        told["missing"] = error.name
try:
    with open(result, "w") as file:
        json.dump(told, file)
except OSError as error:
    print(f"what was found cannot be handed over: {error}", file=sys.stderr)
    os._exit(1)
for stream in (sys.stdout, sys.stderr):
    try:
        stream.flush()
    except Exception:
        pass
os._exit(0)
"""


def check_names(modules: Sequence[str]) -> None:
    """Failure where one of them cannot be a module's name."""
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise Failure(f"{module!r} is no module's name", USAGE)


def told_after_importing(
    modules: Sequence[str], code: str, directory: str, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Imports modules in a child with the interpreter of this process, and runs `code` there, which
    puts what it tells, ready for JSON, into the dict `told`; returns that. `directory` is for what
    the child writes. Failure where an import fails, with what it printed on stderr."""
    if not sys.executable:
        raise Failure("this interpreter does not know its own path (sys.executable is empty)")
    output, result = os.path.join(directory, "output"), os.path.join(directory, "result")
    with open(output, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, result, code, *modules],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
        try:
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    told: dict[str, Any] | None = None
    try:
        with open(result) as text:
            told = json.load(text)
        os.unlink(result)
    except (OSError, ValueError):
        pass
    if told is None:
        _show(output)
        what = f"importing {listed(modules)}" if modules else "starting the interpreter"
        raise Failure(f"{what} failed: it {ending(process.returncode)}")
    module, missing = told["module"], told["missing"]
    if module and missing and (module == missing or module.startswith(f"{missing}.")):
        raise Failure(f"no module named {missing!r} for {sys.executable}")
    if told["error"]:
        _show(output)
        what = f"importing {module}" if module else "looking at the process"
        raise Failure(f"{what} failed: {told['error']}")
    return told


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _show(output: str) -> None:
    """What the child printed, on stderr."""
    if sys.stderr is None:
        return
    with open(output, "rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - _SHOWN, 0))
        shown = file.read().decode("utf-8", "backslashreplace")
    if shown:
        sys.stderr.write(shown if shown.endswith("\n") else shown + "\n")
