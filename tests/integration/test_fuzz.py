"""`make fuzz` tells what it found, and that it could not look. What it looks at is CI's to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.common import TESTS, clean_environment

RUN = TESTS / "fuzz" / "run.py"

# What libFuzzer does that run.py sees of it.
FINDS = """#!/bin/sh
for argument; do case $argument in -artifact_prefix=*) prefix=${argument#*=};; esac; done
echo "maps.cpp:40: not what it should be" >&2
echo x > "${prefix}crash-0123"
echo "stat::number_of_executed_units: 12" >&2
exit 77
"""
FINDS_NOTHING = """#!/bin/sh
echo "#20000 DONE cov: 300 ft: 700" >&2
echo "stat::number_of_executed_units: 20000" >&2
"""
DOES_NOT_RUN = """#!/bin/sh
exit 0
"""


def run(place: Path, **targets: str) -> subprocess.CompletedProcess[str]:
    for name, script in targets.items():
        (place / name).write_text(script)
        (place / name).chmod(0o755)
    command = [sys.executable, RUN, "--found", place / "found", place, *targets]
    return subprocess.run(
        command, env=clean_environment(PYHUGETEXT="0"), capture_output=True, text=True, check=False
    )


def test_a_finding_is_told_and_its_input_kept(tmp_path):
    result = run(tmp_path, maps=FINDS, plan=FINDS_NOTHING)
    assert result.returncode == 1
    assert "not what it should be" in result.stderr
    assert (tmp_path / "found/maps/crash-0123").read_text() == "x\n"
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[1:]}
    assert rows["maps"][0] == "12"
    assert rows["maps"][-1] == "1"
    assert (rows["plan"][0], rows["plan"][-1]) == ("20,000", "0")


@pytest.mark.parametrize(("script", "status"), [(FINDS_NOTHING, 0), (DOES_NOT_RUN, 1)])
def test_what_did_not_run_is_no_success(tmp_path, script, status):
    assert run(tmp_path, settings=script).returncode == status


def test_every_target_has_inputs_to_begin_with(tmp_path):
    run(tmp_path, maps=FINDS_NOTHING)
    sources = {path.stem for path in (TESTS / "fuzz").glob("*.cpp")} - {"memory", "world"}
    assert {path.name for path in (tmp_path / "seeds").iterdir()} == sources
    assert all(any((tmp_path / "seeds" / name).iterdir()) for name in sources)
    lines = (TESTS / "fuzz" / "targets.mk").read_text().splitlines()
    told = {line.split()[0][7:] for line in lines if line.startswith("FUZZED_")}
    assert told == sources
