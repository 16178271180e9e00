"""The public functions: what they take, what they return, and that it is true."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import pytest

from support.common import clean_environment, run_silently
from support.extensions import BIG

pytestmark = pytest.mark.quick


# --- bad input ---


@pytest.mark.parametrize("active", ["1", "0"])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("backing='tpm'", "'tpm'"),
        ("backing=''", "''"),
        ("backing='none'", "'none'"),
        ("backing='AUTO'", "'AUTO'"),
        ("backing=3", "3"),
        ("backing='tpm', include='*'", "'tpm'"),
        ("include=''", "''"),
        ("include=['*', '']", "''"),
        ("exclude='a\\0b'", "'a\\x00b'"),
        ("exclude=[b'*']", "b'*'"),
        ("include=[None]", "None"),
        ("backing='thp', exclude='\\udfff\\ud800'", "'\\udfff\\ud800'"),
    ],
)
def test_bad_argument_is_a_value_error_and_changes_nothing(python, active, arguments, named):
    code = f"""
        import pyhugetext
        before = pyhugetext.stats()
        try:
            pyhugetext.remap({arguments})
        except ValueError as error:
            assert {named!r} in str(error), error
            assert "allowed" in str(error), error
            if "backing" in str(error):
                for name in ("auto", "file", "memfd", "thp", "hugetlb"):
                    assert name in str(error)
        else:
            raise AssertionError("no ValueError")
        assert pyhugetext.stats() == before, (pyhugetext.stats(), before)
    """
    run_silently(python, code, env={"PYHUGETEXT": active})


def test_arguments_are_by_keyword(python):
    code = """
        import pyhugetext
        for call in (lambda: pyhugetext.remap("thp"), lambda: pyhugetext.restore(1)):
            try:
                call()
            except TypeError:
                continue
            raise AssertionError("no TypeError")
    """
    run_silently(python, code)


def test_restore_before_remap_is_told_and_changes_nothing(python):
    code = """
        import pyhugetext
        before = pyhugetext.stats()
        for _ in range(2):
            after = pyhugetext.restore()
            assert [p for p in after.problems if "restore()" in p and "remap()" in p], after
            assert len(after.problems) == 1
            assert (after.regions, after.active) == (before.regions, before.active)
        assert pyhugetext.remap().active
    """
    run_silently(python, code, env={"PYHUGETEXT": "0"})


def test_pattern_that_matches_nothing_is_told(python):
    code = """
        import pyhugetext
        stats = pyhugetext.remap(include=["/no/such/*", "/nor/this"], exclude="/or/that")
        for pattern in ("/no/such/*", "/nor/this", "/or/that"):
            assert any(repr(pattern) in problem for problem in stats.problems), stats.problems
        assert not stats.active and "include patterns" in stats.reason, stats.reason
        assert pyhugetext.remap(include="*").active  # the next call is not held to them
        assert not pyhugetext.stats().problems
    """
    run_silently(python, code, env={"PYHUGETEXT": "0"})


# --- what is done ---


def test_remap_and_restore_are_idempotent(python, compile_library):
    library = compile_library(BIG)
    code = """
        import ctypes, sys, pyhugetext
        library = ctypes.CDLL(sys.argv[1])
        keys = ("active", "backing", "mapped_bytes", "huge_bytes", "coverable_bytes")
        def summary(stats):
            return [getattr(stats, key) for key in keys] + [
                (r.path, r.start, r.end, r.status, r.backing, r.reason) for r in stats.regions]
        first = summary(pyhugetext.remap())
        assert first == summary(pyhugetext.remap()) == summary(pyhugetext.stats())
        once = summary(pyhugetext.restore())
        assert once == summary(pyhugetext.restore())
        assert once[0] is False and once[2] == 0
        assert first == summary(pyhugetext.remap())
        assert library.result() == library.result()
    """
    run_silently(python, code, str(library))


def test_remap_with_another_backing_converts(python, compile_library):
    library = compile_library(BIG)
    code = """
        import ctypes, sys, pyhugetext
        library = ctypes.CDLL(sys.argv[1])
        expected = library.result()
        for backing in ("memfd", "thp", "memfd", "thp"):
            stats = pyhugetext.remap(backing=backing)
            assert stats.backing == backing, str(stats)
            assert 0 <= stats.coverable_bytes - stats.mapped_bytes < 256 << 10  # as in test_startup.py
            names = [line for line in open("/proc/self/maps") if "memfd:pyhugetext" in line]
            assert bool(names) == (backing == "memfd"), names
            assert library.result() == expected
            # auto takes what is there as good.
            assert pyhugetext.remap(backing="auto").backing == backing
        # What cannot be had leaves what was put back, with the reason.
        free = int(open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read() or 0)
        stats = pyhugetext.remap(backing="hugetlb")
        if not free:
            assert not stats.active and "mmap failed with ENOMEM" in stats.reason, str(stats)
        assert library.result() == expected
    """
    run_silently(python, code, str(library))


def test_patterns_of_the_call_choose_objects(python, compile_library):
    library = compile_library(BIG)
    code = """
        import ctypes, sys, pyhugetext
        library = ctypes.CDLL(sys.argv[1])
        def covered(**arguments):
            stats = pyhugetext.remap(**arguments)
            pyhugetext.restore()
            return sorted(sys.argv[1] == r.path for r in stats.regions if r.mapped_bytes)
        assert covered() == [False, True]
        assert covered(include=sys.argv[1]) == [True]
        assert covered(exclude=[sys.argv[1], "/none"]) == [False]
        assert covered(include=("/none", "*"), exclude="*sample*") == [False]
        assert covered(include=[], exclude=()) == [False, True]
    """
    run_silently(python, code, str(library), env={"PYHUGETEXT": "0"})


def test_remap_overrides_the_switch_and_watches_from_then_on(python, compile_extension):
    module = compile_extension("late", BIG)
    code = """
        import sys, pyhugetext
        assert pyhugetext.stats().reason == "turned off by PYHUGETEXT=0"
        assert pyhugetext.remap().active
        sys.path.insert(0, sys.argv[1])
        import late
        region = [r for r in pyhugetext.stats().regions if "/late" in r.path][0]
        assert region.status == "huge", region
    """
    run_silently(python, code, str(module.parent), env={"PYHUGETEXT": "0"})


# --- the module ---


def test_module_has_what_it_promises_and_imports_nothing_for_it(python):
    code = """
        import sys
        before = set(sys.modules)
        import pyhugetext
        new = set(sys.modules) - before
        assert not {"dataclasses", "inspect", "re"} & new, new
        for name in pyhugetext.__all__:
            assert getattr(pyhugetext, name) is not None
        assert set(pyhugetext.__all__) <= set(dir(pyhugetext))
        try:
            pyhugetext.no_such_name
        except AttributeError as error:
            assert "no_such_name" in str(error)
        else:
            raise AssertionError
    """
    run_silently(python, code, env={"PYHUGETEXT": "0"})


def test_version_is_that_of_the_installation(python):
    result = python("import pyhugetext; print(pyhugetext.__version__)", env={"PYHUGETEXT": "0"})
    assert result.stdout.strip() == importlib.metadata.version("pyhugetext")


CLIENT = """
from __future__ import annotations

