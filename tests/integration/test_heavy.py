"""The libraries people run: torch, numpy, pandas and pyarrow in one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import Cli
from support.common import Run

pytestmark = pytest.mark.heavy

WORK = """
import json, re
import numpy, pandas, pyarrow, torch
import pyarrow.compute
import pyhugetext

def work():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    frame = pandas.DataFrame({"key": numpy.arange(999) % 7, "value": numpy.arange(999.0)})
    return [
        float(model(torch.ones(8, 64)).sum()),
        float(numpy.linalg.inv(numpy.eye(50) * 2).sum()),
        frame.groupby("key").sum()["value"].tolist(),
        pyarrow.compute.sum(pyarrow.array(range(1000))).as_py(),
    ]

before = work()
stats = pyhugetext.remap()
now = open("/proc/self/smaps").read()
huge = swapped = 0
for region in stats.regions:
    if not region.swapped_bytes:
        continue
    for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", now)[1:]:
        start, end = (int(x, 16) for x in part.split(" ", 1)[0].split("-"))
        if region.start <= start and end <= region.end and " r-xp " in part.split("\\n", 1)[0]:
            swapped += end - start
            huge += 1024 * sum(
                int(size) for size in re.findall(
                    r"(?:AnonHugePages|ShmemPmdMapped|FilePmdMapped):\\s+(\\d+) kB", part)
            )
after = work()
restored = pyhugetext.restore()
print(json.dumps({
    "stats": stats.as_dict(), "huge": huge, "swapped": swapped,
    "same": before == after == work(), "left": restored.mapped_bytes,
}))
"""


@pytest.mark.parametrize("backing", ["store", "memfd", "thp"])
def test_torch_and_its_company_run_from_huge_pages(
    python: Run, tmp_path_factory: pytest.TempPathFactory, backing: str
) -> None:
    # One store for all that this file runs: torch's copy is large.
    store = tmp_path_factory.getbasetemp() / "heavy-store"
    env = {
        "PYHUGETEXT_BACKING": backing,
        "PYHUGETEXT_STORE": str(store),
        "PYHUGETEXT_PRIVATE_LIMIT": "unlimited",
        "PYHUGETEXT_BUILD_TIME": "unlimited",
    }
    if backing == "store":
        # Starts store of torch only what is used.
        result = Cli(store)("warm", "numpy", "pandas", "pyarrow", "torch")
        assert result.returncode == 0, result.stderr
    told = json.loads(python(WORK, env=env, timeout=300).stdout)
    stats = told["stats"]
    assert told["same"], "another result on huge pages"
    assert told["left"] == 0
    assert stats["mapped_bytes"] >= 0.99 * stats["coverable_bytes"] > 300 << 20
    assert stats["huge_bytes"] == told["huge"]
    assert sum(region["swapped_bytes"] for region in stats["regions"]) == told["swapped"]
    if backing == "store":
        assert stats["private_bytes"] < 1 << 20
        assert Path(store).is_dir()
    else:
        assert stats["huge_bytes"] == told["swapped"]
