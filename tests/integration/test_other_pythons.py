"""Where there is no native part: other implementations than CPython, other platforms. The package
installs there without a compiler, stands still, and says why."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.common import ROOT, Run, clean_environment, tool

# Nothing is ever built there, so what builds is told to be there.
ELSEWHERE = {
    "GraalPy": "sys.implementation.name = 'graalpy'",
    "PyPy": "sys.implementation.name = 'pypy'",
    "macOS": (
        "import platform; platform.mac_ver = lambda: ('14.0', ('', '', ''), 'arm64'); "
        "sys.platform = 'darwin'"
    ),
    "Windows": "sys.platform = 'win32'",
    "riscv64": "import platform; platform.machine = lambda: 'riscv64'",
    "asked for": "import os; os.environ['PYHUGETEXT_PURE_WHEEL'] = '1'",
}
ASK = """
import json, sys
loaded = sorted(name for name in sys.modules if "pyhugetext" in name)
import pyhugetext
told = [pyhugetext.stats(), pyhugetext.remap(), pyhugetext.restore()]
assert all(one.reason in str(one) and not one.active for one in told)
print(json.dumps([loaded, sorted({one.reason for one in told}), [*told[0].problems]]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, so that no build leaves anything in the tree under test."""
    if importlib.util.find_spec("scikit_build_core") is None:
        pytest.skip("scikit-build-core is not installed (pip install --group test)")
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("packaging", "src"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    return copy


def build(source: Path, target: Path, elsewhere: str) -> Path:
    # Packaging has expressions that only the real one can read.
    code = f"import sys, packaging.version; {elsewhere}\nfrom scikit_build_core.build import build_wheel, "
    code += "get_requires_for_build_wheel as requires\n"
    code += f"assert requires() == [], requires()\nprint(build_wheel({str(target)!r}))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        # No compiler, no cmake.
        env=clean_environment(PYHUGETEXT="0", PATH="/nonexistent"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return target / result.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("wheel"), ELSEWHERE["PyPy"])


@pytest.mark.parametrize("where", ELSEWHERE)
def test_wheel_of_another_python_needs_no_compiler_and_starts_nothing(
    source: Path, tmp_path: Path, where: str
) -> None:
    made = build(source, tmp_path, ELSEWHERE[where])
    assert made.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(made) as file:
        names = file.namelist()
    assert "pyhugetext/__init__.py" in names
    assert not [name for name in names if name.endswith((".so", ".pth", ".start"))]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("GraalPy", "it is made for CPython, and this is GraalPy"),
        ("macOS", "Linux on x86_64 or aarch64 has one, and this is darwin on"),
        ("Windows", "Linux on x86_64 or aarch64 has one, and this is win32 on another machine"),
    ],
)
def test_package_says_why_it_stands_still(
    wheel: Path, python: Run, tmp_path: Path, where: str, why: str
) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    there = {"PYTHONPATH": str(tmp_path), "PYHUGETEXT_DEBUG": "1"}
    # What this environment has stays out; site is imported before sys.platform is another.
    there_is = "import argparse, contextlib, os, re, shutil, site, sys\n" + ELSEWHERE[where]
    if where == "Windows":
        there_is += "\ndel os.uname; os.name = 'nt'\n"
        there_is += "sys.modules.update(dict.fromkeys(('fcntl', 'pwd', 'resource')))"
    code = f"{there_is}\n{ASK}"
    result = python(code, flags=("-S",), env=there)
    _, (reason,), problems = json.loads(result.stdout)
    assert reason.startswith(f"no native part: {why}")
    assert (problems, result.stderr) == ([], "")
    command = f"{there_is}\nsys.argv[1:] = ['status']\n"
    command += "from pyhugetext.__main__ import main; sys.exit(main())"
    result = python(command, flags=("-S",), env=there, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"pyhugetext status: {reason}\n"


def test_package_says_why_it_has_no_native_part_where_there_could_be_one(
    wheel: Path, python: Run, tmp_path: Path
) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    result = python(ASK, flags=("-S",), env={"PYTHONPATH": str(tmp_path)})
    _, (reason,), problems = json.loads(result.stdout)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    expected = f"no native part: no wheel with one was found for CPython {version} here"
    assert reason.startswith(expected)
    assert reason.endswith("--no-binary pyhugetext pyhugetext` compiles it")
    assert (problems, result.stderr) == ([], "")


def test_python_3_8_is_told_that_it_is_too_old(wheel: Path, tmp_path: Path) -> None:
    versions = Path(os.path.expanduser("~root/.pyenv/versions"))
    found = versions.glob("3.8.*/bin/python3.8") if os.access(versions, os.R_OK | os.X_OK) else ()
    places = sorted(found)
    old = str(places[-1]) if places else tool("python3.8")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    why = "no native part: it is made for CPython 3.9 and later, and this is 3.8"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environ = clean_environment(PYTHONPATH=str(tmp_path))
        command = (old, "-S", *words)
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    result = run("-c", ASK)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == [[], [why], []]
    result = run("-m", "pyhugetext", "status")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"pyhugetext: {why}\n"
    # pip compiles every file there, and would show what does not.
    result = run("-m", "compileall", "-q", str(tmp_path / "pyhugetext"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def environment(place: Path, *options: str) -> Path:
    """The python of an environment of PyPy's."""
    command = [tool("pypy3"), "-m", "venv", *options, str(place)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"pypy3 makes no environment (Debian: apt-get install pypy3-venv): {made}")
    return place / "bin" / "python"


def check_pypy(pypy: Path) -> None:
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=clean_environment(), capture_output=True, text=True, check=False
        )

    result = run(str(pypy), "-c", ASK)
    assert (result.returncode, result.stderr) == (0, "")
    loaded, (reason,), problems = json.loads(result.stdout)
    assert (loaded, problems) == ([], [])
    assert reason == "no native part: it is made for CPython, and this is PyPy"
    command = (str(pypy), "-m", "pyhugetext")
    for arguments in (("status",), ("doctor",), ("warm", "--json"), ("store", "list")):
        result = run(*command, *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"pyhugetext {arguments[0]}: {reason}\n"
    assert run(*command, "--version").returncode == 0


def test_wheel_stands_still_under_pypy(wheel: Path, tmp_path: Path) -> None:
    pypy = environment(tmp_path / "venv", "--without-pip")
    (packages,) = tmp_path.glob("venv/lib/pypy3*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    check_pypy(pypy)


@pytest.mark.heavy
def test_pip_installs_the_sources_under_pypy(source: Path, tmp_path: Path) -> None:
    pypy = environment(tmp_path / "venv")
    command = [str(pypy), "-m", "pip", "install", "--quiet", "--no-deps", str(source)]
    environ = clean_environment(CC="false", CXX="false")
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if "Could not find a version" in result.stderr:
        pytest.skip(f"what builds the package cannot be had here: {result.stderr}")
    assert result.returncode == 0, result.stderr
    assert pypy.with_name("pyhugetext").exists()
    check_pypy(pypy)
