"""First, do no harm, in little memory: what a control group or a limit of the process leaves decides
what is copied, and no program is killed that lives without the package."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

from support.common import HUGE, clean_environment, tool
from support.groups import Group
from support.limits import MIB, NO_STORE, ROOM

# --- real control groups ---


@pytest.fixture
def copies(stats_of) -> int:
    """What a private copy of the interpreter takes where nothing limits it, in bytes."""
    size: int = stats_of(env={**NO_STORE, "PYHUGETEXT_BACKING": "memfd"})["private_bytes"]
    if not size:
        pytest.skip("this interpreter has no private copy here")
    return size


def own_causes(stats: dict[str, Any]) -> str:
    return "\n".join(str(region) for region in stats["regions"] if region["coverable_bytes"])


@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_copy_that_a_group_cannot_carry_is_not_made(stats_of, group, copies, backing):
    group.limit(8 * copies)  # a sixteenth of it does not hold one
    stats = stats_of(env={**NO_STORE, "PYHUGETEXT_BACKING": backing}, preexec_fn=group.enter)
    assert stats["private_bytes"] == 0
    causes = own_causes(stats)
    assert f"memory limit: control group /{group.path.name} may have " in causes
    assert "pyhugetext warm" in causes
    assert group.killed == 0
    group.limit(64 * copies)
    stats = stats_of(env={**NO_STORE, "PYHUGETEXT_BACKING": backing}, preexec_fn=group.enter)
    assert stats["private_bytes"] in (0, copies)
    if backing == "memfd":
        assert stats["private_bytes"] == copies, own_causes(stats)


def test_limit_of_an_upper_group_counts(python, stats_of, group, copies):
    lowest = group.child().child()
    group.limit(8 * copies)
    lowest.limit(1 << 30)
    env = {**NO_STORE, "PYHUGETEXT_BACKING": "memfd"}
    stats = stats_of(env=env, preexec_fn=lowest.enter)
    assert stats["private_bytes"] == 0
    assert "memory limit" in own_causes(stats)
    room = json.loads(python(ROOM, env={"PYHUGETEXT": "0"}, preexec_fn=lowest.enter).stdout)
    assert (room["limit"], room["version"]) == (8 * copies, group.version)
    assert room["group"] == f"/{group.path.name}"
    assert 0 < room["free"] < 8 * copies


def test_group_without_a_limit_changes_nothing(stats_of, group, copies):
    env = {**NO_STORE, "PYHUGETEXT_BACKING": "memfd"}
    assert stats_of(env=env, preexec_fn=group.enter)["private_bytes"] == copies


# Waits until all are there, then becomes a python that copies.
TOGETHER = """
    import os, sys
    os.write(int(sys.argv[1]), b".")
    os.read(int(sys.argv[2]), 1)
    os.environ.pop("PYHUGETEXT")
    code = "import pyhugetext, sys; print(pyhugetext.stats().private_bytes, flush=True); sys.stdin.read()"
    os.execv(sys.executable, [sys.executable, "-c", code])