import pyhugetext
from pyhugetext import Kernel, Region, Stats


def largest(stats: Stats) -> Region | None:
    return max(stats.regions, key=lambda region: region.huge_bytes, default=None)


stats: Stats = pyhugetext.remap(backing="memfd", include="*python*", exclude=["*a*", "*b*"])
kernel: Kernel = stats.kernel
total: int = stats.huge_bytes + stats.elapsed_ns
reason: str | None = stats.reason
again: Stats = pyhugetext.restore()
text: str = pyhugetext.__version__ + str(pyhugetext.stats()) + kernel.release
json: dict[str, object] = again.as_dict()
found = largest(again)
if found is not None:
    print(found.path, found.reason or "", [fallback.upper() for fallback in found.fallbacks])
"""
WRONG = """
import pyhugetext

pyhugetext.remap("memfd")
pyhugetext.remap(backing=3)
pyhugetext.stats().active = True
pyhugetext.stats().no_such_field
"""


@pytest.mark.skipif(not importlib.util.find_spec("mypy"), reason="mypy is not installed")
def test_types_serve_a_strict_client(tmp_path):
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "wrong.py").write_text(WRONG)

    def check(name: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--no-incremental", name],
            cwd=tmp_path,
            env=clean_environment(PYHUGETEXT="0"),
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    assert "Success: no issues found" in check("client.py")
    assert json.dumps(check("wrong.py")).count(": error: ") == 4
