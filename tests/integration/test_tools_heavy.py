"""Tools on a process whose text is mostly a large wheel's, mapped from the store."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_tools import RECORD, Desk, gdb, hot_functions, tool

from support.common import TESTS, clean_environment

pytestmark = pytest.mark.heavy

CODE = """
import json, os
import pyhugetext, torch
from support import tools
tools.allow_debuggers()
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
def train():
    model(torch.randn(32, 64)).square().mean().backward()
train()
regions = pyhugetext.stats().as_dict()["regions"]
torch_cpu = next(r for r in regions if r["path"].endswith("/libtorch_cpu.so"))
print(json.dumps({"pid": os.getpid(), "torch": torch_cpu}), flush=True)
while True:
    train()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("store")
    yield path
    shutil.rmtree(path, ignore_errors=True)  # pytest keeps directories, and this is torch's size


@pytest.fixture
def desk(tmp_path: Path, store: Path) -> Iterator[Desk]:
    (tmp_path / "home").mkdir()
    environ = {
        "HOME": str(tmp_path / "home"),
        "PYHUGETEXT_STORE": str(store),
        "PYHUGETEXT_BACKING": "store",
        "PYHUGETEXT_BUILD": "always",
        "PYHUGETEXT_BUILD_TIME": "unlimited",
        "PYTHONPATH": str(TESTS),
        "DEBUGINFOD_URLS": "",
    }
    yield Desk(tmp_path, Path("libtorch_cpu.so"), environ)
    shutil.rmtree(tmp_path / "home", ignore_errors=True)  # perf links what it saw into it


@pytest.fixture
def training(desk: Desk) -> Iterator[dict[str, Any]]:
    """A process that trains with torch; what it says about itself."""
    pytest.importorskip("torch")
    environ = clean_environment(**desk.environ)
    command = [sys.executable, "-c", CODE]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = json.loads(process.stdout.readline())
        if said["torch"]["backing"] != "store":
            pytest.skip(f"no text from the store here: {said['torch']['reason']}")
        yield said
        assert process.poll() is None, f"the program ended with status {process.returncode}"
    finally:
        process.kill()
        process.communicate()


def test_perf_names_functions_of_torch(desk: Desk, training: dict[str, Any]) -> None:
    perf = [tool("perf"), "--buildid-dir", str(desk.path / "buildids")]
    desk.run(*perf, *RECORD, "-p", str(training["pid"]), "--", "sleep", "2")
    names = hot_functions(desk, perf)["libtorch_cpu.so"]
    without = {name for name in names if name.startswith("0x")}
    assert any("at::" in name or "torch::" in name or "c10::" in name for name in names), names
    assert len(without) < len(names) / 4, without


def test_gdb_names_the_frames_of_a_breakpoint_in_torch(
    desk: Desk, training: dict[str, Any]
) -> None:
    # Exported, and called by every backward().
    name = "torch::autograd::Engine::execute"
    steps = (f"break {name}", "continue", "backtrace", "delete", "detach")
    arguments = (argument for step in steps for argument in ("-ex", step))
    output = gdb(desk, "-p", str(training["pid"]), *arguments)
    assert re.search(rf"^#0 .*{name}\(", output, re.MULTILINE), output
    assert re.search(r"^#\d+ .*\bPyEval_EvalCode \(", output, re.MULTILINE), output


def test_py_spy_sees_the_stack_under_torch(desk: Desk, training: dict[str, Any]) -> None:
    output = desk.run(tool("py-spy"), "dump", "--pid", str(training["pid"])).stdout
    assert re.search(r"\btrain \(<string>:\d+\)", output), output
