"""What other kernels answer to MADV_COLLAPSE and its like, and what the package makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.common import HUGE
from support.older import as_on
from support.store import Store, require_huge_disk
from support.users import namespace

LOADS = """
import ctypes, sys, pyhugetext
for path in sys.argv[1:]:
    ctypes.CDLL(path)
pyhugetext.remap()
"""
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


def test_file_is_collapsed_where_it_must_be_touched_and_ends_inside_a_page(
    tmp_path: Path, compile_library: Callable[..., Path]
) -> None:
    """READ_ONLY_THP_FOR_FS of Linux 6.1; here a file on tmpfs, which this kernel collapses."""
    aligned = "-Wl,-z,max-page-size=2097152"
    with namespace() as space:
        names = []
        for name, mebibytes in (("libone.so", 5), ("libtwo.so", 7)):
            skip = f'__asm__(".text; .skip {mebibytes << 20}, 0x90");'
            library = compile_library(skip, aligned, name=name)
            assert library.stat().st_size % HUGE
            shutil.copy(library, space.sees(f"/dev/shm/{name}"))
            names.append(f"/dev/shm/{name}")
        store = Store(Path("/nonexistent/store"), space.prefix, "file", other=None)
        older = as_on("6.1", tmp_path)
        report = store.start(LOADS, *names, prefix=older)
        for name in names:
            region = report.region(os.path.basename(name))
            if (region["reason"] or "").startswith("the layout"):
                pytest.skip("the dynamic linker does not align this library")
            assert (region["backing"], region["status"]) == ("file", "huge"), region
