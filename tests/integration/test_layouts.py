"""Objects of every layout linkers produce: covered as far as the layout allows, and computing the
same before, meanwhile and after."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile

from support.common import Run, big_sum
from support.layouts import (
    FUNCTIONS,
    LARGE_PAGES,
    LINKERS,
    POINTERS,
    PRELUDE,
    Oracle,
    check_record,
    compile_object,
    compiler,
    hugetlb_pool,
    last_record,
    link,
    sample_source,
    skip_unless_huge,
)

PRIVATE = ("memfd", "thp")
OFF = {"PYHUGETEXT": "0", "PYHUGETEXT_PRIVATE_LIMIT": "unlimited"}

EXERCISE = f"""
library = ctypes.CDLL(None if path == sys.executable or len(sys.argv) > 3 else path)
observe = lambda: (h.results_of(library, {FUNCTIONS}), h.pointers_of(library, {POINTERS * 8}))
results = observe()[0]
record = h.exercise(path, observe, sys.argv[2].split("+"))
record["sum"] = results[-1]
h.report(record)
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_object(sample_source(), tmp_path_factory.mktemp("sample") / "sample.o")


@pytest.fixture(scope="module", autouse=True)
def _huge_pages() -> None:
    for backing in PRIVATE:
        skip_unless_huge(backing)


@pytest.fixture
def exercise(python: Run) -> Callable[..., tuple[dict[str, Any], Oracle]]:
    """Runs a child over a library with each private backing, and checks what holds always."""

    def exercise(path: Path, backings: str = "+".join(PRIVATE)) -> tuple[dict[str, Any], Oracle]:
        record = last_record(python(PRELUDE + EXERCISE, str(path), backings, env=OFF))
        assert record["sum"] == big_sum(11, FUNCTIONS)
        oracle = Oracle(path, record["maps"])
        check_record(record, oracle)
        return record, oracle

    return exercise


@pytest.mark.parametrize("relro", ["relro", "norelro"])
@pytest.mark.parametrize("code", ["default", "separate-code", "noseparate-code"])
@pytest.mark.parametrize("linker", LINKERS)
def test_library_of_every_linker(exercise, sample, tmp_path, linker, code, relro):
    flags = ["-shared", "-Wl,-z,relro,-z,now" if relro == "relro" else "-Wl,-z,norelro"]
    if code != "default":
        flags.append(f"-Wl,-z,{code}")
    _, oracle = exercise(link(tmp_path / "libsample.so", [sample], linker, *flags))
    assert oracle.coverable_bytes > 0


@pytest.mark.parametrize("code", ["default", "noseparate-code"])
@pytest.mark.parametrize("linker", LINKERS)
def test_library_with_large_pages_is_covered_head_and_tail(
    exercise, sample, tmp_path, linker, code
):
    flags = ["-shared", LARGE_PAGES]
    if code != "default":
        flags.append(f"-Wl,-z,{code}")
    record, oracle = exercise(link(tmp_path / "libsample.so", [sample], linker, *flags))
    if not oracle.aligned:
        pytest.skip("this dynamic linker does not honour an alignment of 2 MiB")
    for step in record["backings"].values():
        assert step["region"]["mapped_bytes"] == step["region"]["text_bytes"]


@pytest.mark.alone
def test_library_from_the_hugetlb_pool(exercise, sample, tmp_path):
    library = link(tmp_path / "libsample.so", [sample], None, "-shared")
    with hugetlb_pool(8):
        exercise(library, "hugetlb+memfd+hugetlb+thp")


@pytest.mark.alone
def test_forked_child_keeps_its_reserved_pages(python, sample, tmp_path):
    """Found by the siege: to read them by process_vm_readv(2) takes them from the child, as long as the
    pool has no others."""
    library = link(tmp_path / "libsample.so", [sample], None, "-shared")
    code = """
        import ctypes, mmap, os, signal, sys, pyhugetext
        library = ctypes.CDLL(sys.argv[1])
        library.f_sum.restype = ctypes.c_long
        expected = library.f_sum(5)
        [region] = [r for r in pyhugetext.remap(backing="hugetlb", include=sys.argv[1]).regions
                    if r.path == sys.argv[1]]
        assert region.backing == "hugetlb", region
        rest = []
        try:
            while True:
                rest.append(mmap.mmap(-1, 2 << 20, flags=0x40022))  # MAP_HUGETLB, and private
        except OSError:
            pass
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            os.close(tell)
            os.read(told, 1)
            os._exit(7 if library.f_sum(5) == expected else 8)
        pyhugetext.restore()
        assert library.f_sum(5) == expected
        os.close(tell)
        assert os.waitpid(pid, 0)[1] == 7 << 8
    """
    with hugetlb_pool(8):
        result = python(code, str(library), env={"PYHUGETEXT": "0"})
    assert (result.returncode, result.stderr) == (0, "")


