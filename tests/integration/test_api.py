"""The public functions: what they take, what they return, and that it is true."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.common import Run, big_source, clean_environment
from support.harm import extension_compiler

pytestmark = pytest.mark.quick

BIG = big_source(160, padding=20000) + "\nint result(void) { return (int)f_sum(3); }"


@pytest.fixture
def compile_extension(compile_library: Callable[..., Path]) -> Callable[..., Path]:
    return extension_compiler(compile_library)


def run_silently(python: Run, code: str, *arguments: str, **options: object) -> None:
    result = python(code, *arguments, **options)
    assert (result.stdout, result.stderr) == ("", "")


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


# --- libraries loaded later ---


def test_extension_is_covered_right_after_its_import(python, compile_extension):
    module = compile_extension("late", BIG)
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import late
        # Before anything of this package is asked: the kernel's own words.
        lines = [line for line in open("/proc/self/maps") if "memfd:pyhugetext:late" in line]
        assert late.result() == late.result()
        import pyhugetext
        region = [r for r in pyhugetext.stats().regions if "/late" in r.path][0]
        assert region.status == "huge" and (lines or region.backing != "memfd"), region
        assert region.huge_bytes == region.swapped_bytes >= 2 << 20
    """
    run_silently(python, code, str(module.parent))


def test_library_of_ctypes_is_covered_at_the_next_import_or_call(
    python, compile_library, compile_extension
):
    small = compile_extension("small", "int result(void) { return 1; }")
    library = compile_library(BIG)
    code = """
        import ctypes, sys
        import pyhugetext
        pyhugetext.stats()
        library = ctypes.CDLL(sys.argv[1])
        def region():
            return [r for r in pyhugetext.stats().regions if r.path == sys.argv[1]][0]
        assert region().status == "small" and "remap() covers it" in region().reason, region()
        expected = library.result()
        if sys.argv[2] == "import":
            sys.path.insert(0, sys.argv[3])
            import small
        else:
            pyhugetext.remap()
        assert region().status == "huge", region()
        assert library.result() == expected
    """
    for way in ("import", "call"):
        run_silently(python, code, str(library), way, str(small.parent))


def test_library_is_looked_at_before_an_import_too(python, compile_library, compile_extension):
    # A module that imports others while it is loaded has brought libraries by then.
    library = compile_library(BIG)
    broken = compile_extension("broken", "int result(void) { return 1; }")
    broken.write_bytes(b"\x7fELF but no more")
    code = """
        import ctypes, sys
        import pyhugetext
        pyhugetext.stats()
        library = ctypes.CDLL(sys.argv[1])
        expected = library.result()
        sys.path.insert(0, sys.argv[2])
        try:
            import broken
        except ImportError:
            pass
        [region] = [r for r in pyhugetext.stats().regions if r.path == sys.argv[1]]
        assert region.status == "huge", region
        assert library.result() == expected
    """
    run_silently(python, code, str(library), str(broken.parent))


def test_after_restore_libraries_loaded_later_are_left_alone(python, compile_extension):
    module = compile_extension("late", BIG)
    code = """
        import sys, pyhugetext
        pyhugetext.restore()
        sys.path.insert(0, sys.argv[1])
        import late
        stats = pyhugetext.stats()
        assert not stats.active and stats.mapped_bytes == 0, str(stats)
        assert pyhugetext.remap().mapped_bytes == stats.coverable_bytes
    """
    run_silently(python, code, str(module.parent))


FAILING = {
    "no init function": "int nothing;",
    "init raises": "#include <Python.h>\nPyObject *PyInit_failing(void) "
    '{ PyErr_SetString(PyExc_RuntimeError, "from inside"); return 0; }',
    "init returns nothing": "#include <Python.h>\nPyObject *PyInit_failing(void) { return 0; }",
    "missing symbol": "void missing_function(void);\n#include <Python.h>\n"
    "PyObject *PyInit_failing(void) { missing_function(); return 0; }",
}


@pytest.mark.parametrize("way", ["import failing", "load()", "load(fine=1)"])
@pytest.mark.parametrize("kind", [*FAILING, "no library"])
def test_failing_import_has_the_same_traceback(python, compile_extension, tmp_path, kind, way):
    module = compile_extension("failing", FAILING.get(kind, "int nothing;"), whole=True)
    if kind == "no library":
        module.write_bytes(b"\x7fELF but no more")
    code = f"""
        import sys, importlib.util
        sys.path.insert(0, sys.argv[1])
        def load(**wrong):
            spec = importlib.util.find_spec("failing")
            return spec.loader.create_module(spec, **wrong)
        def caller():
            {way}
        caller()
    """
    plain, active = (
        python(code, str(module.parent), check=False, env=env) for env in ({"PYHUGETEXT": "0"}, {})
    )
    assert plain.returncode == active.returncode == 1
    if "fine" in way:  # the message of a TypeError names the C function
        assert active.stderr.splitlines()[:-1] == plain.stderr.splitlines()[:-1]
    else:
        assert active.stderr == plain.stderr


# --- what is returned ---


