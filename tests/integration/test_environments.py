"""The places Python is started in: nothing is printed, nothing fails, and where it can be the
text is on huge pages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import own_shared_memory
from support.common import big_source, clean_environment
from support.harm import extension_compiler, installed_files, site_packages
from support.store import require_huge_disk

# Few and long functions: quick to compile.
BIG = big_source(160, padding=20000) + "\nint result(void) { return (int)f_sum(3); }"
STATS = "import json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"


@pytest.fixture
def compile_extension(compile_library: Callable[..., Path]) -> Callable[..., Path]:
    return extension_compiler(compile_library)


@pytest.fixture(scope="session")
def package_files() -> list[Path]:
    return installed_files()


@pytest.fixture
def make_venv(tmp_path: Path, package_files: list[Path]) -> Callable[..., Path]:
    """Makes a virtual environment with the package and returns its python: `make_venv(name,
    with_hook=True, with_package=True, options=())`."""

    def make(
        name: str = "env",
        with_hook: bool = True,
        with_package: bool = True,
        options: tuple[str, ...] = (),
    ) -> Path:
        place = tmp_path / name
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", *options, str(place)],
            check=True,
            env=clean_environment(PYHUGETEXT="0"),
        )
        for file in package_files:
            if with_package if file.is_dir() else with_hook:
                (site_packages(place) / file.name).symlink_to(file)
        return place / "bin" / "python"

    return make


def last_line(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(text.splitlines()[-1])
    return parsed


def assert_interpreter_is_huge(stats: dict[str, Any]) -> None:
    assert stats["active"], stats
    main = max(stats["regions"], key=lambda region: region["coverable_bytes"])
    assert main["status"] == "huge", main


# --- options, directories, environment variables ---


@pytest.mark.parametrize("flag", ["-I", "-E", "-s", "-B", "-O", "-W error", "-X dev", "-u"])
def test_options_of_python(stats_of, flag):
    assert_interpreter_is_huge(stats_of(flags=tuple(flag.split())))


@pytest.mark.parametrize("flag", ["-I", "-E"])
def test_isolation_from_the_environment_leaves_our_switch(stats_of, flag):
    stats = stats_of(flags=(flag,), env={"PYHUGETEXT": "0"})
    assert stats["reason"] == "turned off by PYHUGETEXT=0"


def test_without_site_nothing_is_started_but_can_be_asked_for(python, package_files):
    code = """
        import sys
        assert not any(name.startswith("pyhugetext") for name in sys.modules)
        sys.path.append(sys.argv[1])
        import pyhugetext
        stats = pyhugetext.stats()
        assert not stats.active and "python -S" in stats.reason, stats.reason
        assert pyhugetext.remap().active
    """
    result = python(code, str(package_files[0].parent), flags=("-S",))
    assert (result.stdout, result.stderr) == ("", "")


def test_empty_environment(stats_of):
    # A slow machine makes the rest at the next start.
    stats = stats_of(prefix=(*own_shared_memory(), "env", "-i"))
    assert stats["active"], stats
    assert stats["private_bytes"] == 0


@pytest.mark.parametrize("home", ["/nonexistent", "/proc", ""])
def test_home_that_cannot_be_written(stats_of, home):
    env = {"HOME": home, "XDG_CACHE_HOME": home}
    assert_interpreter_is_huge(stats_of(env=env, prefix=own_shared_memory()))


@pytest.mark.parametrize("place", ["/proc", "removed"])
def test_working_directory_that_cannot_be_written(python, tmp_path, place):
    if place == "removed":
        gone = tmp_path / "gone"
        gone.mkdir()
        prefix = ("sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(gone))
    else:
        prefix = ("sh", "-c", 'cd "$0" && exec "$@"', place)
    # Without -c's "" on sys.path, which python itself complains of there.
    result = python(STATS, prefix=prefix, flags=("-I",))
    assert result.stderr == ""
    assert_interpreter_is_huge(last_line(result.stdout))


def test_zipapp(python, tmp_path):
    source = tmp_path / "app"
    source.mkdir()
    (source / "__main__.py").write_text(f"print('in a zip')\n{STATS}\n")
    archive = tmp_path / "app.pyz"
    python("import zipapp, sys; zipapp.create_archive(*sys.argv[1:])", str(source), str(archive))
    result = subprocess.run(
        [sys.executable, str(archive)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout.splitlines()[0], result.stderr) == ("in a zip", "")
    assert_interpreter_is_huge(last_line(result.stdout))


@pytest.mark.parametrize("debug", ["0", "1"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(python, tmp_path, closed, debug):
    told = tmp_path / "stats.json"
    code = """
        import json, os, sys
        data = json.dumps(__import__("pyhugetext").stats().as_dict())
        with open(sys.argv[1], "w") as file:
            file.write(data)
        os._exit(7)
    """
    prefix = ("sh", "-c", f'exec "$0" "$@" {closed}')
    result = python(code, str(told), prefix=prefix, check=False, env={"PYHUGETEXT_DEBUG": debug})
    assert (result.returncode, result.stdout) == (7, "")
    assert debug == "1" or result.stderr == ""
    assert_interpreter_is_huge(json.loads(told.read_text()))


# --- virtual environments, and what is left of an installation ---


def test_hook_that_runs_twice_does_its_work_once(python, make_venv):
    outer = make_venv("outer")
    inner = make_venv("inner", options=("--system-site-packages",))
    again = f"import site; site.addsitedir({str(site_packages(outer.parent.parent))!r})\n"
    (site_packages(inner.parent.parent) / "zz_again.pth").write_text(again)
    for executable in (outer, inner):
        debug = {"PYHUGETEXT_DEBUG": "1"}
        result = python(STATS, executable=str(executable), env=debug)
        stats = last_line(result.stdout)
        assert_interpreter_is_huge(stats)
        main = max(stats["regions"], key=lambda region: region["coverable_bytes"])
        lines = [line for line in result.stderr.splitlines() if main["path"] in line]
        assert len(lines) == 1, result.stderr
        assert python("", executable=str(executable)).stderr == ""


@pytest.mark.parametrize(
    "left", ["nothing", "empty", "broken", "no native part", "foreign native part"]
)
def test_rest_of_a_removed_or_broken_package_is_silent(python, make_venv, package_files, left):
    if sys.version_info >= (3, 15) and "native" not in left:
        pytest.skip("site itself tells of a .start file whose callable it cannot find")
    executable = make_venv(with_package=False)
    package = site_packages(executable.parent.parent) / "pyhugetext"
    if left == "empty":
        package.mkdir()
    elif left == "broken":
        package.mkdir()
        (package / "__init__.py").write_text("def _start(:")
    elif left != "nothing":
        unwanted = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(package_files[0], package, ignore=unwanted)
        if left == "foreign native part":
            for name in ("_boot", "_native"):
                (package / (name + sysconfig.get_config_var("EXT_SUFFIX"))).write_bytes(b"\0" * 99)
    result = python("print('still here')", executable=str(executable))
    assert (result.stdout, result.stderr) == ("still here\n", "")
    if "native" in left:
        stats = last_line(python(STATS, executable=str(executable)).stdout)
        assert not stats["active"]
        assert stats["reason"].startswith("no native part")


def test_binding_of_another_version_is_not_used(python):
    code = """
        import ctypes, pyhugetext._boot as boot
        new = ctypes.pythonapi.PyCapsule_New
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        new.restype = ctypes.py_object
        name = b"pyhugetext._boot.engine of 0.0.1"
        boot.engine = new(1, name, None)
        import pyhugetext
        stats = pyhugetext.remap()
        print(stats.active, stats.reason)
    """
    result = python(code, env={"PYHUGETEXT": "0"})
    assert result.stdout.startswith("False no native part")
    assert result.stderr == ""


def test_pth_line_works_wherever_it_is_run(python, package_files):
    """site has the directory in a variable; whoever else runs the line need not."""
    line = next(file for file in package_files if file.suffix == ".pth").read_text()
    code = """
        import sys
        exec(sys.argv[1])
        import pyhugetext
        print(pyhugetext.stats().active)
    """
    env = {"PYTHONPATH": str(package_files[0].parent)}
    result = python(code, line, flags=("-S",), env=env)
    assert (result.stdout, result.stderr) == ("True\n", "")


def test_start_may_be_called_again(python):
    code = """
        import pyhugetext
        from pyhugetext import _start as start
        before = pyhugetext.stats()
        start(); start()
        after = pyhugetext.stats()
        assert before.active and after.elapsed_ns == before.elapsed_ns
        import importlib.machinery
        create = importlib.machinery.ExtensionFileLoader.create_module
        start()
        assert importlib.machinery.ExtensionFileLoader.create_module == create
    """
    result = python(code)
    assert (result.stdout, result.stderr) == ("", "")


# --- processes and interpreters ---


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(python, tmp_path, method):
    program = tmp_path / "program.py"
    program.write_text(
        "import json, multiprocessing, sys, pyhugetext\n"
        "def tell(_):\n"
        "    return pyhugetext.stats().as_dict()\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context(sys.argv[1])\n"
        "    with context.Pool(2) as pool:\n"
        "        children = pool.map(tell, range(4))\n"
        "    print(json.dumps([tell(0), *children]))\n"
    )
    result = subprocess.run(
        [sys.executable, str(program), method],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert result.stderr == ""
    parent, *children = json.loads(result.stdout)
    for child in children:
        assert_interpreter_is_huge(child)
        if method == "fork":
            assert child["regions"][0]["elapsed_ns"] == parent["regions"][0]["elapsed_ns"]


def test_forked_child_inherits_and_does_not_repeat(python, compile_extension):
    module = compile_extension("late", BIG)
    code = """
        import json, os, sys, pyhugetext
        sys.path.insert(0, sys.argv[1])
        before = pyhugetext.stats()
        pid = os.fork()
        if pid == 0:
            inherited = pyhugetext.stats()
            assert inherited.elapsed_ns == before.elapsed_ns
            assert inherited.huge_bytes == before.huge_bytes > 0
            import late  # the child goes on looking
            late.result()
            region = [r for r in pyhugetext.stats().regions if "late" in r.path][0]
            os._exit(5 if region.status == "huge" else 6)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
        assert pyhugetext.stats().elapsed_ns == before.elapsed_ns
        os.execv(sys.executable, [sys.executable, "-c", "import pyhugetext\\n"
                 "assert pyhugetext.stats().active; print('its own')"])
    """
    result = python(code, str(module.parent))
    assert (result.stdout, result.stderr) == ("its own\n", "")


RUN = """
import sys
import pyhugetext

