"""Each target that `make help` names can be made at all: what it needs has a rule."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from support.common import ROOT, clean_environment


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-C", ROOT, f"PYTHON={sys.executable}", *arguments],
        env=clean_environment(PYHUGETEXT="0"),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_targets_have_rules_for_what_they_need():
    targets = re.findall(r"^make (\S+)", make("help").stdout, re.MULTILINE)
    assert {"sanitize", "fuzz", "lint"} <= set(targets)
    told = make("-n", *targets)
    assert (told.returncode, re.findall(r"No rule.*", told.stderr)) == (0, [])
