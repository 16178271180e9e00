"""Imports modules, then tells something about the process they are in."""

from __future__ import annotations

import importlib
from typing import Any

from pyhugetext.children.channel import answer


def _stored(told: dict[str, Any]) -> None:
    """What is in a store already, with the address of its first page."""
    import pyhugetext
    from pyhugetext import _backing, _native

    pyhugetext.remap()
    store = _backing.NUMBERS["store"]
    regions = _native.snapshot()["regions"]
    told["present"] = [[r["path"], r["low"]] for r in regions if r["backing"] == store]


def _process(told: dict[str, Any]) -> None:
    """Its statistics, and the map of its text."""
    import pyhugetext
    from pyhugetext.process import cells

    told["cells"] = [list(cell) for cell in cells.of(None)]
    told["stats"] = pyhugetext.stats().as_dict()


_TELL = {"stored": _stored, "process": _process}


def _import(request: Any, told: dict[str, Any]) -> None:
    told["module"] = told["missing"] = None
    try:
        for told["module"] in request["modules"]:
            importlib.import_module(told["module"])
    except ModuleNotFoundError as error:
        told["missing"] = error.name
        raise
    told["module"] = None
    _TELL[request["tell"]](told)


if __name__ == "__main__":
    answer(_import)