"""


def copied_at_once(group: Group, processes: int, **env: str) -> list[int]:
    """Starts so many at the same moment; what each copied, while all of them live."""
    ready, go = os.pipe(), os.pipe()
    argv = [sys.executable, "-c", textwrap.dedent(TOGETHER), str(ready[1]), str(go[0])]
    settings = clean_environment(PYHUGETEXT="0", **NO_STORE, **env)
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            argv, env=settings, stdin=pipe, stdout=pipe, text=True, preexec_fn=group.enter,
            pass_fds=(ready[1], go[0]),
        )
        for _ in range(processes)
    ]  # fmt: skip
    try:
        waiting = processes
        while waiting:
            waiting -= len(os.read(ready[0], waiting))
        os.write(go[1], b"g" * processes)
        return [int(p.stdout.readline()) for p in started if p.stdout]
    finally:
        for process in started:
            process.communicate("")
        for fd in (*ready, *go):
            os.close(fd)


@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_processes_that_start_at_once_do_not_take_more_together(group, copies, backing):
    # Half of them would exceed the eighth, each of them is well below its sixteenth.
    size, processes = 32 * copies, 8
    group.limit(size)
    copied = copied_at_once(group, processes, PYHUGETEXT_BACKING=backing)
    assert sum(copied) <= size // 8, copied
    assert sum(copied) >= copies or backing == "thp", copied
    assert group.killed == 0


def test_who_keeps_the_turn_keeps_others_from_copying_only(stats_of, group, copies):
    group.limit(64 * copies)
    env = {**NO_STORE, "PYHUGETEXT_BACKING": "memfd"}
    with open(group.path / "memory.stat") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        stats = stats_of(env=env, preexec_fn=group.enter)
        assert stats["private_bytes"] == 0
        assert "flock failed with EAGAIN" in own_causes(stats)
    assert stats_of(env=env, preexec_fn=group.enter)["private_bytes"] == copies


def test_memory_that_others_have_in_huge_pages_counts(group, copies):
    """Whose it is nobody can tell."""
    size = 64 * copies
    group.limit(size)
    code = f"""
        import mmap, sys
        memory = mmap.mmap(-1, {size // 8 + HUGE})  # shared
        memory.write(b"1" * len(memory))
        print(flush=True)
        sys.stdin.read()
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=pipe,
        stdout=pipe,
        preexec_fn=group.enter,
    ) as other:
        assert other.stdout
        other.stdout.readline()
        assert sum(copied_at_once(group, 1, PYHUGETEXT_BACKING="memfd")) == 0
        other.communicate(b"")
    assert sum(copied_at_once(group, 1, PYHUGETEXT_BACKING="memfd")) == copies


def test_copies_in_shared_memory_take_an_eighth_of_the_limit(python, group):
    code = (
        "from pyhugetext import _native; print(*(_native.shared_allowance(1 << 40, n) for n in {}))"
    )
    present = (0, 100 * MIB)
    run = code.format(present)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    off = {"PYHUGETEXT": "0"}
    free = [int(n) for n in python(run, env=off, preexec_fn=group.enter).stdout.split()]
    assert free == [pytest.approx(machine // 4, rel=0.01)] * 2
    size = 1024 * MIB
    group.limit(size)
    room = json.loads(python(ROOM, env=off, preexec_fn=group.enter).stdout)
    first, more = (int(n) for n in python(run, env=off, preexec_fn=group.enter).stdout.split())
    assert first == pytest.approx(room["free"] // 16, rel=0.05)
    assert more == size // 8


SERVER = """
    import json, os, re
    import pyhugetext

    def application(environ, start_response):
        import numpy
        with open("/proc/self/smaps_rollup") as file:
            pss = int(re.search(r"^Pss: +(\\d+)", file.read(), re.M)[1])
        stats = pyhugetext.stats()
        body = json.dumps([os.getpid(), pss, stats.private_bytes, str(stats)]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""


@pytest.mark.parametrize("backing", ["auto", "memfd", "thp"])
def test_four_lazy_workers_live_in_150_mib(group, tmp_path, backing):
    import importlib.util
    import urllib.request

    for module in ("gunicorn", "numpy"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    env = {**NO_STORE, "PYHUGETEXT_BACKING": backing}
    # In shared memory there is one copy of all; here it is about those that are not shared.
    env["PYHUGETEXT_SHM_LIMIT"] = "0"
    group.limit(150 * MIB)
    (tmp_path / "application.py").write_text(textwrap.dedent(SERVER))
    log = tmp_path / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--workers=4", "--bind=127.0.0.1:0",
             "--no-control-socket", "application"],
            cwd=tmp_path, env=clean_environment(**env), stdout=file, stderr=file,
            preexec_fn=group.enter,
        )  # fmt: skip
    try:
        address = ""
        while not address:
            assert server.poll() is None, log.read_text()
            address = log.read_text().partition("Listening at: ")[2].partition(" ")[0]
            time.sleep(0.05)
        told: dict[int, list[Any]] = {}
        for _ in range(400):
            with urllib.request.urlopen(address, timeout=60) as answer:
                pid, *rest = json.loads(answer.read())
            told[pid] = rest
            if len(told) == 4:
                break
        print("PSS in KiB and private bytes of the workers:", [rest[:2] for rest in told.values()])
        assert len(told) == 4, log.read_text()
        assert group.killed == 0
        assert "SIGKILL" not in log.read_text()
        assert group.copied <= 150 * MIB // 8 + HUGE
    finally:
        server.terminate()
        server.wait(60)


# --- limits of the process ---


@pytest.mark.parametrize(
    ("which", "backing", "limited"),
    [
        (resource.RLIMIT_AS, "memfd", True),
        (resource.RLIMIT_AS, "thp", True),
        (resource.RLIMIT_DATA, "thp", True),
        (resource.RLIMIT_DATA, "memfd", False),  # it is never writable
    ],
    ids=["AS-memfd", "AS-thp", "DATA-thp", "DATA-memfd"],
)
def test_limit_of_the_process_that_leaves_little(stats_of, copies, which, backing, limited):
    code = """
        import pyhugetext, re, resource, sys
        def used(name):
            return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
        which = int(sys.argv[1])
        most = used("VmSize" if which == resource.RLIMIT_AS else "VmData") + int(sys.argv[2])
        resource.setrlimit(which, (most, most))
        pyhugetext.remap(backing=sys.argv[3])
    """
    off = {**NO_STORE, "PYHUGETEXT": "0"}
    stats = stats_of(code, str(int(which)), str(8 * copies), backing, env=off)
    assert ("memory limit" in own_causes(stats)) == limited
    assert (stats["private_bytes"] == 0) == limited
    stats = stats_of(code, str(int(which)), str(32 * copies), backing, env=off)
    assert "memory limit" not in own_causes(stats)


# --- what it costs ---


def test_start_from_the_store_asks_no_control_group(python, stats_of, tmp_path):
    strace = tool("strace")
    stats = stats_of(env={"XDG_CACHE_HOME": str(tmp_path)})
    stats = stats_of(env={"XDG_CACHE_HOME": str(tmp_path)})
    if any(region["backing"] in ("memfd", "thp", "shm") for region in stats["regions"]):
        pytest.skip("there is no store on disk here")
    trace = tmp_path / "trace"
    prefix = (strace, "-f", "-e", "trace=openat,flock,fcntl", "-o", str(trace))
    python("", env={"XDG_CACHE_HOME": str(tmp_path)}, prefix=prefix)
    text = trace.read_text()
    assert "/proc/self/maps" in text
    assert "cgroup" not in text
    assert "flock" not in text
    assert "F_OFD_SETLK" not in text


def test_limit_that_is_set_is_told_by_doctor(python, group):
    group.limit(64 * MIB)
    code = """
        import json
        from pyhugetext.doctor import process
        check = next(c for c in process.checks() if c.name == "cgroup")
        print(json.dumps([check.state, check.text, check.facts]))
    """
    told = python(code, env={"PYHUGETEXT": "0"}, preexec_fn=group.enter).stdout
    state, text, facts = json.loads(told)
    assert state == "limit"
    assert "memory limit 64" in text
    assert facts["memory_limit"] == 64 * MIB
    assert facts["path"] == f"/{group.path.name}"


def test_process_alone_keeps_what_the_setting_says(stats_of, copies):
    """RLIM_INFINITY, and a group without limits."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        pytest.skip("the tests run under RLIMIT_AS")
    env = {**NO_STORE, "PYHUGETEXT_BACKING": "memfd", "PYHUGETEXT_PRIVATE_LIMIT": str(copies)}
    assert stats_of(env=env)["private_bytes"] == copies
    env["PYHUGETEXT_PRIVATE_LIMIT"] = str(copies - 1)
    stats = stats_of(env=env)
    # The most used pages of what does not fit as a whole.
    assert stats["private_bytes"] == (copies - 1) // HUGE * HUGE
    assert "PYHUGETEXT_PRIVATE_LIMIT" in own_causes(stats)
