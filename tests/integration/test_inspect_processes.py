"""Processes to look at that run on, end meanwhile, are none, or are somebody else's; and what is left of
them as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.process import inspect
from support.cli import (
    AS_STRANGER,
    need_for_others,
    need_root,
    need_tool,
)
from support.common import Run, clean_environment
from support.inspecting import assert_agreement, running


def test_nothing_is_stopped_traced_or_written(python: Run) -> None:
    need_tool("strace")
    code = "import sys; from pyhugetext.process import inspect; inspect.inspect(int(sys.argv[1]))"
    with running(PYHUGETEXT="0") as target:
        result = python(
            code,
            str(target.pid),
            prefix=("strace", "-f", "-qq", "-e", "trace=!mmap", "-o", "/dev/stderr"),
            env={"PYHUGETEXT": "0"},
        )
    calls = result.stderr
    assert f"/proc/{target.pid}" in calls
    for forbidden in ("ptrace(", "process_vm", "kill(", "pidfd_", '"mem"', f"{target.pid}/mem"):
        assert forbidden not in calls, forbidden
    opened = [line for line in calls.splitlines() if "openat" in line]
    written = [line for line in opened if "O_RDWR" in line or "O_WRONLY" in line]
    assert opened
    assert written == []


def test_process_that_keeps_running_other_programs() -> None:
    # Each look is of one program, or a sentence; never half of two.
    code = "import os, sys; os.execv(sys.executable, [sys.executable, '-S', *sys.orig_argv[2:]])"
    if sys.version_info < (3, 10):
        pytest.skip("sys.orig_argv is of Python 3.10")
    environ = clean_environment(PYHUGETEXT="0")
    outcomes = set()
    with subprocess.Popen([sys.executable, "-S", "-c", code], env=environ) as process:
        try:
            for _ in range(60):
                try:
                    stats = inspect.inspect(process.pid)
                    paths = [r.path for r in stats.regions]
                    assert any("python" in path for path in paths), paths
                    outcomes.add("seen")
                except inspect.NotInspectable as error:
                    outcomes.add(type(error).__name__)
        finally:
            process.kill()
    assert outcomes


def test_process_that_ends_meanwhile() -> None:
    for _ in range(40):
        with subprocess.Popen(["true"], stdout=subprocess.DEVNULL) as process:
            try:
                told = str(inspect.inspect(process.pid))
            except inspect.NotInspectable as error:
                told = str(error)
            assert "too small" in told or str(process.pid) in told


def test_what_is_no_process_to_look_at() -> None:
    def reason(pid: int) -> str:
        with pytest.raises(inspect.NotInspectable) as caught:
            inspect.inspect(pid)
        return str(caught.value)

    for pid in (0, -1, 1 << 22, 1 << 70):
        assert reason(pid) == f"{pid} is no process id"
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert "zombie" in reason(zombie.pid)
    zombie.wait()
    assert reason(zombie.pid) == f"there is no process {zombie.pid}"
    start = "import threading, time; threading.Thread(target=time.sleep, args=(99,)).start()"
    with running(start, PYHUGETEXT="0") as target:
        (thread,) = [t for t in os.listdir(f"/proc/{target.pid}/task") if t != str(target.pid)]
        assert reason(int(thread)) == f"{thread} is a thread of process {target.pid}"
    if Path("/proc/2/stat").exists() and "(kthreadd)" in Path("/proc/2/stat").read_text():
        expected = "kernel thread" if os.geteuid() == 0 else "process 2 (kthreadd)"
        assert expected in reason(2)


def test_process_of_somebody_else(python: Run) -> None:
    need_root()
    need_tool("setpriv")
    need_for_others(os.path.realpath(sys.executable))
    code = """
        import sys
        from pyhugetext.process import inspect
        try:
            inspect.inspect(int(sys.argv[1]))
        except inspect.NotInspectable as error:
            print(error)
    """
    with running(PYHUGETEXT="0") as target:
        told = python(code, str(target.pid), prefix=AS_STRANGER, env={"PYHUGETEXT": "0"}).stdout
    assert "belongs to user 0; root may read it" in told


def test_process_that_made_itself_undumpable(python: Run) -> None:
    need_root()
    need_tool("setpriv")
    need_for_others(os.path.realpath(sys.executable))
    hide = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)"
    code = "import sys; from pyhugetext.process import inspect; inspect.inspect(int(sys.argv[1]))"
    with running(hide, prefix=AS_STRANGER, PYHUGETEXT="0") as target:
        pid, off = str(target.pid), {"PYHUGETEXT": "0"}
        result = python(code, pid, prefix=AS_STRANGER, env=off, check=False)
        assert "undumpable" in result.stderr.splitlines()[-1]
        assert_agreement(target)


@pytest.mark.parametrize(
    ("left", "words"), [(1, " left as it was;"), (3, " and 2 more left as they were;")]
)
def test_pages_that_were_left_are_counted(left: int, words: str) -> None:
    huge = (0, 0, 0)
    pages = [(i << 21, (i + 1) << 21, i >= left, huge) for i in range(4)]
    raw: Any = {"coverable_bytes": 8 << 20, "pages": pages}
    told = inspect._reason(raw, (4 - left) << 21, 0, 0)
    assert told is not None
    assert told.startswith(f"2 MiB at 0x0{words}")
