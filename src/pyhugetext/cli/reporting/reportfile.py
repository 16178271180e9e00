"""Reading what `pyhugetext report --json` printed, as the report that it was about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pyhugetext._stats.kernel import Kernel
from pyhugetext._stats.model import Region, Stats
from pyhugetext.cli.outcome import Failure
from pyhugetext.cli.reporting import model
from pyhugetext.process.cells import Cell

FORMAT = "pyhugetext-report-1"

_LARGEST = 64 << 20  # bytes
_MOST_SQUARES = 1 << 17  # of 2 MiB; more text than any process has
_HUGE = 2 << 20

# A value of the kind that each field has; None is a text that may be missing.
_REGION = Region("", "", 0, 0, 0)


def read(path: str) -> model.Report:
    """The report in a file. Failure where it is none; OSError where it cannot be read."""
    with open(path, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise Failure(f"{path}: larger than any output of pyhugetext report")
    try:
        return _report(json.loads(content))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise Failure(f"{path}: not the JSON of pyhugetext report: {said}") from None


def _report(document: Any) -> model.Report:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    process, stats = document["process"], document["stats"]
    subject = model.Subject(
        _as("", process["name"]),
        _as("", process["executable"]),
        None if process["pid"] is None else _as(0, process["pid"]),
    )
    return model.build(
        subject,
        _stats(stats),
        _cells(document),
        (),
        _as("", document["version"]),
        _as("", document["taken"]),
    )


def _as(like: Any, value: Any) -> Any:
    """The value, if it is of that kind. TypeError where it is not."""
    if isinstance(like, tuple) and isinstance(value, list):
        return tuple(_as("", one) for one in value)
    if like is None and (value is None or isinstance(value, str)):
        return value
    if type(value) is not type(like) or (isinstance(value, int) and not 0 <= value < 1 << 63):
        raise TypeError(f"{value!r} stands where {type(like).__name__} belongs")
    return value


def _stats(raw: Mapping[str, Any]) -> Stats:
    kernel = raw["kernel"]
    for value in kernel.values():
        if value is not None:
            _as("" if isinstance(value, str) else 0, value)
    numbers = ("hugetlb_total", "hugetlb_free", "max_map_count", "huge_page_bytes")
    for name in numbers:
        if isinstance(kernel[name], str):
            raise TypeError(f"{kernel[name]!r} is no number")
    return Stats(
        active=_as(False, raw["active"]),
        reason=_as(None, raw["reason"]),
        backing=_as("", raw["backing"]),
        regions=tuple(
            Region(**{name: _as(getattr(_REGION, name), one[name]) for name in Region._fields})
            for one in raw["regions"]
        ),
        text_bytes=_as(0, raw["text_bytes"]),
        coverable_bytes=_as(0, raw["coverable_bytes"]),
        mapped_bytes=_as(0, raw["mapped_bytes"]),
        huge_bytes=_as(0, raw["huge_bytes"]),
        small_bytes=_as(0, raw["small_bytes"]),
        private_bytes=_as(0, raw["private_bytes"]),
        elapsed_ns=_as(0, raw["elapsed_ns"]),
        kernel=Kernel(**kernel),
        problems=_as((), raw["problems"]),
    )


def _cells(document: Mapping[str, Any]) -> list[Cell]:
    """The squares of the map; of an object those that are drawn alike lie together."""
    out: list[Cell] = []
    groups = [(_as("", one["path"]), one["cells"]) for one in document["map"]]
    for path, cells in (*groups, ("", document["small"]["cells"])):
        for state in model.STATES:
            number = _as(0, cells[state])
            if len(out) + number > _MOST_SQUARES:
                raise ValueError("its map has too many squares")
            kind = model.HUGE if state == model.WAITING else state
            huge = _HUGE if state == model.HUGE else 0
            out += [Cell(len(out) * _HUGE, path, 0, huge, kind)] * number
    return [cell._replace(address=at * _HUGE) for at, cell in enumerate(out)]