try:
    import _interpreters as api
except ImportError:
    import _xxsubinterpreters as api

def run(code, isolated):
    if hasattr(api, "new_config"):
        identity = api.create("isolated" if isolated else "legacy")
    else:
        identity = api.create(isolated=isolated)
    problem = api.run_string(identity, code)
    assert problem is None, problem
    api.destroy(identity)

before = pyhugetext.stats()
isolated, path = sys.argv[1] == "True", sys.argv[2]
"""
IN_SUBINTERPRETER = """
import sys
assert "pyhugetext._boot" in sys.modules  # its own hook ran
import pyhugetext
stats = pyhugetext.stats()
if sys.version_info >= (3, 12):
    assert stats.active and stats.elapsed_ns == {elapsed}, stats
else:
    assert "main interpreter" in stats.reason, stats.reason
if {number}:
    for function in (pyhugetext.remap, pyhugetext.restore):
        problem = function().problems[-1]
        assert function.__name__ in problem and "main interpreter" in problem, problem
"""


@pytest.mark.parametrize("isolated", [False, True], ids=["shared GIL", "own GIL"])
def test_subinterpreters(python, compile_extension, isolated):
    if isolated and sys.version_info < (3, 12):
        pytest.skip("interpreters have a GIL of their own since Python 3.12")
    module = compile_extension("late", BIG)
    code = f"""{RUN}
