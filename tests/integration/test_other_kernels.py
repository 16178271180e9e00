"""What other kernels answer to MADV_COLLAPSE and its like, and what the package makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.older import as_on
from support.store import Store, require_huge_disk
from support.users import namespace

LOADS = "import ctypes, sys, pyhugetext; ctypes.CDLL(sys.argv[1]); pyhugetext.remap()\n"
REFUSAL = "does not collapse shared memory"


def test_memfd_is_judged_by_the_page_table_where_the_answer_is_wrong(tmp_path: Path) -> None:
    """Linux 6.1 answers EINVAL where nothing of a memory file was touched, though it collapses it."""
    store = Store(tmp_path / "none", as_on("6.1", tmp_path), backing="memfd")
    region = store.start().interpreter
    assert (region["backing"], region["status"]) == ("memfd", "huge"), region


def test_without_collapse_no_copy_is_made_in_shared_memory(tmp_path: Path, library: Path) -> None:
    with namespace() as space:
        store = space.shm_store()
        older = as_on("5.10", tmp_path)
        report = store.start(prefix=older)
        assert report.interpreter["backing"] != "shm"
        assert any(REFUSAL in reason for reason in report.refusals)
        assert "never" in (store.base / "verdict").read_text()
        assert store.copies == []
        assert not store.start(prefix=older).built
        # Nor for what that process did not have.
        before = (store.base / "objects").stat().st_mtime_ns, len(store.records)
        region = store.start(LOADS, str(library), prefix=older).region(library.name)
        assert "an entry could not be made" in region["reason"]
        after = (store.base / "objects").stat().st_mtime_ns, len(store.records)
        assert after == (before[0], before[1] + 1)


def test_machine_that_learns_to_collapse_is_asked_again(tmp_path: Path) -> None:
    with namespace() as space:
        store = space.shm_store()
        store.start(prefix=as_on("5.10", tmp_path))
        for path in (store.base / "verdict", *store.records):
            os.utime(path, (at := path.stat().st_mtime - 86400, at))
        store.recovers()


def test_without_collapse_warm_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    with namespace() as space:
        store = space.shm_store()
        warm = (sys.executable, "-m", "pyhugetext", "warm")
        result = subprocess.run(
            [*store.prefix, *as_on("5.10", tmp_path), *warm],
            env=store.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stdout) == (1, "")
        assert REFUSAL in result.stderr
        assert (store.copies, store.leftovers) == ([], [])


def test_store_on_disk_needs_no_call_of_newer_kernels(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    Store(tmp_path / "store", as_on("5.10", tmp_path)).recovers()
