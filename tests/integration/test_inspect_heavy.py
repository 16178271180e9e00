"""Looking at a process with torch, numpy, pandas and pyarrow."""

from __future__ import annotations

import time

import pytest

from pyhugetext.process import inspect
from support.cli import Cli
from support.inspecting import assert_agreement, running

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("backing", ["store", "memfd", "thp"])
def test_figures_are_the_process_s_own(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], backing: str
) -> None:
    store = tmp_path_factory.getbasetemp() / "heavy-store"
    if backing == "store":
        # Starts store of torch only what is used.
        result = Cli(store)("warm", "numpy", "pandas", "pyarrow", "torch")
        assert result.returncode == 0, result.stderr
    env = {
        "PYHUGETEXT_BACKING": backing,
        "PYHUGETEXT_STORE": str(store),
        "PYHUGETEXT_PRIVATE_LIMIT": "unlimited",
        "PYHUGETEXT_BUILD_TIME": "unlimited",
    }
    with running("import numpy, pandas, pyarrow, torch", **env) as target:
        own = assert_agreement(target, "import pyhugetext; pyhugetext.remap()")
        assert own["mapped_bytes"] >= 0.99 * own["coverable_bytes"] > 300 << 20
        wall, cpu = [], []
        for _ in range(10):
            began, cpu_began = time.perf_counter(), time.process_time()
            inspect.inspect(target.pid)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - cpu_began)
    with capsys.disabled():
        print(f"\n{backing}: {min(wall) * 1e3:.1f} ms, {min(cpu) * 1e3:.1f} ms of it CPU time")