for number in range(3):
    run({IN_SUBINTERPRETER!r}.format(elapsed=before.elapsed_ns, number=number), isolated)
after = pyhugetext.stats()
assert after.mapped_bytes == before.mapped_bytes > 0 and not after.problems
run(f"import sys; sys.path.insert(0, {{path!r}}); import late; late.result()", isolated)
region = [r for r in pyhugetext.stats().regions if "late" in r.path]
assert region[0].status == "huge", region
print("done")
"""
    result = python(code, str(isolated), str(module.parent), timeout=30)
    assert (result.stdout, result.stderr) == ("done\n", "")


# In a child: a lock on its own store, as another process has it that builds. `wait_for_builder`
# returns once a thread of this one wants it, with BUILD=always; `let_go` gives it back.
LOCKED = """
import fcntl, os, struct, sys, threading, time
lock_path = os.path.join(os.environ["PYHUGETEXT_STORE"], "v1", "lock")
lock = os.open(lock_path, os.O_RDWR)
def set_lock(kind):
    whole = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, whole)
def let_go():
    set_lock(fcntl.F_UNLCK)
def wait_for_builder():
    for _ in range(6000):
        names = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                names.append(os.readlink("/proc/self/fd/" + fd))
            except OSError:
                pass
        if names.count(lock_path) > 1:
            return
        time.sleep(0.01)
    raise AssertionError("nobody builds")
