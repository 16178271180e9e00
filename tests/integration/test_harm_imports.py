"""First, do no harm: what the hook does beside an import, under filters that were set after the
start and beside threads that hold the dynamic linker's lock."""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import harm
from support.common import TESTS, Run, big_source
from support.extensions import extension_compiler
from support.filters import needs_filters
from support.once import library_compiler

# Allows what plain Python needs to import a module, and kills for anything else.
ALLOW_LIST = """
import ctypes, os, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from support import harm as h
if h._X86_64:
    numbers = dict(read=0, write=1, open=2, close=3, stat=4, fstat=5, lstat=6, lseek=8, mmap=9,
                   mprotect=10, munmap=11, brk=12, futex=202, getdents64=217, exit_group=231,
                   openat=257, newfstatat=262)
else:
    numbers = dict(read=63, write=64, close=57, fstat=80, lseek=62, mmap=222, mprotect=226,
                   munmap=215, brk=214, futex=98, getdents64=61, exit_group=94, openat=56,
                   newfstatat=79)
rules = [i for n in numbers.values() for i in
         [(h._LOAD, 0, 0, h._NR), (h._EQUAL, 0, 1, n), (h._RETURN, 0, 0, h._ALLOW)]]
h.install([*rules, (h._RETURN, 0, 0, 0x80000000)])  # SECCOMP_RET_KILL_PROCESS
"""

SMALL = "int result(void) { return 7; }"
LARGE = big_source(400, padding=16_000) + "int result(void) { return f_7(0); }"


@pytest.fixture(scope="module")
def two_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the extension modules `small_one` and `large_one`; both results are 7."""
    compile_ = extension_compiler(library_compiler(tmp_path_factory.mktemp("modules")))
    compile_("small_one", SMALL)
    return compile_("large_one", LARGE).parent


@needs_filters
@pytest.mark.parametrize("module", ["small_one", "large_one"])
@pytest.mark.parametrize("setting", ["0", "1"])
def test_import_under_an_allow_list_that_fits_plain_python(
    python: Run, two_modules: Path, module: str, setting: str
) -> None:
    code = f"{ALLOW_LIST}\nimport {module}\nos.write(1, b'%d' % {module}.result()); os._exit(0)"
    env = {"PYHUGETEXT": setting, "PYHUGETEXT_BUILD": "never"}
    result = python(code, str(TESTS), str(two_modules), env=env, check=False)
    assert result.returncode != -signal.SIGSYS
    assert (result.returncode, result.stdout, result.stderr) == (0, "7", "")


LOOK = """
import json, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import pyhugetext, pyhugetext._stats.collecting
from support import harm as h

def covered():
    stats = pyhugetext.stats()
    [region] = [r for r in stats.regions if "large_one" in r.path]
    return [region.mapped_bytes > 0, " ".join(stats.problems), stats.active]
"""
# Another one than any call of ours.
ADD = 'h.install(h.refuse_rule((h.NUMBERS["ftruncate"] + 300, None, 1)))'
ENV = {"PYHUGETEXT_BACKING": "thp"}


@needs_filters
def test_stands_still_once_a_filter_was_added(python: Run, two_modules: Path) -> None:
    code = f"""{LOOK}
{ADD}
import large_one
first = covered()
second = [pyhugetext.remap().active, *covered()]
print(json.dumps([first, second, large_one.result()]))
"""
    result = python(code, str(TESTS), str(two_modules), env=ENV)
    (is_covered, problems, active), second, seven = json.loads(result.stdout)
    assert active
    assert not is_covered
    assert "a seccomp filter was added after the start" in problems
    # Who asks for it has it.
    assert second == [True, True, "", True]
    assert seven == 7


@needs_filters
def test_filter_from_before_the_start_is_none_to_stand_still_for(
    python: Run, two_modules: Path
) -> None:
    code = f"{LOOK}\nimport large_one\nprint(json.dumps(covered()))"
    refused = json.dumps({"seccomp": "EPERM"})
    prefix = (sys.executable, "-S", harm.__file__, "refuse", refused)
    result = python(code, str(TESTS), str(two_modules), env=ENV, prefix=prefix)
    assert json.loads(result.stdout) == [True, "", True]


# Runs `inside` in a callback of dl_iterate_phdr, while another thread holds the engine's lock and
# waits for the dynamic linker's, which this thread has.
CALLBACK = """
import ctypes, json, os, sys, threading, time
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import pyhugetext
from pyhugetext import _native
pyhugetext.stats()
result, there = [], threading.Event()

@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
def visit(info, size, data):
    there.set()
    time.sleep(0.5)
    try:
        result.append(inside())
    except BaseException as error:
        result.append(repr(error))
    return 1

def snapshot():
    there.wait()
    _native.snapshot()

def run():
    other = threading.Thread(target=snapshot)
    other.start()
    ctypes.CDLL(None).dl_iterate_phdr(visit, None)
    other.join()
    print(json.dumps([*result, pyhugetext.stats().active]))
