"""First, do no harm, where a process forbids itself, or the machine forbids, what the package would do."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.common import TESTS, Run, big_source, big_sum
from support.limits import (
    PR_SET_MDWE,
    PR_SET_THP_DISABLE,
    in_own_mounts,
    knows,
    set_process,
)
from support.plain import same_as_plain, told_causes

THP = Path("/sys/kernel/mm/transparent_hugepage")


# --- what processes may forbid themselves ---


def stats_under(option: int, python: Run, tmp_path: Path, backing: str) -> dict[str, Any]:
    return same_as_plain(
        python,
        tmp_path,
        env={"PYHUGETEXT_BACKING": backing},
        preexec_fn=set_process(option, 1),
    )


@pytest.mark.parametrize("backing", ["auto", "memfd", "thp"])
def test_write_xor_execute_enforced_by_the_kernel(python, tmp_path, backing):
    if not knows(PR_SET_MDWE, 1):
        pytest.skip("the kernel has no PR_SET_MDWE (6.3)")
    stats = stats_under(PR_SET_MDWE, python, tmp_path, backing)
    if backing == "thp":
        assert not stats["active"]
        assert "mprotect(PROT_EXEC) failed with EACCES" in told_causes(stats)
    else:
        # A memory file is mapped executable from the start, so nothing is gained later.
        assert stats["active"], stats["reason"]


@pytest.mark.parametrize("backing", ["auto", "memfd", "thp"])
def test_huge_pages_disabled_for_the_process(python, tmp_path, backing):
    if not knows(PR_SET_THP_DISABLE, 1):
        pytest.skip("the kernel has no PR_SET_THP_DISABLE")
    stats = stats_under(PR_SET_THP_DISABLE, python, tmp_path, backing)
    assert stats["huge_bytes"] == 0
    assert not stats["active"]
    if stats["mapped_bytes"]:  # from the store, where the kernel decides at the first touch
        assert "the kernel holds 0 of" in stats["reason"]
    else:
        assert "MADV_COLLAPSE) failed with EINVAL" in told_causes(stats)


# --- what the machine forbids ---


@contextlib.contextmanager
def setting(path: Path, value: str) -> Iterator[None]:
    if not os.access(path, os.W_OK):
        pytest.skip(f"{path} cannot be written here (needs root)")
    words = path.read_text().split()
    before = next((word.strip("[]") for word in words if word.startswith("[")), words[0])
    try:
        path.write_text(value)
    except OSError as error:
        pytest.skip(f"{path} cannot be set to {value} here: {error}")
    try:
        yield
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("name", "value", "backing"),
    [
        ("enabled", "never", "auto"),
        ("enabled", "never", "thp"),
        ("shmem_enabled", "never", "memfd"),
        ("shmem_enabled", "deny", "memfd"),
        ("shmem_enabled", "deny", "auto"),
    ],
)
@pytest.mark.alone
def test_huge_pages_switched_off_on_the_machine(python, tmp_path, name, value, backing):
    with setting(THP / name, value):
        stats = same_as_plain(python, tmp_path, env={"PYHUGETEXT_BACKING": backing})
    assert stats["kernel"]["thp_enabled" if name == "enabled" else name] == value
    # Kernels differ in whether MADV_COLLAPSE heeds the switch; what is claimed must be true.
    if not stats["active"]:
        assert "MADV_" in told_causes(stats) or "no 2 MiB page" in told_causes(stats)
    else:
        assert stats["huge_bytes"] > 0


def test_empty_pool_of_reserved_pages(python, tmp_path):
    free = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    if free.is_file() and free.read_text().strip() != "0":
        pytest.skip("the hugetlb pool of this machine is not empty")
    stats = same_as_plain(python, tmp_path, env={"PYHUGETEXT_BACKING": "hugetlb"})
    assert not stats["active"]
    assert "mmap failed with E" in told_causes(stats)


def test_tiny_limit_of_mappings_at_start(python, tmp_path):
    # The real setting is the machine's; what the core is told can be this process's.
    tiny = tmp_path / "max_map_count"
    tiny.write_text("70\n")
    prefix = in_own_mounts(f"mount --bind {tiny} /proc/sys/vm/max_map_count")
    stats = same_as_plain(python, tmp_path, prefix=prefix)
    assert not stats["active"]
    assert "vm.max_map_count" in told_causes(stats)


MANY_MAPPINGS = """
    import ctypes, json, mmap, sys
    import pyhugetext
    sys.path.insert(0, sys.argv[2])
    from support.harm import work

    library = ctypes.CDLL(sys.argv[1])
    library.f_sum.restype = ctypes.c_long
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    PAGE = 4096

    def count():
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)

    def add(mappings):  # every other page gets another protection, so none can be joined
        size = (mappings + 1) * PAGE
        base = libc.mmap(None, size, mmap.PROT_READ, 0x22, -1, 0)
        for i in range(0, mappings, 2):
            if libc.mprotect(base + i * PAGE + PAGE, PAGE, 0):
                break
        return base, size
