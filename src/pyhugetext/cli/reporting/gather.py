"""The process of a report: a running one, or one that is started for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from pyhugetext import _inspect
from pyhugetext._kernel import Kernel
from pyhugetext._stats import Region, Stats
from pyhugetext.cli import recording
from pyhugetext.cli.outcome import Failure
from pyhugetext.cli.reporting.model import Subject
from pyhugetext.measure.endings import ending


class Found(NamedTuple):
    """What a report is made of."""

    subject: Subject
    stats: Stats
    cells: list[_inspect.Cell]


def running(pid: int) -> Found:
    """A process by its id, read from /proc and not touched. Failure where that cannot be."""
    try:
        stats = _inspect.inspect(pid)
        cells = _inspect.cells(pid)
    except _inspect.NotInspectable as error:
        raise Failure(str(error)) from None
    executable = _link(pid)
    name = os.path.basename(executable) or _command(pid)
    return Found(Subject(f"{name}, process {pid}", executable, pid), stats, cells)


def _link(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _command(pid: int) -> str:
    """Its short name; see proc_pid_comm(5). Arguments are left out: some hold secrets."""
    try:
        with open(f"/proc/{pid}/comm", errors="surrogateescape") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "?"


# The current directory is left out of the path, as for an installed script.
_CHILD = """
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
import json, os
result, *modules = sys.argv[1:]
del sys.argv[1:]
told = {"module": None, "error": None, "missing": None}
try:
    import importlib
    for told["module"] in modules:
        importlib.import_module(told["module"])
    told["module"] = None
    import pyhugetext
    from pyhugetext import _inspect
    cells = _inspect.cells(None)
    told["stats"] = pyhugetext.stats().as_dict()
    told["cells"] = [[c.address, c.path, c.text_bytes, c.huge_bytes, c.kind] for c in cells]
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


def started(modules: Sequence[str]) -> Found:
    """A new process of this interpreter that imports these modules and looks at itself. Failure
    where an import fails; what it printed is shown then."""
    if not sys.executable:
        raise Failure("this interpreter does not know its own path (sys.executable is empty)")
    with tempfile.TemporaryDirectory(prefix="pyhugetext-") as directory:
        told = _run(modules, directory)
    stats = told["stats"]
    executable = os.path.realpath(sys.executable)
    name = os.path.basename(executable)
    if modules:
        name += f" with {_listed(modules)} imported"
    return Found(
        Subject(name, executable, None),
        Stats(
            **{
                **stats,
                "regions": tuple(_region(region) for region in stats["regions"]),
                "kernel": Kernel(**stats["kernel"]),
                "problems": tuple(stats["problems"]),
            }
        ),
        [_inspect.Cell(*cell) for cell in told["cells"]],
    )


def _listed(modules: Sequence[str]) -> str:
    if len(modules) == 1:
        return modules[0]
    return f"{', '.join(modules[:-1])} and {modules[-1]}"


def _region(region: dict[str, Any]) -> Region:
    return Region(**{**region, "fallbacks": tuple(region["fallbacks"])})


def _run(modules: Sequence[str], directory: str) -> dict[str, Any]:
    output, result = os.path.join(directory, "output"), os.path.join(directory, "result")
    with open(output, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, result, *modules],
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
    except (OSError, ValueError):
        pass
    if told is None:
        recording.show(output)
        what = f"importing {_listed(modules)}" if modules else "starting the interpreter"
        raise Failure(f"{what} failed: it {ending(process.returncode)}")
    module, missing = told["module"], told["missing"]
    if module and missing and (module == missing or module.startswith(f"{missing}.")):
        raise Failure(f"no module named {missing!r} for {sys.executable}")
    if told["error"]:
        recording.show(output)
        what = f"importing {module}" if module else "looking at the process"
        raise Failure(f"{what} failed: {told['error']}")
    return told
