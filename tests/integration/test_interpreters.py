"""Interpreters of one process and children of it: multiprocessing, fork, subinterpreters, Python that a
program embeds."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig

import pytest

from support.common import assert_interpreter_is_huge, clean_environment
from support.extensions import BIG

STATS = "import json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"


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