def test_statistics_are_immutable_and_ready_for_json(python):
    code = """
        import copy, json, pickle, pyhugetext
        stats = pyhugetext.stats()
        for thing in (stats, stats.regions[0], stats.kernel):
            for name in thing._fields:
                try:
                    setattr(thing, name, None)
                except AttributeError:
                    continue
                raise AssertionError(name)
        assert type(stats.regions) is type(stats.problems) is tuple
        hash(stats)
        as_dict = stats.as_dict()
        assert json.loads(json.dumps(as_dict)) == as_dict
        assert list(as_dict) == list(stats._fields)
        as_dict["regions"].clear()
        assert stats.regions
        assert pickle.loads(pickle.dumps(stats)) == stats == copy.deepcopy(stats)
        assert isinstance(stats, pyhugetext.Stats) and isinstance(stats.kernel, pyhugetext.Kernel)
    """
    run_silently(python, code)


def test_text_of_statistics_is_an_aligned_table(python, compile_extension):
    module = compile_extension("a_rather_long_name_of_a_module", BIG)
    code = """
        import sys, pyhugetext
        sys.path.insert(0, sys.argv[1])
        import a_rather_long_name_of_a_module
        stats = pyhugetext.stats()
        print(stats)
        lines = str(stats).splitlines()
        assert lines[0] == "pyhugetext: active"
        header = next(i for i, line in enumerate(lines) if line.startswith("object "))
        total = next(i for i, line in enumerate(lines) if line.startswith("total "))
        assert total - header >= 3
        # Numbers end where the words above them end, texts begin where those begin.
        ends = [lines[header].index(w) + len(w) for w in ("KiB", "coverable", "mapped", "huge")]
        begins = [lines[header].index(word) for word in ("backing", "status")]
        for line in lines[header : total + 1]:
            assert all(line[at - 1] != " " and line[at] == " " for at in ends), line
            assert all(line[at - 2 : at] == "  " for at in begins if at < len(line)), line
            assert line[0] != " " and line[begins[0]] != " ", line
        numbers = lines[total].split()
        expected = [stats.text_bytes, stats.coverable_bytes, stats.mapped_bytes, stats.huge_bytes,
                    stats.private_bytes]
        assert numbers[1:6] == [f"{size // 1024:,}" for size in expected], numbers
        assert str(pyhugetext.restore()).startswith("pyhugetext: not active: put back")
    """
    result = python(code, str(module.parent))
    assert result.stderr == ""


SMAPS = """
import re, sys
import pyhugetext

def smaps():  # start, end, permissions, inode, path, {field: bytes}
    found = []
    for line in open("/proc/self/smaps"):
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\\S+) \\S+ \\S+ (\\d+) *(.*)", line)
        if head:
            start, end = (int(head[i], 16) for i in (1, 2))
            found.append((start, end, head[3], int(head[4]), head[5], {}))
        elif line.endswith(" kB\\n"):
            name, size = line.split(":")
            found[-1][5][name] = int(size.split()[0]) * 1024
    return found

HUGE = ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Private_Hugetlb", "Shared_Hugetlb")
"""


@pytest.mark.parametrize("backing", ["auto", "memfd", "thp"])
def test_statistics_agree_with_the_kernel_to_the_byte(python, compile_library, backing):
    library = compile_library(BIG)
    code = (
        SMAPS
        + """
import ctypes
library = ctypes.CDLL(sys.argv[1])
pyhugetext.remap(backing=sys.argv[2])  # loads what it needs itself
pyhugetext.restore()
before, off = smaps(), pyhugetext.stats()
text = sum(end - start for start, end, how, inode, *_ in before if "x" in how and inode)
assert off.text_bytes == text, (off.text_bytes, text)
stats = pyhugetext.remap(backing=sys.argv[2])
now = smaps()
assert (stats.text_bytes, stats.coverable_bytes) == (off.text_bytes, off.coverable_bytes)
huge = private = mapped = 0
for region in stats.regions:
    if not region.swapped_bytes:
        continue
    inside = [m for m in now if region.start <= m[0] and m[1] <= region.end]
    assert sum(m[1] - m[0] for m in inside) == region.end - region.start
    ours = [m for m in inside if "x" in m[2]]
    region_huge = sum(m[5].get(name, 0) for m in ours for name in HUGE)
    assert region.huge_bytes == region_huge, (region, region_huge)
    assert region.swapped_bytes == sum(m[1] - m[0] for m in ours)
    huge += region_huge
    if region.backing in ("memfd", "thp", "hugetlb"):  # elsewhere it is page cache
        private += sum(m[5][name] for m in ours for name in ("Private_Clean", "Private_Dirty"))
    # The text of the object before, as far as it lies in what was swapped.
    mapped += sum(
        max(0, min(end, m[1]) - max(start, m[0]))
        for start, end, how, inode, *_ in before if "x" in how and inode for m in ours
    )
assert (stats.huge_bytes, stats.mapped_bytes) == (huge, mapped), (stats, huge, mapped)
assert stats.private_bytes == private, (stats.private_bytes, private)
assert 0 <= stats.coverable_bytes - stats.mapped_bytes < 256 << 10  # as in test_startup.py
assert stats.mapped_bytes > 2 << 20
after = pyhugetext.restore()
assert (after.huge_bytes, after.private_bytes, after.mapped_bytes) == (0, 0, 0)
assert after.text_bytes == off.text_bytes
"""
    )
    run_silently(python, code, str(library), backing, env={"PYHUGETEXT": "0"})


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
