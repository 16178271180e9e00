"""Extension modules, compiled by the tests."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from support.common import big_source

# What most of them are made of, with enough text to be moved. Few and long functions: quick to compile.
BIG = big_source(160, padding=20000) + "\nint result(void) { return (int)f_sum(3); }"


def in_module(name: str, source: str) -> str:
    """C source of an extension module around `source`; `int result(void)` is its function."""
    return f"""
#define PY_SSIZE_T_CLEAN
#include <Python.h>
{source}
static PyObject *call(PyObject *self, PyObject *x) {{ return PyLong_FromLong(result()); }}
static PyMethodDef methods[] = {{{{"result", call, METH_NOARGS, 0}}, {{0}}}};
static PyModuleDef_Slot slots[] = {{
#if PY_VERSION_HEX >= 0x030c0000
  {{Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}},
#endif
#ifdef Py_MOD_GIL_NOT_USED
  {{Py_mod_gil, Py_MOD_GIL_NOT_USED}},
#endif
  {{0}}}};
static PyModuleDef def = {{PyModuleDef_HEAD_INIT, "{name}", 0, 0, methods, slots, 0, 0, 0}};
PyMODINIT_FUNC PyInit_{name}(void) {{ return PyModuleDef_Init(&def); }}
"""


def extension_compiler(compile_library: Callable[..., Path]) -> Callable[..., Path]:
    """Makes `compile_extension(name, source, whole=False)` of the fixture compile_library; with
    `whole`, the source is all of the module."""
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").is_file():
        pytest.skip(f"no Python.h in {include} (Debian: apt-get install python3-dev)")

    def compile_(name: str, source: str, whole: bool = False) -> Path:
        text = source if whole else in_module(name, source)
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        return compile_library(text, f"-I{include}", name=name + suffix)

    return compile_
