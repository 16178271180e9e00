"""What other kernels answer to MADV_COLLAPSE and its like, and what the package makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.common import HUGE, TESTS
from support.older import as_on
from support.store import Store, filled_store, read_in_small_pieces, require_huge_disk
from support.users import namespace

LOADS = """
import ctypes, sys, pyhugetext
for path in sys.argv[1:]:
    ctypes.CDLL(path)
pyhugetext.remap()
"""
USES = """
import ctypes
for line in open("/proc/self/maps"):
    span, permissions = line.split()[:2]
    start, end = (int(part, 16) for part in span.split("-"))
    if "x" in permissions and "/objects/" in line:
        for at in range(start, end, 4096):
            ctypes.string_at(at, 1)
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


def test_small_end_of_a_file_is_left_where_nothing_is_behind_it(
    tmp_path: Path, compile_library: Callable[..., Path]
) -> None:
    """READ_ONLY_THP_FOR_FS collapses no page that the file ends inside; smaps, which is what kernels
    before 6.7 are asked, tells of a mapping only how much of it is huge."""
    source = f'__asm__(".text; .skip {2 * HUGE + (HUGE >> 2)}, 0x90");'
    with namespace() as space:
        layout = "-Wl,-z,max-page-size=2097152,-z,noseparate-code,-z,norelro"
        library = compile_library(source, layout)
        assert 2 * HUGE < library.stat().st_size < 3 * HUGE
        shutil.copy(library, space.sees(f"/dev/shm/{library.name}"))
        store = Store(Path("/nonexistent/store"), space.prefix, "file", other=None)
        report = store.start(LOADS, f"/dev/shm/{library.name}", prefix=as_on("FIRST", tmp_path))
        region = report.region(library.name)
        if (region["reason"] or "").startswith("the layout"):
            pytest.skip("the dynamic linker does not align this library")
        assert (region["backing"], region["status"]) == ("file", "partial"), region
        assert region["swapped_bytes"] == region["huge_bytes"] == 2 * HUGE
        assert "gave no 2 MiB page" in region["reason"]


@pytest.mark.parametrize("kernel", ["READ_ONLY_THP", "READ_ONLY_THP,SCAN"])
def test_copy_on_disk_is_collapsed_where_reading_it_again_leaves_it_small(
    tmp_path: Path, kernel: str
) -> None:
    store = filled_store(tmp_path / "store")
    older = as_on(kernel, tmp_path)
    for copy in store.copies:
        with open(copy, "rb") as file:
            os.fsync(file.fileno())
    for record in store.records:
        record.chmod(0o400)
    for copy in store.copies:
        read_in_small_pieces(copy)
    for _ in range(2):
        region = store.start(USES, prefix=older).interpreter
        assert (region["backing"], region["status"]) == ("store", "huge"), region
        assert region["huge_bytes"] == region["swapped_bytes"]
    # Nor is what the first one mended seen small by who looks closer.
    assert store.start(USES).interpreter["small_bytes"] == 0


def test_file_system_whose_files_are_collapsed_is_built_into(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    store.start()
    verdict = store.base / "verdict"
    verdict.write_text(verdict.read_text().replace("written", "collapsed"))
    told = verdict.stat().st_mtime_ns
    for path in (*store.records, *(copy.parent for copy in store.copies)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    store.recovers()
    assert verdict.stat().st_mtime_ns == told
    os.utime(verdict, (0, 0))
    assert not store.start().built


def test_tmpfs_is_no_disk_though_it_is_collapsed(tmp_path: Path) -> None:
    with namespace() as space:
        store = space.store("/dev/shm/disk", "store")
        assert "gives no huge pages to new files" in store.start().reasons
        assert store.copies == []


def test_moment_without_huge_pages_is_no_verdict_on_shared_memory(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from support import harm; import errno, os\n"
    code += "call = (harm.NUMBERS['madvise'], (2, harm.MADV_COLLAPSE, False), errno.ENOMEM)\n"
    code += "harm.install(harm.refuse_rule(call)); os.execvp(sys.argv[1], sys.argv[1:])"
    with namespace() as space:
        store = space.shm_store()
        warm = (sys.executable, "-m", "pyhugetext", "warm")
        result = subprocess.run(
            [*store.prefix, sys.executable, "-S", "-c", code, str(TESTS), *warm],
            env=store.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert not (store.base / "verdict").exists()
        assert len(store.copies) == 1
