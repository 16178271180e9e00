"""The system calls that a start makes beyond plain Python's, which people who write seccomp filters
need to know: all of them are in one list here, which docs/tools.md has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.common import ROOT, clean_environment, tool

pytestmark = pytest.mark.quick

PAGE = ROOT / "docs" / "tools.md"

# By situation: one that makes a copy for the store, or has no store, makes those of every start, too.
BEYOND = {
    "every start": "clock_gettime geteuid madvise mremap prctl rt_sigprocmask statx",
    "from the store": "cachestat sync_file_range",
    "the same, where no filter is there": "uname",
    "the same, of a user who is not root": "getresuid",
    "from the store in shared memory": "flock",
    "where `/proc/self/pagemap` is closed, and no filter is there": "move_pages",
    "that makes a copy for the store": (
        "faccessat fchmod fstatfs ftruncate getpid getresuid mkdirat pwrite64 renameat2 statfs "
        "uname write"
    ),
    "the same, now and then": (
        "fadvise64 fallocate fchmodat fdatasync flock fsync nanosleep openat2 unlinkat utimensat"
    ),
    "`memfd`": "ftruncate memfd_create pwrite64",
    "`thp`": "getpid process_vm_readv",
}
# What every Python makes, whatever it does.
PLAIN = (
    "close exit fcntl getdents64 ioctl lseek mmap mprotect munmap openat pread64 prlimit64 read "
    "readlinkat"
)
# What strace 6.1 has no name for yet.
NEW = {"syscall_0x1c3": "cachestat"}

STORE = [
    "every start", "from the store", "the same, where no filter is there",
    "the same, of a user who is not root",
]  # fmt: skip
SITUATIONS = {
    "store": STORE,
    "cold": [*STORE, "that makes a copy for the store", "the same, now and then"],
    "memfd": ["every start", "`memfd`"],
    "thp": ["every start", "`thp`"],
}


def calls(directory: Path, *arguments: str, **settings: str) -> set[str]:
    """The names of the system calls that Python makes for `python ARGUMENTS`."""
    record = directory / "calls"
    environ = clean_environment(HOME=str(directory), XDG_CACHE_HOME=str(directory), **settings)
    command = [tool("strace"), "-f", "-qq", "-e", "signal=none", "-o", str(record)]
    result = subprocess.run(
        [*command, sys.executable, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if result.returncode:
        pytest.skip(f"strace does not work here: {result.stderr.strip().splitlines()[-1:]}")
    names = re.findall(r"^\d+ +(\w+)\(", record.read_text(), re.MULTILINE)
    return {NEW.get(name, name) for name in names}


def beyond(directory: Path, situation: str, *arguments: str) -> set[str]:
    """What a start makes beyond plain Python's in that situation."""
    plain = calls(directory, *arguments, PYHUGETEXT="0")
    settings = {} if situation in ("store", "cold") else {"PYHUGETEXT_BACKING": situation}
    made = calls(directory, *arguments, **settings)
    if situation == "store":
        made = calls(directory, *arguments)  # the first has built
    return made - plain


def listed(situation: str) -> set[str]:
    return {name for part in SITUATIONS[situation] for name in BEYOND[part].split()}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_start_makes_no_call_beyond_those_listed(tmp_path: Path, situation: str) -> None:
    assert beyond(tmp_path, situation, "-c", "pass") <= listed(situation)


@pytest.mark.parametrize("situation", ["store", "cold"])
def test_import_of_a_large_library_makes_no_call_beyond_those_listed(
    tmp_path: Path, library: Path, modules: dict[str, str], situation: str
) -> None:
    code = f"import sys; sys.path.append({modules['PYTHONPATH']!r}); import sample"
    assert beyond(tmp_path, situation, "-c", code) <= listed(situation)


def test_no_call_of_the_native_code_is_missing_in_the_list() -> None:
    kernel = ROOT / "src/native/kernel"
    headers = "".join((kernel / name).read_text() for name in ("sys.h", "sys_write.h"))
    names = set(re.findall(r"__NR_(\w+)", headers))
    assert "mremap" in names
    known = {name for part in (*BEYOND.values(), PLAIN) for name in part.split()}
    assert names - known == set()


def test_an_active_start_says_so_under_strace(
    tmp_path: Path, stats_of: Callable[..., dict[str, object]]
) -> None:
    # Or the tests above would look at a Python that does nothing.
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    prefix = (tool("strace"), "-f", "-qq", "-o", os.devnull)
    stats = stats_of(env=environ, prefix=prefix)
    if not stats["active"]:
        pytest.skip(f"inactive here: {json.dumps(stats['reason'])}")
    assert stats["mapped_bytes"]


def table() -> str:
    """BEYOND as the page has it."""
    lines = ["| when | calls |", "|---|---|"]
    for situation, names in BEYOND.items():
        lines.append(f"| {situation} | " + ", ".join(f"`{n}`" for n in names.split()) + " |")
    return "\n".join(lines)


def test_page_has_the_list() -> None:
    assert table() in PAGE.read_text()
