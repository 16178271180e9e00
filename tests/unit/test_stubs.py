"""The stubs of the native modules, held against the modules."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys

import pytest

from support.common import ROOT, clean_environment

STUBS = ROOT / "src" / "pyhugetext"


def stub(name: str) -> ast.Module:
    return ast.parse((STUBS / name).read_text())


def fields(name: str) -> set[str]:
    """The keys of a TypedDict in the binding's stub."""
    for node in stub("_native.pyi").body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return {
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
    raise AssertionError(f"_native.pyi has no class {name}")


def test_stubtest_finds_nothing(tmp_path):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed (pip install --group test)")
    result = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "pyhugetext._native", "pyhugetext._boot"],
        cwd=tmp_path,
        env=clean_environment(PYHUGETEXT="0"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_binding_takes_the_arguments_that_the_stub_names(python):
    # stubtest cannot see them: pybind11 writes the signature into the docstring only.
    wanted = {
        node.name: [argument.arg for argument in node.args.args]
        for node in stub("_native.pyi").body
        if isinstance(node, ast.FunctionDef)
    }
    code = """
        import json, sys
        from pyhugetext import _native
        print(json.dumps({name: getattr(_native, name).__doc__ for name in sys.argv[1:]}))
    """
    signatures = json.loads(python(code, *wanted, env={"PYHUGETEXT": "0"}).stdout)
    found = {name: re.findall(r"(\w+):", signatures[name]) for name in wanted}
    assert found == wanted


def test_snapshot_has_the_keys_that_the_stub_names(python):
    code = """
        import json
        from pyhugetext import _native
        snapshot = _native.snapshot()
        print(json.dumps([list(snapshot), list(snapshot["regions"][0])]))
    """
    snapshot, region = json.loads(python(code, env={"PYHUGETEXT": "0"}).stdout)
    assert set(snapshot) == fields("RawSnapshot")
    assert set(region) == fields("RawRegion")


def test_startup_module_takes_the_arguments_that_the_stub_names(python):
    functions = [n for n in stub("_boot.pyi").body if isinstance(n, ast.FunctionDef)]
    counts = {node.name: len(node.args.posonlyargs) for node in functions}
    code = """
        import json, sys
        from pyhugetext import _boot
        for name, count in json.loads(sys.argv[1]).items():
            try:
                getattr(_boot, name)(*range(count + 1))
            except TypeError as error:
                print(name, error)
    """
    told = python(code, json.dumps(counts), env={"PYHUGETEXT": "0"}).stdout.splitlines()
    assert len(told) == len(counts)
    for line, (name, count) in zip(told, counts.items()):
        wanted = {0: "no arguments", 1: "(exactly one|1) argument"}.get(count, f"{count} arguments")
        assert re.match(f"{name} .*{wanted}", line)
