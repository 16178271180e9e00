"""What `make demo` runs: a program with large libraries that knows nothing of huge pages.

Only the last line asks what came of them; what it shows happened without it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def work() -> None:
    """Something of everything: columns, sums, a spectrum, linear algebra."""
    rows = 200_000
    random = np.random.default_rng(2026)
    table = pa.table({"shop": random.integers(0, 50, rows), "paid": random.gamma(2.0, 20.0, rows)})
    sums = table.group_by("shop").aggregate([("paid", "sum")])
    best = sums.sort_by([("paid_sum", "descending")]).slice(0, 1).to_pylist()[0]
    total = pc.sum(table["paid"]).as_py()
    spectrum = np.abs(np.fft.rfft(table["paid"].to_numpy()))
    solution = np.linalg.solve(np.eye(200) + random.random((200, 200)), np.ones(200))
    print(f"numpy {np.__version__}, pyarrow {pa.__version__}: {rows} payments, {len(sums)} shops")
    print(f"shop {best['shop']} took the most, {best['paid_sum']:.2f} of {total:.2f}")
    print(f"mean of the spectrum {spectrum.mean():.2f}, sum of the solution {solution.sum():.4f}")


def show() -> None:
    """What runs from huge pages."""
    import pyhugetext

    print(pyhugetext.stats())


if __name__ == "__main__":
    work()
    show()
