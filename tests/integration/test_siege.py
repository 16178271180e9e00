"""That `make siege` runs, passes, repeats itself, and sees a wrong result."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

from support.harness import run_harness
from support.layouts import skip_unless_huge

siege = partial(run_harness, "siege/driver.py")


def test_a_short_siege_passes_and_leaves_nothing(tmp_path: Path) -> None:
    skip_unless_huge("thp")
    result = siege(
        "--seconds",
        "3",
        "--seed",
        "20261127",
        "--backings",
        "store,memfd,thp",
        TMPDIR=str(tmp_path),
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    found = re.search(r"(\d+) steps in", result.stdout)
    assert found, result.stdout
    assert int(found[1]) >= 300
    assert os.listdir(tmp_path) == []


def test_a_wrong_result_is_seen_and_its_seed_told() -> None:
    result = siege("--seconds", "1", "--seed", "1", "--backings", "memfd", SIEGE_BROKEN="1")
    assert result.returncode == 1
    assert "libsiege_plain.so computes" in result.stdout
    assert "again: make siege SEED=1:memfd:0" in result.stdout


def test_an_unknown_backing_is_a_usage_error() -> None:
    result = siege("--backings", "gold")
    assert result.returncode == 2
    assert "allowed: store, shm" in result.stderr
