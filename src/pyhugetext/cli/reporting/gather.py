"""The process of a report: a running one, or one that is started for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from pyhugetext._stats.kernel import Kernel, text_of
from pyhugetext._stats.model import Region, Stats
from pyhugetext.cli import text
from pyhugetext.cli.importing import told_after_importing
from pyhugetext.cli.outcome import Failure
from pyhugetext.cli.reporting.model import Subject
from pyhugetext.process.cells import Cell
from pyhugetext.process.cells import of as cells_of
from pyhugetext.process.inspect import inspect
from pyhugetext.process.proc import NotInspectable


class Gathered(NamedTuple):
    """What a report is made of."""

    subject: Subject
    stats: Stats
    cells: list[Cell]


def running(pid: int) -> Gathered:
    """A process by its id, read from /proc and not touched. Failure where that cannot be."""
    try:
        stats = inspect(pid)
        cells = cells_of(pid)
    except NotInspectable as error:
        raise Failure(str(error)) from None
    executable = _link(pid)
    # Without one the short name of proc_pid_comm(5). Arguments are left out: some hold secrets.
    name = os.path.basename(executable) or text_of(f"/proc/{pid}/comm") or "?"
    return Gathered(Subject(f"{name}, process {pid}", executable, pid), stats, cells)


def _link(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def started(modules: Sequence[str], *, off: bool = False) -> Gathered:
    """A new process of this interpreter that imports these modules and looks at itself; `off` with
    PYHUGETEXT=0. Failure where an import fails; what it printed is shown then."""
    environ = {**os.environ, "PYHUGETEXT": "0"} if off else None
    told = told_after_importing(modules, "process", environ)
    stats = told["stats"]
    executable = os.path.realpath(sys.executable)
    name = os.path.basename(executable)
    if modules:
        name += f" with {text.listed(modules)} imported"
    return Gathered(
        Subject(name, executable, None),
        Stats(
            **{
                **stats,
                "regions": tuple(_region(region) for region in stats["regions"]),
                "kernel": Kernel(**stats["kernel"]),
                "problems": tuple(stats["problems"]),
            }
        ),
        [Cell(*cell) for cell in told["cells"]],
    )


def _region(region: dict[str, Any]) -> Region:
    return Region(**{**region, "fallbacks": tuple(region["fallbacks"])})