def test_library_without_section_headers(exercise, sample, tmp_path):
    library = link(tmp_path / "libsample.so", [sample], None, "-shared", "-Wl,-s")
    content = bytearray(library.read_bytes())
    struct.pack_into("<Q", content, 0x28, 0)  # e_shoff
    struct.pack_into("<HHH", content, 0x3A, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    library.write_bytes(content)
    exercise(library)


def test_note_that_no_segment_holds_is_not_read(python, sample, tmp_path):
    library = link(tmp_path / "libsample.so", [sample], None, "-shared", LARGE_PAGES)
    with library.open("rb") as file:
        elf = ELFFile(file)
        table, size = elf["e_phoff"], elf["e_phentsize"]
        headers = [segment.header for segment in elf.iter_segments()]
    notes = [i for i, h in enumerate(headers) if h.p_type == "PT_NOTE" and h.p_align == 4]
    ends = [h.p_vaddr + h.p_memsz for h in headers if h.p_type == "PT_LOAD"]
    starts = [h.p_vaddr for h in headers if h.p_type == "PT_LOAD"]
    gap = min(end + 4096 & -4096 for end, after in zip(ends, starts[1:]) if end + 8192 < after)
    if not notes:
        pytest.skip("this linker writes no build-id")
    content = bytearray(library.read_bytes())
    struct.pack_into("<Q", content, table + notes[-1] * size + 16, gap)  # p_vaddr
    library.write_bytes(content)
    code = PRELUDE + "import pyhugetext; ctypes.CDLL(path)\n"
    code += "h.report(h.region(pyhugetext.stats(), path)['build_id'])"
    assert last_record(python(code, str(library), env=OFF)) == ""


def test_text_relocations_keep_their_page_small(python, tmp_path):
    # A word of text that the dynamic linker relocated is not in the file any more.
    source = sample_source() + textwrap.dedent("""
        __asm__(".text\\n.balign 8\\n.globl patched\\npatched: .quad f_0\\n");
    """)
    objects = [compile_object(source, tmp_path / "sample.o", "-DTEXTREL")]
    library = tmp_path / "libtextrel.so"
    command = [compiler(), "-shared", "-Wl,-z,notext", "-o", str(library), str(objects[0])]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("this linker makes no text relocations")
    code = (
        PRELUDE
        + f"""
library = ctypes.CDLL(path)
patched = ctypes.c_void_p.in_dll(library, "patched")
observe = lambda: (h.results_of(library, {FUNCTIONS}), patched.value)
first = observe()
record = h.exercise(path, observe, ["memfd", "thp"])
record["address"] = ctypes.addressof(patched)
record["right"] = patched.value == ctypes.cast(library.f_0, ctypes.c_void_p).value
h.report(record)
"""
    )
    record = last_record(python(code, str(library), env=OFF))
    assert record["right"]
    page = record["address"] & ~((2 << 20) - 1)
    for backing, step in record["backings"].items():
        region = step["region"]
        assert region["status"] == "partial", backing
        assert f"2 MiB at {page:#x}: modified in memory" in region["reason"]
        assert 0 < region["mapped_bytes"] < region["coverable_bytes"]
        assert region["huge_bytes"] == region["swapped_bytes"] == step["smaps"]
        for name in ("same results", "same bytes", "same results restored", "same maps restored"):
            assert step[name], (backing, name)


@pytest.mark.parametrize("backing", PRIVATE)
@pytest.mark.parametrize("change", ["deleted", "replaced", "a FIFO now", "rewritten in place"])
def test_restore_refuses_a_file_that_is_not_the_mapped_one(
    python, sample, tmp_path, change, backing
):
    # With large pages all text is on the huge pages, and none left that the file could spoil.
    library = link(tmp_path / "libsample.so", [sample], None, "-shared", LARGE_PAGES)
    other = tmp_path / "other"
    other.write_bytes(b"\xcc" * library.stat().st_size)
    with library.open("rb") as file:
        loads = [s.header for s in ELFFile(file).iter_segments("PT_LOAD")]
    [text] = [load for load in loads if load.p_flags & P_FLAGS.PF_X]
    code = (
        PRELUDE
        + f"""
import pyhugetext
library = ctypes.CDLL(path)
first = h.results_of(library, {FUNCTIONS})
before = h.region(pyhugetext.remap(backing={backing!r}, include=path), path)
change = {change!r}
if change == "deleted":
    os.unlink(path)
elif change == "replaced":
    os.replace({str(other)!r}, path)
elif change == "a FIFO now":
    os.unlink(path)
    os.mkfifo(path)
else:
    with open(path, "r+b") as file:
        file.seek({text.p_offset})
        file.write(bytes({text.p_filesz}))
after = pyhugetext.restore()
regions = [r for r in after.as_dict()["regions"] if r["path"].startswith(path)]
same = h.results_of(library, {FUNCTIONS}) == first
h.report({{"before": before, "regions": regions, "same": same}})
"""
    )
    record = last_record(python(code, str(library), env=OFF))
    assert record["same"]
    if record["before"]["coverable_bytes"] < record["before"]["text_bytes"]:
        pytest.skip("this dynamic linker does not honour an alignment of 2 MiB")
    [region] = record["regions"]
    assert "the original file was deleted or replaced" in region["reason"]
    assert region["mapped_bytes"] == region["coverable_bytes"]
    assert region["backing"] == backing


@pytest.mark.parametrize("backing", PRIVATE)
def test_library_deleted_before_is_remapped_all_the_same(python, sample, tmp_path, backing):
    library = link(tmp_path / "libsample.so", [sample], None, "-shared")
    code = (
        PRELUDE
        + f"""
import pyhugetext
library = ctypes.CDLL(path)
first = h.results_of(library, {FUNCTIONS})
os.unlink(path)
after = pyhugetext.remap(backing={backing!r}, include=path + "*")
regions = [r for r in after.as_dict()["regions"] if r["path"].startswith(path)]
h.report({{"regions": regions, "same": h.results_of(library, {FUNCTIONS}) == first}})
"""
    )
    record = last_record(python(code, str(library), env=OFF))
    assert record["same"]
    [region] = record["regions"]
    assert region["path"].endswith(" (deleted)")
    assert region["status"] == "huge"
    assert region["mapped_bytes"] == region["coverable_bytes"] > 0


@pytest.mark.quick
def test_extension_module_is_covered_by_its_import(python, sample, tmp_path):
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        pytest.skip(f"no Python.h of this interpreter in {include}")
    module = compile_object(
        """
        #include <Python.h>
        long f_sum(int x);
        static PyObject *sum(PyObject *self, PyObject *arg) {
            return PyLong_FromLong(f_sum((int)PyLong_AsLong(arg)));
        }
        static PyMethodDef methods[] = {{"sum", sum, METH_O, 0}, {0, 0, 0, 0}};
        static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "sampled", 0, 0, methods};
        PyMODINIT_FUNC PyInit_sampled(void) { return PyModule_Create(&definition); }
        """,
        tmp_path / "module.o",
        f"-I{include}",
    )
    target = tmp_path / ("sampled" + sysconfig.get_config_var("EXT_SUFFIX"))
    link(target, [module, sample], None, "-shared")
    code = (
        PRELUDE
        + """
sys.path.insert(0, os.path.dirname(path))
import sampled, pyhugetext
record = {"sum": sampled.sum(11)}  # first, for it touches every page
record["covered"] = h.region(pyhugetext.stats(), path)
record["smaps"] = h.huge_bytes(record["covered"]["start"], record["covered"]["end"])
pyhugetext.restore()
low, high = h.span(path)
record["maps"] = h.within(low - (4 << 20), high + (4 << 20))
record["sum restored"] = sampled.sum(11)
h.report(record)
"""
    )
    record = last_record(python(code, str(target), env={"PYHUGETEXT_PRIVATE_LIMIT": "1G"}))
    assert record["sum"] == record["sum restored"] == big_sum(11, FUNCTIONS)
    oracle = Oracle(target, record["maps"])
    covered = record["covered"]
    assert covered["mapped_bytes"] == oracle.coverable_bytes > 0
    # From the store its pages come at their first use.
    assert 0 < covered["huge_bytes"] == record["smaps"] <= covered["swapped_bytes"]


def embedding_program(tmp_path: Path, sample: Path, *flags: str) -> Path:
    """A program with the sample in its own text that is otherwise this interpreter."""
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        pytest.skip(f"no Python.h of this interpreter in {include}")
    main = compile_object(
        """
        #include <Python.h>
        int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
        """,
        tmp_path / "main.o",
        f"-I{include}",
    )
    version = sysconfig.get_config_var("LDVERSION")
    for name in ("LIBDIR", "LIBPL"):
        directory = Path(sysconfig.get_config_var(name) or "/nonexistent")
        found = [
            *directory.glob(f"libpython{version}.so"),
            *directory.glob(f"libpython{version}.a"),
        ]
        if found:
            break
    else:
        pytest.skip("no libpython of this interpreter to link with")
    libraries = [str(found[0]), f"-Wl,-rpath,{directory}", "-ldl", "-lm", "-lutil", "-lpthread"]
    if found[0].suffix == ".a":
        libraries += (sysconfig.get_config_var("LIBS") or "").split()
    program = tmp_path / "embedding"
    return link(program, [main, sample], None, *flags, "-rdynamic", *libraries)


@pytest.mark.parametrize("pages", ["small", "large"])
@pytest.mark.parametrize("kind", ["pie", "no-pie"])
def test_executable_that_embeds_python(python, sample, tmp_path, kind, pages):
    flags = [f"-{kind}", *([LARGE_PAGES] if pages == "large" else [])]
    program = embedding_program(tmp_path, sample, *flags)
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + EXERCISE, str(program), "+".join(PRIVATE), "main"],
        executable=program,
        env={**os.environ, **OFF},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    record = last_record(result)
    assert record["sum"] == big_sum(11, FUNCTIONS)
    oracle = Oracle(program, record["maps"], main=True)
    check_record(record, oracle)
    assert oracle.coverable_bytes > 0
