"""What looks at a process from outside still sees the truth when its text comes from the store.

Profilers, debuggers and samplers find functions by way of the file that /proc/PID/maps names, and
by the addresses in that file's headers. So each test runs a real tool on a real process.
"""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.attaching import sample_source
from support.common import HUGE, TESTS, clean_environment, tool
from support.desk import (
    FORBIDDEN,
    Desk,
    where_the_tool_works,
)

# Functions of the interpreter that have a name even in a stripped one: of those that run Python
# code in all versions, and of those that take the time of run_in_interpreter in one or another.
OUTER = "PyEval_EvalCode"
HOT = {"_PyEval_EvalFrameDefault", "PyNumber_Remainder", "PyObject_Free", "PyLong_FromLong"}


@pytest.fixture
def desk(tmp_path: Path, compile_library: Callable[..., Path]) -> Iterator[Desk]:
    # Aligned so that tools which compare a mapping's start with a segment's address see the same.
    library = compile_library(sample_source(HUGE), "-g", f"-Wl,-z,max-page-size={HUGE}")
    (tmp_path / "home").mkdir()
    environ = {
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYHUGETEXT_BACKING": "store",
        "DEBUGINFOD_URLS": "",
    }
    yield Desk(tmp_path, library, environ)
    # pytest keeps the directories of its last runs; perf links what it saw into its home.
    for name in ("home", "cache"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)


# --- perf ---


@pytest.fixture
def perf(desk: Desk) -> list[str]:
    """perf, where it can record; by the software clock, for virtual machines have no counters. Its
    cache, into which it links what it saw, goes with the desk."""
    command = [tool("perf"), "--buildid-dir", str(desk.path / "buildids")]
    probe = desk.run(
        *command, "record", "-e", "cpu-clock:u", "-o", "probe.data", "true", check=False
    )
    if probe.returncode:
        pytest.skip(f"perf cannot record here: {(probe.stderr.strip() or '?').splitlines()[0]}")
    return command


def hot_functions(desk: Desk, perf: list[str]) -> dict[str, set[str]]:
    """What `perf report` names, by file; an address stands for a function without a name."""
    command = [*perf, "report", "-i", "perf.data", "--stdio", "--no-children", "-s", "dso,symbol"]
    functions: dict[str, set[str]] = {}
    for line in desk.run(*command).stdout.splitlines():
        match = re.match(r" *[0-9.]+% +(\S+) +\[.\] (\S+)", line)
        if match:
            functions.setdefault(match[1], set()).add(match[2])
    return functions


RECORD = ("record", "-q", "-e", "cpu-clock:u", "-F", "400", "-o", "perf.data")


def check_names(desk: Desk, functions: dict[str, set[str]], interpreter: str) -> None:
    assert HOT & functions[os.path.basename(interpreter)], functions
    assert "sample_inner" in functions[desk.library.name], functions
    assert functions[desk.library.name] <= {"sample_inner", "sample_outer"}


# perf links every file that it saw to its cache, the interpreter too, of which entries then know
# another time of change: those of other tests, while they run.
changes_files = pytest.mark.alone


@changes_files
@where_the_tool_works
def test_perf_attached_later_names_functions(desk: Desk, perf: list[str]) -> None:
    with desk.process() as said:
        desk.run(*perf, *RECORD, "-p", str(said["pid"]), "--", "sleep", "1.5")
        check_names(desk, hot_functions(desk, perf), said["interpreter"]["path"])


@changes_files
@where_the_tool_works
def test_perf_from_the_start_names_functions(desk: Desk, perf: list[str]) -> None:
    with desk.process() as said:
        pass
    desk.run(*perf, *RECORD, "--", "env", *settings(desk), *desk.command("1.5"))
    check_names(desk, hot_functions(desk, perf), said["interpreter"]["path"])


def settings(desk: Desk) -> list[str]:
    """What env(1) takes to start the program under a tool that itself runs without us."""
    environ = {"PYHUGETEXT": "auto", **desk.environ}
    return [f"{name}={value}" for name, value in environ.items()]


