"""First, do no harm, under limits on memory, files and descriptors."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from support.limits import MIB, PR_SET_THP_DISABLE, knows, limit, set_process
from support.plain import PROGRAM, same_as_plain, told_causes


def smallest(python: Any, tmp_path: Path, which: int, begin: int, step: int) -> int:
    """The smallest limit, in steps, under which the program runs with the package turned off, and
    stats() too: below that it depends on luck in which of its steps memory runs out, and whether
    that is the one it survives."""
    told = tmp_path / "plain.json"
    for value in range(begin, begin + 64 * step, step):
        result = python(
            PROGRAM,
            str(told),
            env={"PYHUGETEXT": "0"},
            check=False,
            preexec_fn=limit(which, value),
        )
        runs = (result.returncode, result.stderr) == (3, "on stderr\n")
        if runs and "failed" not in json.loads(told.read_text()):
            return value
    raise AssertionError("the program does not run under this limit at all")


def peak(python: Any, field: str) -> int:
    """What a python without the package needs, in bytes, as /proc/self/status tells it."""
    code = f"""
        import json, re
        print(re.search(r"{field}:\\s+(\\d+)", open("/proc/self/status").read())[1])
    """
    return int(python(code, env={"PYHUGETEXT": "0"}).stdout) * 1024


def test_limits_of_one_process_do_not_spoil_the_store_for_others(python, stats_of, tmp_path):
    if not knows(PR_SET_THP_DISABLE, 1):
        pytest.skip("the kernel has no PR_SET_THP_DISABLE")
    env = {"XDG_CACHE_HOME": str(tmp_path / "usual"), "PYHUGETEXT_BACKING": "store"}
    usual = stats_of(env=env)
    env["XDG_CACHE_HOME"] = str(tmp_path / "first limited")
    for limited in (
        set_process(PR_SET_THP_DISABLE, 1),
        limit(resource.RLIMIT_FSIZE, MIB),
        limit(resource.RLIMIT_AS, 200 * MIB),
    ):
        python("", env=env, preexec_fn=limited)
    # Memory may run out anywhere in a build.
    always = {**env, "PYHUGETEXT_BUILD": "always"}
    least = peak(python, "VmPeak")
    failed = 0
    for room in range(0, 16, 2):
        limited = limit(resource.RLIMIT_AS, least + room * MIB)
        python("", env=always, check=False, preexec_fn=limited)
        index = tmp_path / "first limited/pyhugetext/v1/index"
        records = list(index.iterdir()) if index.is_dir() else []
        for record in records:
            assert b"allocate memory" not in record.read_bytes()
            record.unlink()
        failed += not records
    assert failed or not usual["mapped_bytes"]
    stats = stats_of(env=env)
    assert (stats["mapped_bytes"], stats["reason"]) == (usual["mapped_bytes"], usual["reason"])


# The module of the start-up path and its tables take 140 KiB of addresses. That may be what makes
# Python ask for one arena more, which has 1 MiB since 3.10, and no two starts need quite the same.
@pytest.mark.parametrize("room", [2, 4, 8])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "nothing stored"])
def test_limited_address_space(python, tmp_path, room, stored):
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    if stored:
        python("", env=env)
    begin = peak(python, "VmPeak")
    enough = smallest(python, tmp_path, resource.RLIMIT_AS, begin, MIB) + room * MIB
    stats = same_as_plain(python, tmp_path, env=env, preexec_fn=limit(resource.RLIMIT_AS, enough))
    # Where there was no room for the package's own modules, it had to do without stats().
    told = stats.get("failed") or ("" if stats["active"] else told_causes(stats))
    causes = ("ENOMEM", "no memory", "failed to map", "Cannot allocate", "MemoryError")
    causes += ("memory limit",)
    assert not told or any(cause in told for cause in causes)


TOLD = """
    import json, re
    size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
    import pyhugetext
    stats = pyhugetext.stats()
    print(json.dumps([size, stats.backing, [r.reason for r in stats.regions if r.reason]]))
