"""Breakpoints and probes stay where they are and keep working; tools still read what is there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.common import HUGE, Run, clean_environment
from support.gdb import working_gdb
from support.layouts import PRELUDE, skip_unless_huge
from support.probed import BACKINGS, LIBRARY, check_left_small, page_of, probed_library

OFF = {"PYHUGETEXT": "0"}

# gdb prints this at each stop at the place and goes on.
COUNTED = """
commands
silent
printf "HIT\\n"
continue
end
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probed_library(tmp_path_factory.mktemp("debuggers"))


@pytest.fixture
def gdb(tmp_path: Path) -> Callable[..., tuple[str, Any]]:
    """Runs child code under a gdb script; returns what gdb printed, and the child's record, which
    the code gives to `done()`."""
    program = working_gdb()

    def gdb(script: str, code: str, *arguments: str, env: dict[str, str]) -> tuple[str, Any]:
        script_file, record = tmp_path / "script.gdb", tmp_path / "record"
        script_file.write_text("set breakpoint pending on\nset confirm off\n" + script)
        ending = f"""
def done(value):
    with open({str(record)!r}, "w") as file:
        json.dump(value, file)
"""
        command = [sys.executable, "-c", PRELUDE + ending + textwrap.dedent(code), *arguments]
        result = subprocess.run(
            [program, "-nx", "-batch", "-x", str(script_file), "--args", *command],
            env=clean_environment(DEBUGINFOD_URLS="", **env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = result.stdout + result.stderr
        if "Operation not permitted" in output:
            pytest.skip("this user may not trace processes")
        assert record.exists(), output
        return output, json.loads(record.read_text())

    return gdb


@pytest.mark.parametrize("backing", BACKINGS)
def test_breakpoint_set_before_remap_stays_and_hits(gdb, library, backing):
    skip_unless_huge(backing)
    code = (
        LIBRARY
        + f"""
import pyhugetext
call()
remapped = h.region(pyhugetext.remap(backing={backing!r}, include=path), path)
call()
restored = h.region(pyhugetext.restore(), path)
call()
again = h.region(pyhugetext.remap(backing={backing!r}, include=path), path)
call()
done([target, remapped, restored, again])
print("lives")
"""
    )
    output, record = gdb(f"break f_5\n{COUNTED}\nrun\n", code, str(library), env=OFF)
    target, remapped, restored, again = record
    assert output.count("HIT\n") == 4, output
    assert "lives" in output
    assert "exited normally" in output
    for region in (remapped, again):
        check_left_small(region, target)
        assert region["status"] == "partial"
        assert region["mapped_bytes"] > 0
    assert restored["mapped_bytes"] == 0


def test_breakpoint_in_the_interpreter_before_activation(gdb):
    skip_unless_huge("memfd")
    code = """
        import pyhugetext
        target = ctypes.cast(ctypes.pythonapi.Py_GetCompiler, ctypes.c_void_p).value
        ctypes.pythonapi.Py_GetCompiler.restype = ctypes.c_char_p
        assert ctypes.pythonapi.Py_GetCompiler()
        stats = pyhugetext.stats().as_dict()
        # From 3.15 on Python tells gdb of its JIT, and gdb has a breakpoint of its own there.
        told = getattr(ctypes.pythonapi, "__jit_debug_register_code", None)
        targets = [target] + ([ctypes.cast(told, ctypes.c_void_p).value] if told else [])
        [name, *names] = [line[5] for t in targets for line in h.maps() if line[0] <= t < line[1]]
        assert ctypes.pythonapi.Py_GetCompiler()
        done([[target] + [t for t, n in zip(targets[1:], names) if n == name], name,
              stats["regions"]])
        print("lives")
    """
    script = f"break Py_GetCompiler\n{COUNTED}\nrun\n"
    output, (targets, name, regions) = gdb(script, code, "-", env={"PYHUGETEXT_BACKING": "memfd"})
    assert "lives" in output
    assert "exited normally" in output
    assert output.count("HIT\n") >= 2, output
    # Those pages are still mapped from the file, so their name in maps is the region's.
    [region] = [r for r in regions if r["path"] == name]
    if region["coverable_bytes"] == 0:
        pytest.skip(f"nothing of {name} can be covered")
    check_left_small(region, *targets)


def planted(gdb: Callable[..., Any], library: Path, backing: str, code: str) -> tuple[str, Any]:
    """Runs code once gdb has planted a breakpoint in the remapped text; `before` is its region."""
    first = f"""
import pyhugetext, signal
before = h.region(pyhugetext.remap(backing={backing!r}, include=path), path)
os.kill(os.getpid(), signal.SIGUSR1)  # gdb plants it now
"""
    script = f"handle SIGUSR1 stop nopass\nrun\nbreak f_5\n{COUNTED}\ncontinue\n"
    told: tuple[str, Any] = gdb(script, LIBRARY + first + code, str(library), env=OFF)
    return told


@pytest.mark.parametrize("backing", BACKINGS)
def test_breakpoint_planted_after_remap_survives_restore(gdb, library, backing):
    skip_unless_huge(backing)
    code = """
call()
restored = h.region(pyhugetext.restore(), path)
call()
done([target, before, restored, all_right()])
print("lives")
"""
    output, (target, before, restored, right) = planted(gdb, library, backing, code)
    assert "lives" in output
    assert "exited normally" in output
    assert output.count("HIT\n") == 2 + 2, output  # and two by all_right()
    assert before["mapped_bytes"] == before["coverable_bytes"] > HUGE
    assert right
    assert f"2 MiB at {page_of(target):#x}: modified in memory" in restored["reason"]
    assert restored["backing"] == backing
    assert 0 < restored["mapped_bytes"] <= HUGE


@pytest.mark.parametrize("backing", BACKINGS)
def test_remap_covers_again_what_a_breakpoint_let_be_restored(gdb, library, backing):
    skip_unless_huge(backing)
    code = f"""
pyhugetext.restore()
again = h.region(pyhugetext.remap(backing={backing!r}, include=path), path)
call()
done([before, again, all_right()])
"""
    output, (before, again, right) = planted(gdb, library, backing, code)
    assert right
    assert output.count("HIT\n") == 1 + 2, output
    assert again["mapped_bytes"] == before["mapped_bytes"] > HUGE


def test_gdb_names_the_functions_of_a_remapped_process(gdb, library):
    skip_unless_huge("memfd")
    code = (
        LIBRARY
        + """
import pyhugetext, signal
stats = pyhugetext.remap()
done([stats.mapped_bytes, h.region(stats, path)["mapped_bytes"]])
library.outer(int(signal.SIGABRT))
"""
    )
    output, (total, mapped) = gdb(
        "run\nbacktrace\n", code, str(library), env={"PYHUGETEXT_BACKING": "memfd"}
    )
    assert total >= mapped > 0
    assert re.search(r" in inner \(.*\n#\d+ .* in outer \(", output), output
    assert re.search(r" in _?Py\w+ \(", output), output


def test_gdb_attaches_to_a_remapped_process(library, tmp_path):
    skip_unless_huge("memfd")
    program = working_gdb()
    code = (
        PRELUDE
        + LIBRARY
        + """
import pyhugetext
assert h.region(pyhugetext.remap(), path)["mapped_bytes"] > 0
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_long(-1))  # PR_SET_PTRACER, for Yama
print("ready", flush=True)
library.outer(0)
"""
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(library)],
        env=clean_environment(PYHUGETEXT_BACKING="memfd"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        result = subprocess.run(
            [program, "-nx", "-batch", "-p", str(child.pid), "-ex", "backtrace"],
            env=clean_environment(DEBUGINFOD_URLS=""),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()
    if "Operation not permitted" in result.stderr:
        pytest.skip("this user may not trace processes")
    assert re.search(r" in inner \(", result.stdout), result.stdout + result.stderr
    assert re.search(r" in _?Py\w+ \(", result.stdout), result.stdout + result.stderr


def test_faulthandler_tells_where_it_was(python: Run) -> None:
    code = """
        import ctypes, faulthandler, pyhugetext, sys
        assert pyhugetext.stats().active
        def innermost():
            faulthandler.dump_traceback()
            ctypes.string_at(0)
        faulthandler.enable()
        innermost()
    """
    skip_unless_huge("memfd")
    result = python(code, env={"PYHUGETEXT_BACKING": "memfd"}, check=False)
    assert result.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in result.stderr
    assert result.stderr.count(" in innermost\n") == 2, result.stderr