"""
FORK = """
    pid = os.fork()
    if pid == 0:
        # Nothing that asks the dynamic linker: its lock stays taken here, in plain Python too.
        os._exit(7 if "dl_iterate_phdr" in pyhugetext.stats().reason else 1)
    return os.waitpid(pid, 0)[1]
"""


INSIDE: dict[str, tuple[str, Any]] = {
    "import small": ("import small_one; return small_one.result()", 7),
    "import large": ("import large_one; return large_one.result()", 7),
    "stats": ("return 'dl_iterate_phdr' in pyhugetext.stats().reason", True),
    "remap": ("return 'dl_iterate_phdr' in pyhugetext.remap().problems[0]", True),
    "restore": ("return 'dl_iterate_phdr' in pyhugetext.restore().problems[0]", True),
    "fork": (FORK, 7 << 8),
}


@pytest.fixture(scope="module")
def in_callbacks(python: Run, two_modules: Path) -> dict[str, Future[Any]]:
    """Children that do all of these, at once: each waits most of its time."""

    def run(inside: str) -> Any:
        # What 3.12 and later say about a fork beside threads is no matter here.
        return python(
            f"{CALLBACK}\ndef inside():\n    {inside}\nrun()",
            *(str(TESTS), str(two_modules)),
            env={"PYHUGETEXT_BUILD": "never"},
            flags=("-W", "ignore"),
            timeout=60,
        )

    with ThreadPoolExecutor() as pool:
        return {name: pool.submit(run, inside) for name, (inside, _) in INSIDE.items()}


@pytest.mark.parametrize("name", INSIDE)
def test_callback_of_the_dynamic_linker_waits_for_nobody(
    in_callbacks: dict[str, Future[Any]], name: str
) -> None:
    assert json.loads(in_callbacks[name].result().stdout) == [INSIDE[name][1], True]


PAINTED = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <sys/mman.h>
static PyObject *callable, *arguments;
static void *body(void *unused) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *result = PyObject_Call(callable, arguments, 0);
    if (!result) PyErr_Print();
    Py_XDECREF(result);
    PyGILState_Release(state);
    return 0;
}
static PyObject *run(PyObject *self, PyObject *args) {
    enum { size = 256 * 1024 };
    if (!PyArg_ParseTuple(args, "OO", &callable, &arguments)) return 0;
    int kind = MAP_PRIVATE | MAP_ANONYMOUS;
    unsigned char *stack = mmap(0, size, PROT_READ | PROT_WRITE, kind, -1, 0);
    memset(stack, 0xa7, size);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, size);
    pthread_t thread;
    Py_BEGIN_ALLOW_THREADS;
    if (pthread_create(&thread, &attributes, body, 0) == 0) pthread_join(thread, 0);
    Py_END_ALLOW_THREADS;
    long at = 0;
    while (at < size && stack[at] == 0xa7) ++at;
    return PyLong_FromLong(size - at);
}
static PyMethodDef methods[] = {{"run", run, METH_VARARGS, 0}, {0}};
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "painted", 0, -1, methods};
PyMODINIT_FUNC PyInit_painted(void) { return PyModule_Create(&def); }
"""

# Prints how much stack the import needs.
IMPORT_ON_A_THREAD = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import importlib.util, painted, pyhugetext
from support import harm as h
if sys.argv[3] != "this":
    h.install(i for rule in h.KERNELS[sys.argv[3]] for i in h.refuse_rule(rule))
spec = importlib.util.find_spec("large_one")
print(painted.run(spec.loader.create_module, (spec,)))
"""


@needs_filters
@pytest.mark.parametrize(
    ("backing", "kernel"), [("store", "this"), ("store", "6.1"), ("memfd", "this"), ("thp", "5.10")]
)
def test_import_needs_little_more_stack_than_in_plain_python(
    python: Run, two_modules: Path, tmp_path: Path, backing: str, kernel: str
) -> None:
    extension_compiler(library_compiler(two_modules))("painted", PAINTED, whole=True)
    needed = []
    # Twice with it: in the first an entry of the store is built, by Python.
    for settings in (
        {"PYHUGETEXT": "0"},
        *[{"PYHUGETEXT_BACKING": backing, "PYHUGETEXT_BUILD": "always"}] * 2,
    ):
        env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), **settings}
        result = python(IMPORT_ON_A_THREAD, str(TESTS), str(two_modules), kernel, env=env)
        needed.append(int(result.stdout))
    assert needed[2] <= needed[0] + 4096


def test_restore_with_nothing_to_restore_is_told_once(python: Run) -> None:
    code = """
import json, pyhugetext
told = [pyhugetext.restore(), pyhugetext.stats(), pyhugetext.remap(), pyhugetext.stats()]
print(json.dumps([list(stats.problems) for stats in told]))
"""
    result = python(code, env={"PYHUGETEXT": "0"})
    first, *later = json.loads(result.stdout)
    assert ["remap() comes first" in problem for problem in first] == [True]
    assert later == [[], [], []]
