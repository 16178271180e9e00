"""pyarrow: filter, compute, group, join and sort a table."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

TITLE = "pyarrow compute"
NEEDS = ("pyarrow",)


def prepare() -> Callable[[], object]:
    arrow: Any = import_module("pyarrow")
    compute: Any = import_module("pyarrow.compute")
    arrow.set_cpu_count(1)
    rows = 6000
    numbers = [i * 7919 % 10_007 for i in range(rows)]
    table = arrow.table(
        {
            "key": [number % 97 for number in numbers],
            "value": [number / 7 for number in numbers],
            "name": [f"name {number % 501}" for number in numbers],
        }
    )
    names = arrow.table(
        {"name": [f"name {i}" for i in range(501)], "group": [i % 11 for i in range(501)]}
    )

    def report(least: float) -> tuple[int, int, float]:
        wanted = table.filter(compute.greater(table["value"], least))
        upper = compute.utf8_upper(compute.utf8_trim_whitespace(wanted["name"]))
        tagged = wanted.append_column("length", compute.utf8_length(upper))
        tagged = tagged.append_column("root", compute.sqrt(compute.add(tagged["value"], 1.0)))
        joined = tagged.join(names, "name", use_threads=False)
        grouped = joined.group_by("group", use_threads=False).aggregate(
            [("value", "sum"), ("root", "mean"), ("length", "max"), ("key", "count_distinct")]
        )
        order = compute.sort_indices(
            joined, sort_keys=[("key", "ascending"), ("value", "descending")]
        )
        first = joined.take(order.slice(0, 200))
        coded = compute.dictionary_encode(first["name"])
        return grouped.num_rows, len(coded), compute.sum(first["root"]).as_py()

    def iteration() -> object:
        return [report(float(least)) for least in range(100, 1200, 150)]

    return iteration
