"""What `pyhugetext image` shows: its document, and the same for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from pyhugetext.cli import text
from pyhugetext.cli.preparing import Object
from pyhugetext.store.places import Store

Kernels = Sequence[
    tuple[tuple[int, int], str, str]
]  # the first, from the newest; name; what it gives

_COUNTED = ("aligned", "already", "fixed", "left", "undone")


def document(
    mode: str,
    store: Store | None,
    verdict: str,
    objects: list[Object],
    failures: Mapping[str, str],
    kernels: Kernels,
    removed: int,
) -> dict[str, Any]:
    """The document of --json, without problems."""
    place = None
    if store is not None:
        place = {"path": store.root, "kind": store.kind, "verdict": verdict}
    total: dict[str, int] = {
        name: sum(one.alignment == name for one in objects) for name in _COUNTED
    }
    total["entries"] = sum(one.entry not in (None, "refused", "missing") for one in objects)
    total["bytes"] = sum(one.size for one in objects)
    total["written"] = sum(one.written for one in objects)
    total["removed"] = removed
    total["private_bytes"] = sum(one.private for one in objects)
    here = _kernel()
    first = next((version for version, *_ in kernels if here >= version), None)
    return {
        "mode": mode,
        "store": place,
        "objects": [_object(one) for one in objects],
        "imports": [{"module": name, "error": error} for name, error in failures.items()],
        "kernels": [
            {"kernel": name, "gets": gets, "here": version == first}
            for version, name, gets in kernels
        ],
        "total": total,
    }


def _kernel() -> tuple[int, int]:
    parts = platform.release().replace("-", ".").split(".")
    numbers = [int(part) for part in parts[:2] if part.isdecimal()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _object(one: Object) -> dict[str, Any]:
    return {
        "path": one.path,
        "alignment": one.alignment,
        "bias": one.bias,
        "reason": one.reason or None,
        "record": one.remark or None,
        "entry": one.entry,
        "entry_reason": one.entry_reason or None,
        "bytes": one.size,
        "written": one.written,
        "backing": one.backing,
        "huge_bytes": one.huge,
        "private_bytes": one.private,
        "used": one.used,
        "use_reason": one.use_reason or None,
    }


def show(told: dict[str, Any]) -> None:
    """Prints the document as tables."""
    checking = told["mode"] == "check"
    rows = [
        (
            one["alignment"],
            one["entry"] or "-",
            one["backing"] or "-",
            text.size(one["huge_bytes"]) if one["backing"] else "-",
            text.size(one["private_bytes"]) if one["backing"] else "-",
            one["path"],
            "; ".join(
                filter(None, map(one.get, ("reason", "record", "entry_reason", "use_reason")))
            ),
        )
        for one in told["objects"]
    ]
    if rows:
        header = ("alignment", "entry", "runs from", "huge", "private", "object", "remark")
        text.print_table(header, rows, "lllrrpp")
    if told["imports"]:
        print("not imported:")
        failures = [(one["module"], one["error"]) for one in told["imports"]]
        text.print_table(("module", "reason"), failures, "lp")
    if told["mode"] != "undo":
        lines = [(one["kernel"], one["gets"], "this one" * one["here"]) for one in told["kernels"]]
        print("what a container gets:")
        text.print_table(("kernel", "machine code from", ""), lines, "lll")
    total = told["total"]
    parts = [f"{total[name]} {name}" for name in _COUNTED if total[name]]
    line = f"total: {', '.join(parts) or 'nothing to do'}"
    if told["mode"] == "prepare":
        entries = text.count(total["entries"], "entry", "entries")
        line += f"; {entries} of {text.size(total['bytes'])}, {text.size(total['written'])} written"
    elif checking:
        line += f"; {text.size(total['private_bytes'])} private in the process that imported"
    else:
        line += f"; entries of {text.count(total['removed'], 'object')} removed"
    print(line)
