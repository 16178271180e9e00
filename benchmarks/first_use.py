"""What the store costs when it is empty, and when it is warm.

Run it with an interpreter of a virtual environment where pyhugetext and the modules are installed.
Each workload runs in turns with the package off, with a warm store, and with a store that is a new
directory each time; the original files are in the page cache. The difference of the last two is
what building the entries costs, once; nothing of it waits for the disk. `activation` is
stats().elapsed_ns with the warm store: all that the core does in the life of the process. Medians
with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from starts import Cost, Estimate, estimate, start

WORKLOADS = {
    "pass": "pass",
    "torch": "import torch",
    "four": "import torch, numpy, pandas, pyarrow",
}
TOLD = """
import json, os, pyhugetext
stats = pyhugetext.stats()
regions = [r for r in stats.regions if r.swapped_bytes]
told = [stats.elapsed_ns, len(regions), stats.coverable_bytes, stats.mapped_bytes, stats.backing]
open(os.environ["TOLD"], "w").write(json.dumps(told))
"""


@dataclass(frozen=True)
class Row:
    """A workload. Times in milliseconds of wall-clock time, sizes in bytes."""

    name: str
    rounds: int
    off: float
    warm: float
    warm_cost: Estimate  # warm store less package off
    first_cost: Estimate  # new store less warm store
    first_cpu: Estimate  # the same of user and system time, which other load hits less
    built: int  # what the copies take on the disk
    activation: Estimate
    regions: int
    coverage: float  # of the coverable text, mapped with the warm store
    backing: str

    @property
    def rate(self) -> float:
        """Bytes of copies for each second of the first use's cost."""
        return self.built / self.first_cost.median * 1e3 if self.first_cost.median > 0 else 0.0


def size_of(store: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in store.glob("v1/objects/*/*"))


def measure(name: str, code: str, rounds: int, folder: Path, environ: dict[str, str]) -> Row:
    warm, new = folder / "warm", folder / "new"
    off = {**environ, "PYHUGETEXT": "0"}
    with_warm = {**environ, "PYHUGETEXT_STORE": str(warm), "TOLD": str(folder / "told")}
    with_new = {**environ, "PYHUGETEXT_STORE": str(new)}
    for _ in range(2):
        start(code, with_warm)
        start(code, off)
    os.sync()
    costs: list[tuple[Cost, ...]] = []  # off, warm, new
    told = []
    built = 0
    for i in range(rounds):
        # In turns, and in another order each time, so that a drift hits all alike.
        order = random.Random(i).sample((0, 1, 2), 3)
        took = {which: start(code, (off, with_warm, with_new)[which]) for which in order}
        costs.append(tuple(took[which] for which in range(3)))
        built = size_of(new)
        shutil.rmtree(new)
        start(code + TOLD, with_warm)
        told.append(json.loads((folder / "told").read_text()))
    _, regions, coverable, mapped, backing = told[-1]
    return Row(
        name=code,
        rounds=rounds,
        off=statistics.median(c[0].wall for c in costs),
        warm=statistics.median(c[1].wall for c in costs),
        warm_cost=estimate([c[1].wall - c[0].wall for c in costs]),
        first_cost=estimate([c[2].wall - c[1].wall for c in costs]),
        first_cpu=estimate([c[2].cpu - c[1].cpu for c in costs]),
        built=built,
        activation=estimate([t[0] / 1e6 for t in told]),
        regions=regions,
        coverage=mapped / coverable if coverable else 0.0,
        backing=backing,
    )


def table(rows: list[Row]) -> str:
    head = ("workload", "rounds", "off", "warm", "warm - off", "new - warm", "new - warm, CPU")
    more = ("built MiB", "MB/s", "activation", "objects", "coverage", "backing")
    lines: list[tuple[str, ...]] = [(*head, *more)]
    for r in rows:
        costs = (str(r.warm_cost), str(r.first_cost), str(r.first_cpu))
        building = (f"{r.built / (1 << 20):.1f}", f"{r.rate / 1e6:.0f}")
        result = (str(r.activation), str(r.regions), f"{r.coverage:.1%}", r.backing)
        start = (r.name, str(r.rounds), f"{r.off:.1f}", f"{r.warm:.1f}")
        lines.append((*start, *costs, *building, *result))
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows_of_text = ("  ".join(map(str.ljust, line, widths)) for line in lines)
    return "\n".join(text.rstrip() for text in rows_of_text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=11, help="of each; `pass` takes ten times")
    parser.add_argument("--directory", help="where the stores are made (default: as tempfile(3))")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds needs 2 or more")

    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "PYTHON"))}
    # All entries, whatever their size, and nothing of another place.
    environ["PYHUGETEXT_BUILD_TIME"] = "unlimited"
    environ["PYHUGETEXT_BACKING"] = "store"
    rows = []
    with tempfile.TemporaryDirectory(prefix="pyhugetext-first-", dir=options.directory) as folder:
        for name in options.workloads:
            rounds = options.rounds * (10 if name == "pass" else 1)
            print(f"{name}: {rounds} rounds", file=sys.stderr)
            rows.append(measure(name, WORKLOADS[name], rounds, Path(folder), environ))
            shutil.rmtree(Path(folder) / "warm", ignore_errors=True)
    load = os.getloadavg()[0]
    if options.json:
        result = {
            "python": sys.version,
            "kernel": os.uname().release,
            "machine": os.uname().machine,
            "processors": os.cpu_count(),
            "load": load,
            "rows": [{**asdict(row), "rate": row.rate} for row in rows],
        }
        print(json.dumps(result, indent=2))
        return
    print(
        f"Python {sys.version.split()[0]}, Linux {os.uname().release}, load {load:.1f}; "
        "milliseconds, medians with 95 % intervals\n"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
