"""Objects whose file was deleted or replaced since they were loaded: stats() and `status` say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli

pytestmark = pytest.mark.quick

PROGRAM = """
import ctypes, json, os, shutil, sys
import pyhugetext
path, backing, how = sys.argv[1:]
library = ctypes.CDLL(path)
pyhugetext.remap(backing=backing) if backing != "none" else pyhugetext.restore()
before = [r.path for r in pyhugetext.stats().regions if r.replaced]
if how == "replaced":
    shutil.copy(path, path + ".new")
    os.rename(path + ".new", path)
elif how == "deleted":
    os.unlink(path)
elif how == "renamed":
    os.rename(path, path + ".old")
stats = pyhugetext.stats()
own = [r for r in stats.as_dict()["regions"] if r["path"].startswith(path)]
print(json.dumps([before, own, str(stats)]), flush=True)
input()
"""


def told(cli: Cli, library: Path, backing: str, how: str) -> tuple[list[Any], dict[str, Any], str]:
    """What stats() said in the process, and `status` of it: as JSON and as text."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(library), backing, how],
        env=cli.environment(PYHUGETEXT_BACKING="auto"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        mine = json.loads(process.stdout.readline())
        (seen,) = cli.json("status", str(process.pid))["processes"]
        shown = cli("status", str(process.pid)).stdout
        process.communicate("\n")
    return mine, seen, shown


@pytest.mark.parametrize("backing", ["store", "memfd", "none"])
@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_object_whose_file_was_replaced_is_marked(
    cli: Cli, library: Path, backing: str, how: str
) -> None:
    (before, own, table), seen, shown = told(cli, library, backing, how)
    assert before == []
    (mine,) = own
    (there,) = (r for r in seen["regions"] if r["path"].startswith(str(library)))
    assert (mine["replaced"], there["replaced"]) == (True, True)
    assert [r["path"] for r in seen["regions"] if r["replaced"]] == [there["path"]]
    line = f"deleted or replaced on disk since, still running: {library}"
    for text in (table, shown):
        assert line in text.splitlines()
        # What is left of the file only root can read, and then it is in the table; a copy tells.
        if text is table or backing != "none" or not os.geteuid():
            assert f"{library.name} (replaced)  " in text


@pytest.mark.parametrize("how", ["kept", "renamed"])
def test_object_whose_file_is_there_is_not_marked(cli: Cli, library: Path, how: str) -> None:
    (before, own, table), seen, shown = told(cli, library, "memfd", how)
    assert before == []
    assert [r["replaced"] for r in own] == [False]
    assert not any(r["replaced"] for r in seen["regions"])
    assert "replaced" not in table
    assert "replaced" not in shown


def test_file_that_is_really_called_deleted_is_not_marked(cli: Cli, library: Path) -> None:
    odd = library.with_name("libodd.so (deleted)")
    os.rename(library, odd)
    (_, own, table), seen, shown = told(cli, odd, "memfd", "kept")
    assert [r["replaced"] for r in own] == [False]
    assert not any(r["replaced"] for r in seen["regions"])
    assert "(replaced)" not in table + shown