set_lock(fcntl.F_WRLCK)
"""


@pytest.fixture
def always(python, tmp_path):
    """Settings for a store that has the interpreter's entry, and waits of any length."""
    require_huge_disk(tmp_path)
    env = {
        "PYHUGETEXT_BUILD": "always",
        "PYHUGETEXT_BACKING": "store",
        "PYHUGETEXT_STORE": str(tmp_path / "store"),
    }
    python("", env=env)
    return env


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "Timeout", "SystemExit"])
@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_what_a_signal_handler_raises_reaches_the_program(
    python, compile_extension, always, raised, before
):
    # The signal comes while an entry of the library just imported is to be built, or of one that
    # was loaded before the import. It is not remembered as impossible.
    module = compile_extension("sampled", BIG)
    compile_extension("small", "int result(void) { return 1; }")
    code = f"""
        import ctypes, glob, signal
{textwrap.indent(LOCKED, " " * 8)}
        class Timeout(Exception): pass
        def handle(*_): raise dict(Timeout=Timeout, SystemExit=SystemExit,
                                   KeyboardInterrupt=KeyboardInterrupt)[sys.argv[2]]
        signal.signal(signal.SIGUSR1, handle)
        sys.path.insert(0, sys.argv[1])
        main = threading.main_thread().ident
        def interrupt():
            wait_for_builder()
            signal.pthread_kill(main, signal.SIGUSR1)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            if sys.argv[3] == "True":
                library = ctypes.CDLL(glob.glob(sys.argv[1] + "/sampled*.so")[0])
                import small
            else:
                import sampled
            print("imported")
        except BaseException as error:
            print(type(error).__name__)
        thread.join()
        let_go()
        import pyhugetext
        print(*[r.backing for r in pyhugetext.remap().regions if "sampled" in r.path])
    """
    arguments = (str(module.parent), raised, str(before))
    result = python(code, *arguments, env=always)
    assert (result.stdout, result.stderr) == (f"{raised}\nstore\n", "")


def test_what_is_found_while_an_entry_is_built(python, compile_extension, always):
    # An import of another thread finds a library of its own: whoever builds holds the store's
    # lock, for which it must not wait; and builds what was found meanwhile.
    modules = [compile_extension(name, BIG) for name in ("one", "two")]
    compile_extension("small", "int result(void) { return 1; }")
    code = f"""
        import ctypes
{textwrap.indent(LOCKED, " " * 8)}
        import pyhugetext
        sys.path[:0] = sys.argv[2:]
        libraries = []
        def meanwhile():
            wait_for_builder()
            libraries.append(ctypes.CDLL(sys.argv[1]))
            import small
            let_go()
        thread = threading.Thread(target=meanwhile)
        thread.start()
        import one
        assert len(libraries) == 1
        backings = [r.backing for r in pyhugetext.stats().regions
                    if "one." in r.path or "two." in r.path]
        assert backings == ["store", "store"], backings
    """
    places = [str(module.parent) for module in modules]
    result = python(code, str(modules[1]), *places, env=always, timeout=60)
    assert (result.stdout, result.stderr) == ("", "")


