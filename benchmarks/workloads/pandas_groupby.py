"""pandas: groupby, merge, and what comes between them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

TITLE = "pandas groupby/merge"
NEEDS = ("pandas", "numpy")


def prepare() -> Callable[[], object]:
    numpy: Any = import_module("numpy")
    pandas: Any = import_module("pandas")
    random = numpy.random.default_rng(1)
    rows = 4000
    sales = pandas.DataFrame(
        {
            "shop": random.integers(0, 200, rows),
            "item": random.choice(["apple", "pear", "plum", "fig"], rows),
            "day": pandas.Timestamp("2026-01-01")
            + pandas.to_timedelta(random.integers(0, 60, rows), unit="D"),
            "price": random.uniform(1, 9, rows),
            "count": random.integers(1, 20, rows),
        }
    )
    shops = pandas.DataFrame(
        {"shop": range(200), "town": random.choice(["Ulm", "Bern", "Graz"], 200)}
    )

    def iteration() -> object:
        table = sales.assign(total=sales["price"] * sales["count"])
        joined = table.merge(shops, on="shop", how="left")
        grouped = joined.groupby(["town", "item"]).agg(
            {"total": ["sum", "mean"], "count": "max", "day": "min"}
        )
        weekly = joined.set_index("day").groupby("town")["total"].resample("7D").sum()
        wide = joined.pivot_table(index="shop", columns="item", values="total", aggfunc="sum")
        best = joined.sort_values(["total", "shop"], ascending=[False, True]).head(50)
        return len(grouped), float(weekly.sum()), float(wide.fillna(0).to_numpy().sum()), len(best)

    return iteration