"""


@pytest.mark.parametrize("backing", ["auto", "thp"])
def test_ten_thousand_mappings_are_no_obstacle(python, compile_library, backing):
    library = compile_library(big_source(125, padding=20_000))
    code = (
        MANY_MAPPINGS
        + """
    add(6000); add(6000)
    assert count() > 12000
    stats = pyhugetext.remap(backing=sys.argv[3])
    assert 0 <= stats.coverable_bytes - stats.mapped_bytes < 256 << 10, str(stats)  # as in test_startup.py
    assert stats.huge_bytes >= stats.mapped_bytes > 0
    results = work(), library.f_sum(7)
    after = pyhugetext.restore()
    assert after.mapped_bytes == 0, str(after)
    assert results == (work(), library.f_sum(7))
    print(results[1], any(sys.argv[1] == r.path for r in stats.regions))
    """
    )
    result = python(code, str(library), str(TESTS), backing)
    assert (result.stdout, result.stderr) == (f"{big_sum(7, 125)} True\n", "")


def test_near_the_limit_of_mappings_nothing_is_tried(python, compile_library):
    maximum = int(Path("/proc/sys/vm/max_map_count").read_text())
    if maximum > 300_000:
        pytest.skip(f"vm.max_map_count is {maximum}: too many to make in a test")
    library = compile_library(big_source(125, padding=20_000))
    code = (
        MANY_MAPPINGS
        + """
    from pyhugetext import _native
    maximum, results = int(sys.argv[3]), (work(), library.f_sum(7))
    base, size = add(maximum - count() - 40)
    near = count()
    stats = pyhugetext.remap()
    assert not stats.mapped_bytes, str(stats)
    reasons = {r.reason for r in stats.regions if r.coverable_bytes >= 256 << 10}
    results_near = work(), library.f_sum(7)
    more, more_size = add(200)  # now there is not one left, not even for malloc
    try:
        _native.remap()
        _native.restore()
    except MemoryError:
        pass
    # (not by stats(), which reads every mapping there is)
    results_at = library.f_sum(7)
    libc.munmap(base, size)
    libc.munmap(more, more_size)
    assert results_near == results and results_at == results[1]
    # And with room again it is done as always.
    stats = pyhugetext.remap()
    assert 0 <= stats.coverable_bytes - stats.mapped_bytes < 256 << 10, str(stats)  # as in test_startup.py
    print(json.dumps([maximum - near, sorted(reasons)]))
    """
    )
    result = python(code, str(library), str(TESTS), str(maximum), env={"PYHUGETEXT": "0"})
    left, reasons = json.loads(result.stdout)
    assert left >= 0
    assert all("vm.max_map_count" in reason for reason in reasons), reasons
    assert reasons
    assert result.stderr == ""