def test_remap_waits_for_what_another_thread_builds(python, compile_extension, always):
    module = compile_extension("one", BIG)
    code = f"""
{textwrap.indent(LOCKED, " " * 8)}
        import pyhugetext
        pyhugetext.stats()  # nothing is at its first import when another thread forks
        sys.path.insert(0, sys.argv[1])
        told, begun = [], threading.Event()
        def remap():
            begun.set()
            told.extend(pyhugetext.remap().regions)
        def meanwhile():
            wait_for_builder()
            thread.start()
            begun.wait()
            time.sleep(0.1)
            # A child made meanwhile builds for itself.
            child = os.fork()
            if child == 0:
                [region] = [r for r in pyhugetext.remap().regions if "one." in r.path]
                os._exit(region.status != "huge")
            let_go()
            status.append(os.waitpid(child, 0)[1])
        status, thread = [], threading.Thread(target=remap)
        other = threading.Thread(target=meanwhile)
        other.start()
        import one
        other.join()
        thread.join()
        [region] = [r for r in told if "one." in r.path]
        assert region.backing == "store", region
        assert status == [0], status
    """
    result = python(code, str(module.parent), env=always, flags=("-Wignore",), timeout=60)
    assert (result.stdout, result.stderr) == ("", "")


def test_threads_that_import_at_once(python, compile_extension):
    directory = ""
    for i in range(4):
        source = (
            big_source(160, tag=f"f{i}", padding=20000)
            + f"\nint result(void) {{ return f{i}_7(5); }}"
        )
        directory = str(compile_extension(f"late{i}", source).parent)
    code = """
        import importlib, sys, threading
        sys.path.insert(0, sys.argv[1])
        barrier, results = threading.Barrier(4), []
        def work(i):
            barrier.wait()
            results.append(importlib.import_module(f"late{i}").result())
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        import pyhugetext
        late = [r for r in pyhugetext.stats().regions if "/late" in r.path and r.coverable_bytes]
        assert len(late) == 4, late
        print(results, {r.status for r in late})
    """
    for _ in range(3):
        result = python(code, directory)
        assert (result.stdout, result.stderr) == ("[22, 22, 22, 22] {'huge'}\n", "")


EMBEDDING = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
int main(int argc, char **argv) {
  for (int i = 0; i < 3; ++i) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    PyConfig_SetBytesString(&config, &config.program_name, argv[1]);
    if (PyStatus_Exception(Py_InitializeFromConfig(&config))) return 2;
    PyConfig_Clear(&config);
    if (PyRun_SimpleString(argv[2])) return 3;
    if (Py_FinalizeEx() < 0) return 4;
  }
  return 0;
}
"""


def test_embedded_python_finalized_and_started_again(tmp_path):
    variables = sysconfig.get_config_vars()
    source, program = tmp_path / "host.c", tmp_path / "host"
    source.write_text(EMBEDDING)
    directory, version = variables["LIBDIR"], variables["LDVERSION"]
    command = [
        *("cc", f"-I{sysconfig.get_path('include')}", str(source), "-o", str(program)),
        *(f"-L{directory}", f"-Wl,-rpath,{directory}", f"-L{variables.get('LIBPL', directory)}"),
        *(f"-lpython{version}", "-lm", "-ldl", "-lpthread", "-lutil", "-rdynamic"),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no program can be linked with this Python: {error}")
    result = subprocess.run(
        [str(program), sys.executable, STATS],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'pyhugetext'" in result.stderr:
        pytest.skip("an embedding program does not find the virtual environment by its name here")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert_interpreter_is_huge(json.loads(lines[-1]))
