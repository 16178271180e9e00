"""The places Python is started in: nothing is printed, nothing fails, and where it can be the
text is on huge pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import own_shared_memory
from support.common import assert_interpreter_is_huge, clean_environment
from support.installed import site_packages

STATS = "import json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"


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
    # An ordinary user gets a user namespace, where root's files are nobody's and no store is trusted.
    assert stats["private_bytes"] == 0 or os.geteuid()


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