@changes_files
def test_text_comes_from_the_store_after_perf_linked_the_copies_into_its_cache(
    desk: Desk, perf: list[str]
) -> None:
    with desk.process() as said:
        desk.run(*perf, *RECORD, "-p", str(said["pid"]), "--", "sleep", "1")
    copies = [p for p in (desk.path / "cache").rglob("objects/*/*") if p.is_file()]
    if all(copy.stat().st_nlink == 1 for copy in copies):
        pytest.skip("this perf keeps no links to the files it saw")
    with desk.process() as said:
        assert said["interpreter"]["backing"] == said["library"]["backing"] == "store"
    assert copies == [p for p in (desk.path / "cache").rglob("objects/*/*") if p.is_file()]


# --- gdb ---


def gdb(desk: Desk, *arguments: str) -> str:
    """What gdb prints, run without any configuration and without questions."""
    command = [tool("gdb"), "-nx", "-batch", "-iex", "set auto-load off", *arguments]
    result = desk.run(*command, check=False)
    output = result.stdout + result.stderr
    if FORBIDDEN.search(result.stderr):
        pytest.skip(f"gdb cannot attach here: {FORBIDDEN.search(result.stderr)[0]}")  # type: ignore[index]
    return output


def check_backtrace(output: str) -> None:
    """From the library's inner function, with its line, to the interpreter's entry."""
    frames = re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\w+) \(.*$", output, re.MULTILINE)
    assert "sample_outer" in frames, output
    assert OUTER in frames, output
    assert re.search(r"in sample_outer \(n=[^)]*\) at \S*libsample\.so\.c:\d+", output), output


@where_the_tool_works
def test_gdb_stops_at_a_breakpoint_in_a_library_and_names_the_frames(desk: Desk) -> None:
    commands = ("break sample_inner", "continue", "backtrace", "delete", "detach")
    with desk.process() as said:
        output = gdb(desk, "-p", str(said["pid"]), *(x for c in commands for x in ("-ex", c)))
        assert re.search(r"Breakpoint 1(\.\d+)?, sample_inner \(n=", output), output
        check_backtrace(output)
        time.sleep(0.2)  # it runs on over the place of the breakpoint


@where_the_tool_works
def test_gdb_stops_at_a_breakpoint_in_the_interpreter(desk: Desk) -> None:
    # What the loop's remainder is, in all versions by way of a table: in none it is inlined.
    commands = ("break PyNumber_Remainder", "continue", "backtrace", "delete", "detach")
    with desk.process() as said:
        output = gdb(desk, "-p", str(said["pid"]), *(x for c in commands for x in ("-ex", c)))
        assert re.search(r"Breakpoint 1(\.\d+)?, (0x[0-9a-f]+ in )?PyNumber_Remainder", output), (
            output
        )
        assert re.search(rf"^#\d+ .*\b{OUTER} \(", output, re.MULTILINE), output
        time.sleep(0.2)


@where_the_tool_works
def test_gdb_finishes_and_steps_in_text_of_the_store(desk: Desk) -> None:
    steps = ("break sample_inner", "continue", "finish", "info symbol $pc", "stepi", "detach")
    with desk.process() as said:
        output = gdb(desk, "-p", str(said["pid"]), *(x for c in steps for x in ("-ex", c)))
        assert "Value returned is $1 = " in output, output
        assert re.search(r"^sample_outer \+ \d+ in section \.text", output, re.MULTILINE), output
        time.sleep(0.2)


@where_the_tool_works
def test_core_file_made_by_gdb_opens_with_its_frames(desk: Desk) -> None:
    commands = ("break sample_inner", "continue", "generate-core-file core.made", "detach")
    with desk.process() as said:
        gdb(desk, "-p", str(said["pid"]), *(x for c in commands for x in ("-ex", c)))
    check_backtrace(gdb(desk, os.path.realpath(sys.executable), "core.made", "-ex", "backtrace"))


@where_the_tool_works
def test_core_file_of_the_kernel_opens_with_its_frames(desk: Desk) -> None:
    tool("gdb")
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|"):
        pytest.skip(f"core files go elsewhere: kernel.core_pattern is {pattern!r}")
    with desk.process("stuck", ends=True) as said:
        try:
            resource.prlimit(said["pid"], resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        except PermissionError:
            pytest.skip("the limit on core files cannot be lifted")
        os.kill(said["pid"], signal.SIGABRT)
        assert said["wait"]() == -signal.SIGABRT
    (core,) = desk.path.glob("core*")
    output = gdb(desk, os.path.realpath(sys.executable), core.name, "-ex", "backtrace")
    assert "Program terminated with signal SIGABRT" in output, output
    check_backtrace(output)


# --- py-spy ---


@where_the_tool_works
def test_py_spy_dump_shows_the_stack(desk: Desk) -> None:
    skip_where_py_spy_takes_the_wrong_file()
    with desk.process("stuck") as said:
        output = desk.run(tool("py-spy"), "dump", "--pid", str(said["pid"])).stdout
    assert re.search(r"main \(\S*tools\.py:\d+\)", output), output


@where_the_tool_works
def test_py_spy_dump_names_native_functions(desk: Desk) -> None:
    skip_where_py_spy_takes_the_wrong_file()
    with desk.process("stuck") as said:
        result = desk.run(
            tool("py-spy"), "dump", "--native", "--pid", str(said["pid"]), check=False
        )
        if "native" in result.stderr and result.returncode:
            pytest.skip(f"this py-spy cannot unwind: {result.stderr.strip().splitlines()[-1]}")
    frames = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("    ")]
    assert frames[:2] == ["sample_inner", "sample_outer"], result.stdout


@where_the_tool_works
def test_py_spy_record_finds_the_functions(desk: Desk) -> None:
    skip_where_py_spy_takes_the_wrong_file()
    options = ("--duration", "2", "--rate", "50", "--format", "raw", "--output", "spy.txt")
    with desk.process() as said:
        desk.run(tool("py-spy"), "record", *options, "--pid", str(said["pid"]))
    stacks = (desk.path / "spy.txt").read_text()
    assert re.search(r"main \S+;run_in_turns \S+;run_in_interpreter ", stacks), stacks


def skip_where_py_spy_takes_the_wrong_file() -> None:
    """py-spy 0.4 looks for an executable mapping under the executable's own name; where it finds
    none it takes the first mapping for one, which is right for fixed addresses only."""
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return
    with open(sys.executable, "rb") as file:
        kind = file.read(18)[16]
    if kind != 2:  # ET_EXEC
        pytest.skip("py-spy finds a position-independent executable by its own name only")


# --- memray, faulthandler, sys.remote_exec ---


@where_the_tool_works
def test_memray_attaches_and_records_allocations(desk: Desk) -> None:
    memray = [sys.executable, "-m", "memray"]
    if importlib.util.find_spec("memray") is None:
        pytest.skip("memray is not installed")
    if sys.version_info < (3, 14) and not (shutil.which("gdb") or shutil.which("lldb")):
        pytest.skip("memray attaches by gdb or lldb, and neither is installed")
    recording = desk.path / "memray.bin"
    with desk.process() as said:
        attach = ("attach", "-o", str(recording), "--duration", "1", str(said["pid"]))
        desk.run(*memray, *attach)
        deadline = time.monotonic() + 20
        report = ""
        while "allocate" not in report and time.monotonic() < deadline:
            time.sleep(0.5)
            report = desk.run(*memray, "summary", "memray.bin", check=False).stdout
    assert "allocate" in report, report


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV"])
def test_faulthandler_shows_the_stack(desk: Desk, name: str) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import faulthandler, os\n"
        "import pyhugetext; from support import tools; call = tools.load(sys.argv[2])\n"
        "assert pyhugetext.remap().active\n"
        "faulthandler.enable()\n"
        "def inner(): call(1000); os.kill(os.getpid(), int(sys.argv[3]))\n"
        "def outer(): inner()\n"
        "outer()\n"
    )
    number = getattr(signal, name)
    arguments = (str(TESTS), str(desk.library), str(int(number)))
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=clean_environment(**desk.environ),
        cwd=desk.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == -number, process.stderr
    assert "Fatal Python error: " in process.stderr
    assert re.search(r"in inner\n.* in outer\n.* in <module>", process.stderr), process.stderr


@where_the_tool_works
@pytest.mark.skipif(not hasattr(sys, "remote_exec"), reason="sys.remote_exec is new in Python 3.14")
def test_remote_exec_runs_a_script_in_the_process(desk: Desk) -> None:
    script = desk.path / "script.py"
    script.write_text("import os; open('told', 'w').write(str(os.getpid()))\n")
    code = "import sys; sys.remote_exec(int(sys.argv[1]), sys.argv[2])"
    told = desk.path / "told"
    with desk.process() as said:
        desk.run(sys.executable, "-c", code, str(said["pid"]), str(script))
        deadline = time.monotonic() + 20
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert told.read_text() == str(said["pid"])
