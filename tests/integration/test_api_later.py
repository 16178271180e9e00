"""Libraries loaded after the start: covered at their import, or at the next import or call."""

from __future__ import annotations

import pytest

from support.common import run_silently
from support.extensions import BIG

pytestmark = pytest.mark.quick


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
