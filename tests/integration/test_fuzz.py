"""The fuzz targets, for a moment: `make fuzz` runs them for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.common import ROOT, clean_environment, tool


def test_layouts_of_broken_files_are_refused_or_sound(tmp_path: Path) -> None:
    compiler, make = tool("clang++"), tool("make")
    probe = [compiler, "-x", "c++", "-fsanitize=fuzzer", "-o", tmp_path / "probe", "-"]
    source = 'extern "C" int LLVMFuzzerTestOneInput(const char *, unsigned long) { return 0; }'
    if subprocess.run(probe, input=source, text=True, capture_output=True, check=False).returncode:
        pytest.skip("clang has no libFuzzer here (Debian: libclang-rt-14-dev)")
    options = ["RUNS=20000", f"FUZZ={tmp_path / 'fuzz'}", f"PYTHON={sys.executable}"]
    result = subprocess.run(
        [make, "-C", ROOT, "fuzz", *options],
        env=clean_environment(PYHUGETEXT="0"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    assert "Done 20000 runs" in result.stderr
