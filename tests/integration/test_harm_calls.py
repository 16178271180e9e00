"""First, do no harm: every system call the core makes fails in turn, and no program notices.

Calls are made fail by a seccomp filter on the address of the instruction, so that only the core's
fail and not the interpreter's; and by strace and filters on the whole process.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import harm
from support.common import STRANGER, big_source, clean_environment
from support.filters import needs_filters
from support.plain import same_as_plain, told_causes
from support.users import as_user, home_of

HELPER = harm.__file__
EVERY = ["ENOMEM", "EPERM", "ENOSYS", "EAGAIN", "EINTR"]


def what_is_wrong(case: dict[str, Any], normal: dict[str, Any]) -> list[str]:
    """Complaints about one case, `normal` being the one in which nothing failed."""
    if case["hung"]:
        return ["it never ended"]
    found = []
    if case["status"] or case["stdout"] or case["stderr"]:
        found.append(f"wait status {case['status']}, printed {case['stdout']}{case['stderr']}")
    report = case["report"]
    if report is None:
        return found
    call = case["call"]
    for moment in ("after remap", "after restore"):
        if report[moment] != report["expected"]:
            found.append(f"wrong results {moment}")
    # Nothing can be done about a mask that cannot be set back, or a descriptor not closed.
    if not report["mask kept"] and call != "rt_sigprocmask(SIG_SETMASK)":
        found.append("the signal mask is another one")
    if not report["descriptors kept"] and call != "close":
        found.append("descriptors were left open or closed")
    for moment in ("remapped", "restored", "stats"):
        stats = report[moment]
        if isinstance(stats, str):
            if call != "mmap":
                found.append(f"{moment}: raised {stats}")
            continue
        if stats["elapsed_ns"] > 60e9:
            found.append(f"{moment}: claims to have taken {stats['elapsed_ns']} ns")
        expected = normal["report"][moment]["mapped_bytes"]
        not_done = (
            stats["mapped_bytes"] > expected
            if moment == "restored"
            else stats["mapped_bytes"] < expected and moment == "remapped"
        )
        if not_done and not names(stats, case["call"], case["error"]):
            found.append(f"{moment}: the cause is not named: {json.dumps(stats)}")
        for region in stats["regions"]:
            if region["mapped_bytes"] < region["coverable_bytes"] and not region["reason"]:
                found.append(f"{moment}: {region['path']} is not covered and has no reason")
    final = report["stats"]
    if isinstance(final, dict) and not final["mapped_bytes"] and call != "munmap":
        for name in ("new", "gone"):
            # A mmap(MAP_FIXED) that fails may leave a hole in the address space reserved for it, and
            # another thread's memory in that: so what is left of the reservation stays.
            odd = [m for m in report[name] if call != "mmap" or m[2:5] != ["---p", 0, 0]]
            if odd:
                found.append(f"stats() tells of nothing swapped, but mappings are {name}: "
                             f"{odd}")  # fmt: skip
    return found


def names(stats: dict[str, Any], call: str, error: str) -> bool:
    """Whether stats() tells of the call that failed."""
    told = [stats["reason"] or "", *stats["problems"]]
    for region in stats["regions"]:
        told += [region["reason"] or "", *region["fallbacks"]]
    words = [error]
    if call == "mmap":
        words += ["no memory for own tables", "ENOMEM"]
    if call == "getpid":  # its value is an argument of the call that then fails
        words.append("process_vm_readv")
    if call == "getresuid":  # whoever that is has no store
        words.append("not trusted")
    return any(word in text for word in words for text in told)


@needs_filters
@pytest.mark.parametrize(
    ("backing", "kernel", "site_errors", "call_errors"),
    [
        ("memfd", "this", EVERY, ["ENOMEM"]),
        ("memfd", "6.1", ["ENOMEM", "EINTR"], []),
        ("memfd", "this, another user", ["ENOMEM", "EACCES"], []),
        ("thp", "this", ["ENOMEM", "EAGAIN"], ["EINTR"]),
        ("thp", "5.10", ["ENOMEM"], []),
        ("hugetlb", "this", ["ENOMEM", "EPERM"], []),
        ("file", "this", ["ENOMEM", "EPERM"], []),
        ("store", "this", ["ENOMEM", "EMFILE", "EINTR"], ["EIO"]),
        ("auto", "this", ["EPERM"], []),
    ],
)
def test_a_call_that_fails_harms_nothing_and_is_named(
    compile_library, python, tmp_path, backing, kernel, site_errors, call_errors
):
    library = str(compile_library(big_source(160, padding=20000)))
    kernel, _, changes = kernel.partition(", ")
    if changes:
        as_user(STRANGER)
        with home_of(STRANGER) as home:
            home.chmod(0o755)
            library = shutil.copy(library, home)
            check_calls(
                python, tmp_path, library, backing, kernel, site_errors, call_errors, STRANGER
            )
    else:
        check_calls(python, tmp_path, library, backing, kernel, site_errors, call_errors)


def check_calls(python, tmp_path, library, backing, kernel, site_errors, call_errors, user=None):
    # Nothing is built while calls fail; what a store backing needs is built before.
    env = {
        "PYHUGETEXT": "0",
        "PYHUGETEXT_BUILD": "never",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    if backing == "store":
        code = """
            import ctypes, sys, pyhugetext
            library = ctypes.CDLL(sys.argv[1])
            stats = pyhugetext.remap(backing=sys.argv[2])
            left = stats.coverable_bytes - stats.mapped_bytes  # as in test_startup.py
            print(left < 256 << 10, stats.reason, *stats.problems)
        """
        told = python(code, library, backing, env={**env, "PYHUGETEXT_BUILD": "always"}).stdout
        if not told.startswith("True"):
            pytest.skip(f"the {backing} backing cannot be had here: {told}")
        # As of copies that were seen on disk: what one failure of sync_file_range(2) tells of a copy
        # is remembered (test_store_disk_faults.py), and would be told in all cases that follow.
        for record in (tmp_path / "cache/pyhugetext/v1/index").iterdir():
            record.chmod(0o400)
    config = {
        "library": library,
        "backing": backing,
        "kernel": kernel,  # what it does not know, as far as the core asks
        "site_errors": site_errors,
        "call_errors": call_errors,
        "user": user,
        "shards": 2,
    }

    def run(shard: int) -> list[dict[str, Any]]:
        result = subprocess.run(
            [sys.executable, HELPER, "turns", json.dumps({**config, "shard": shard})],
            env=clean_environment(**env),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        return [json.loads(line) for line in result.stdout.splitlines()]

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(run, range(2)))
    complaints = []
    for cases in results:
        normal = cases[0]
        assert what_is_wrong(normal, normal) == []
        assert not user or normal["report"]["remapped"]["mapped_bytes"]
        for case in cases[1:]:
            for complaint in what_is_wrong(case, normal):
                complaints.append(
                    f"{case['call']} at {case['where']} failing with {case['error']}: {complaint}"
                )
    assert not complaints, "\n".join(complaints)
    # The core really makes calls, of all kinds, and they were seen.
    calls = {case["call"] for cases in results for case in cases}
    assert {"openat", "read", "close", "mmap", "munmap", "madvise"} - {*calls} <= (
        {"madvise"} if backing == "hugetlb" else set()
    )
    assert sum(len(cases) for cases in results) > 40


@functools.lru_cache
def why_no_strace() -> str:
    if not shutil.which("strace"):
        return "strace is not installed"
    result = subprocess.run(
        ["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    return f"strace does not work here: {result.stderr}" if result.returncode else ""


needs_strace = pytest.mark.skipif(bool(why_no_strace()), reason=why_no_strace())


def own_store(tmp_path: Path, backing: str) -> dict[str, str]:
    """A store for one test, so that a failed build is not remembered for others. Shared memory
    has one for all, so only `store` may build."""
    build = "always" if backing == "store" else "never"
    return {
        "XDG_CACHE_HOME": str(tmp_path),
        "PYHUGETEXT_BACKING": backing,
        "PYHUGETEXT_BUILD": build,
    }


@needs_strace
@pytest.mark.parametrize(
    ("backing", "call", "error", "first", "path"),
    [
        ("memfd", "memfd_create", "ENOSYS", 1, ""),
        ("auto", "memfd_create", "EPERM", 1, ""),
        ("memfd", "ftruncate", "EFBIG", 1, ""),
        ("memfd", "pwrite64", "ENOSPC", 2, ""),
        ("auto", "pwrite64", "ENOSPC", 1, ""),
        ("auto", "madvise", "EINVAL", 1, ""),
        ("memfd", "madvise", "EAGAIN", 1, ""),
        ("auto", "ioctl", "EPERM", 1, ""),
        ("store", "ioctl", "ENOTTY", 1, ""),
        ("store", "fallocate", "EOPNOTSUPP", 1, ""),
        ("store", "utimensat", "EROFS", 1, ""),
        ("store", "rename", "EROFS", 1, ""),
        ("store", "mkdir", "EACCES", 1, ""),
        ("store", "pwrite64", "ENOSPC", 1, ""),
        ("store", "pwrite64", "EDQUOT", 3, ""),
        ("store", "madvise", "EPERM", 1, ""),
        ("auto", "openat", "EACCES", 1, "/proc/self/pagemap"),
        ("thp", "openat", "EACCES", 2, "/proc/self/pagemap"),
        ("auto", "openat", "ENOENT", 1, "/proc/self/maps"),
        ("auto", "openat", "EMFILE", 1, "/proc/sys/vm/max_map_count"),
        ("auto", "mremap", "ENOMEM", 1, ""),
        ("memfd", "mremap", "EFAULT", 2, ""),
        ("thp", "process_vm_readv", "EPERM", 1, ""),
        ("thp", "prctl", "EPERM", 1, ""),
    ],
)
def test_start_with_a_failing_call_is_like_one_without_the_package(
    python, tmp_path, backing, call, error, first, path
):
    stats = same_as_plain(
        python,
        tmp_path,
        env=own_store(tmp_path, backing),
        prefix=(
            *("strace", "-f", "-qqq", "-o", os.devnull, "-e", f"trace={call}"),
            *("-e", f"inject={call}:error={error}:when={first}+"),
            *(("-P", path) if path else ()),
        ),
        plain_prefix=(),
    )
    if stats["mapped_bytes"] < stats["coverable_bytes"] or not stats["coverable_bytes"]:
        words = (error, os.strerror(getattr(errno, error)))
        assert any(word in told_causes(stats) for word in words)


@needs_filters
@pytest.mark.parametrize(
    ("backing", "refused"),
    [
        *(("auto", {call: "EPERM"}) for call in ("memfd_create", "mremap", "ioctl", "statx")),
        *(("memfd", {call: "EPERM"}) for call in ("memfd_create", "mremap", "ioctl", "statx")),
        ("thp", {"process_vm_readv": "EPERM"}),
        ("thp", {"prctl": "EPERM"}),
        ("auto", {"memfd_create": "ENOSYS", "statx": "ENOSYS", "process_vm_readv": "ENOSYS"}),
        (
            "auto",
            dict.fromkeys(
                ("memfd_create", "process_vm_readv", "mremap", "ioctl", "prctl", "statx"), "EPERM"
            ),
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else value,
)
def test_start_under_a_filter_is_like_one_without_the_package(python, tmp_path, backing, refused):
    stats = same_as_plain(
        python,
        tmp_path,
        env=own_store(tmp_path, backing),
        prefix=(sys.executable, "-S", HELPER, "refuse", json.dumps(refused)),
        plain_prefix=(),
    )
    if stats["mapped_bytes"] < stats["coverable_bytes"]:
        assert any(error in told_causes(stats) for error in refused.values())


def test_errno_names_are_known():
    # The tables above would otherwise fail one by one, late.
    assert all(hasattr(errno, name) for name in EVERY)