"""


@pytest.mark.parametrize("which", [resource.RLIMIT_AS, resource.RLIMIT_DATA], ids=["AS", "DATA"])
@pytest.mark.parametrize("build", ["auto", "always"])
def test_nothing_is_built_where_little_memory_is_left(python, tmp_path, which, build):
    env = {"PYHUGETEXT_STORE": str(tmp_path / "store"), "PYHUGETEXT_BUILD": build}
    env["PYHUGETEXT_BACKING"] = "store"
    begin = peak(python, "VmPeak" if which == resource.RLIMIT_AS else "VmData")
    near = smallest(python, tmp_path, which, begin, MIB) + 4 * MIB
    options = {"env": env, "preexec_fn": limit(which, near)}
    _, _, reasons = json.loads(python(TOLD, **options).stdout)
    assert (tmp_path / "store").exists() == (build == "always")
    assert any("RLIMIT_AS" in reason for reason in reasons) == (build == "auto"), reasons


def test_a_build_leaves_the_address_space_nearly_as_it_was(python, tmp_path):
    # Twice the same start, but for what it finds: of a build nothing stays.
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    sizes = [json.loads(python(TOLD, env=env).stdout)[0] for _ in range(2)]
    if not (tmp_path / "pyhugetext/v1/index").is_dir():
        pytest.skip("nothing is built here")
    assert sizes[0] - sizes[1] < 256


@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_limited_data(python, tmp_path, backing):
    begin = peak(python, "VmData")
    enough = smallest(python, tmp_path, resource.RLIMIT_DATA, begin, MIB) + 3 * MIB
    stats = same_as_plain(
        python,
        tmp_path,
        env={"PYHUGETEXT_BACKING": backing},
        preexec_fn=limit(resource.RLIMIT_DATA, enough),
    )
    # A memory file is no data, and what is executable is none either; but anonymous memory is
    # writable at first.
    assert stats["active"] or (backing == "thp" and "memory limit" in told_causes(stats)), stats


def test_limited_file_size(python, tmp_path):
    stats = same_as_plain(
        python,
        tmp_path,
        env={"PYHUGETEXT_BACKING": "memfd"},
        preexec_fn=limit(resource.RLIMIT_FSIZE, MIB),
    )
    assert not stats["active"]
    assert "ftruncate failed with EFBIG" in told_causes(stats)


@pytest.mark.parametrize("backing", ["auto", "memfd"])
def test_limited_file_size_does_not_kill_where_the_signal_is_not_ignored(python, backing):
    # Python ignores SIGXFSZ, embedding programs need not.
    code = """
        import signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        import pyhugetext
        stats = pyhugetext.remap(backing=sys.argv[1])
        import os
        print(stats.backing, *[r.reason for r in stats.regions if r.coverable_bytes])
    """
    result = python(
        code, backing, env={"PYHUGETEXT": "0"}, check=False,
        preexec_fn=limit(resource.RLIMIT_FSIZE, MIB),
    )  # fmt: skip
    assert result.returncode != -signal.SIGXFSZ, "the program was killed by SIGXFSZ"
    assert (result.returncode, result.stderr) == (0, "")
    assert "EFBIG" in result.stdout or backing == "auto"


def test_limited_descriptors(python):
    for value in range(3, 9):
        results = [
            python(
                "print(6 * 7)",
                env=env,
                check=False,
                preexec_fn=limit(resource.RLIMIT_NOFILE, value),
            )
            for env in ({"PYHUGETEXT": "0"}, {})
        ]
        plain, active = ((r.returncode, r.stdout, r.stderr) for r in results)
        assert active == plain, f"with {value} descriptors"
    assert plain == (0, "42\n", "")


@pytest.mark.parametrize("left", [0, 1, 2])
def test_no_descriptor_left(python, left):
    code = """
        import os, sys
        import pyhugetext, pyhugetext._boot, pyhugetext._stats.collecting
        remap, restore = pyhugetext.remap, pyhugetext.restore
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for _ in range(int(sys.argv[1])):
            os.close(taken.pop())
        stats = remap()
        told = [stats.reason or "", *stats.problems, *(r.reason or "" for r in stats.regions)]
        if stats.mapped_bytes < stats.coverable_bytes or not stats.coverable_bytes:
            assert any("EMFILE" in text for text in told), str(stats)
        restore()
        for descriptor in taken:
            os.close(descriptor)
        assert remap().active and not restore().active
    """
    result = python(
        code,
        str(left),
        env={"PYHUGETEXT": "0"},
        preexec_fn=limit(resource.RLIMIT_NOFILE, 64),
    )
    assert (result.stdout, result.stderr) == ("", "")
