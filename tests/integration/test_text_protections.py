"""Text and constants whose protection the program changed: what it took away is not given back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.common import Run, big_source, big_sum
from support.layouts import PRELUDE, compile_object, last_record, link, skip_unless_huge

pytestmark = pytest.mark.quick

FUNCTIONS = 600
PAGE = 4096
BACKINGS = ("store", "memfd", "thp")
OFF = {"PYHUGETEXT": "0", "PYHUGETEXT_PRIVATE_LIMIT": "1G"}

# argv: the library, the backing. A page of it is changed; `page` is where.
CHANGING = """
import mmap, pyhugetext
backing, NONE, R, RX = sys.argv[2], 0, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_EXEC
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

def protect(page, protection, size=4096):
    assert libc.mprotect(page, size, protection) == 0

def permissions(page):
    return next(line[2] for line in h.maps() if line[0] <= page < line[1])

def remap():
    return h.region(pyhugetext.remap(backing=backing, include=path), path)

def page_of(function):
    return ctypes.cast(function, ctypes.c_void_p).value // 4096 * 4096
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 MB of text in many 2 MiB pages, and 3 MB of constants behind it."""
    directory = tmp_path_factory.mktemp("protections")
    source = (
        big_source(FUNCTIONS, padding=10_000)
        + """
__asm__(".section .rodata\\n.balign 4096\\n.globl constants\\n.type constants,%object\\n"
        "constants:\\n.fill 3000000, 1, 0x5a\\n.size constants,.-constants\\n.text");
"""
    )
    made = compile_object(source, directory / "sample.o")
    return link(directory / "libsample.so", [made], None, "-shared", "-Wl,-z,separate-code")


@pytest.fixture(params=BACKINGS)
def backing(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "store":
        skip_unless_huge(name)
    return name


def run(python: Run, sample: Path, backing: str, code: str) -> dict:
    """What a child reports of the sample in which it changes protections."""
    code = f"{PRELUDE}{CHANGING}library = ctypes.CDLL(path)\n{code}\nh.report(record)\n"
    record = last_record(python(code, str(sample), backing, env=OFF))
    if backing == "store" and not record["whole"]:
        pytest.skip("no store here")
    return record


@pytest.mark.parametrize("protection", ["NONE", "R"])
def test_text_that_may_not_be_executed_stays_so(
    python: Run, sample: Path, backing: str, protection: str
) -> None:
    record = run(
        python,
        sample,
        backing,
        f"""
function = library.f_{FUNCTIONS // 2}
page = page_of(function)
protect(page, {protection})
changed = permissions(page)
region = remap()
record = {{"whole": region["mapped_bytes"], "coverable": region["coverable_bytes"],
          "text": region["text_bytes"], "changed": changed, "remapped": permissions(page),
          "others": library.f_1(5)}}
pyhugetext.restore()
record["restored"] = permissions(page)
protect(page, RX)
record["result"] = function(5)
region = remap()
record["again"] = [region["mapped_bytes"], region["coverable_bytes"], library.f_sum(7)]
record["is executable again"] = permissions(page)
""",
    )
    assert record["changed"] == {"NONE": "---p", "R": "r--p"}[protection]
    assert record["remapped"] == record["restored"] == record["changed"]
    assert record["others"] == 5 * 3 + 1
    assert record["result"] == 5 * 3 + FUNCTIONS // 2
    # Its 2 MiB page stays as it is, the others do not.
    assert record["whole"] == record["coverable"] > 0
    mapped, coverable, total = record["again"]
    assert mapped == coverable == record["coverable"] + (2 << 20)
    assert total == big_sum(7, FUNCTIONS)
    assert record["is executable again"] == "r-xp"


def test_constants_that_may_not_be_read_keep_their_bytes(
    python: Run, sample: Path, backing: str
) -> None:
    # In the 2 MiB page in which the text ends.
    record = run(
        python,
        sample,
        backing,
        """
protect(page := ctypes.addressof(ctypes.c_char.in_dll(library, "constants")), NONE)
region = remap()
record = {"whole": region["mapped_bytes"], "remapped": permissions(page)}
pyhugetext.restore()
record["restored"] = permissions(page)
protect(page, R)
record["bytes"] = ctypes.string_at(page, 4096) == b"\\x5a" * 4096
record["again"] = remap()["mapped_bytes"]
record["bytes again"] = ctypes.string_at(page, 4096) == b"\\x5a" * 4096
""",
    )
    assert record["remapped"] == record["restored"] == "---p"
    assert record["bytes"]
    assert record["bytes again"]
    assert record["again"] > record["whole"]


def test_text_that_the_program_unmapped_stays_free(python: Run, sample: Path, backing: str) -> None:
    record = run(
        python,
        sample,
        backing,
        f"""
page = page_of(library.f_{FUNCTIONS // 2})
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
assert libc.munmap(page, 4096) == 0
region = remap()
free = lambda: not any(line[0] <= page < line[1] for line in h.maps())
record = {{"whole": region["mapped_bytes"], "remapped": free()}}
pyhugetext.restore()
record["restored"] = free()
""",
    )
    assert record["remapped"]
    assert record["restored"]


def test_text_of_the_interpreter_that_may_not_be_executed_stays_so(
    python: Run, backing: str
) -> None:
    # Of a codec that nobody uses: 4 KiB that are never executed.
    code = (
        PRELUDE
        + CHANGING
        + """
here = page_of(ctypes.pythonapi.PyUnicode_DecodeUTF7Stateful)
path = next(line[5] for line in h.maps() if line[0] <= here < line[1])
protect(here, R)
changed = permissions(here)
region = remap()
record = {"whole": region["mapped_bytes"], "changed": changed, "remapped": permissions(here)}
pyhugetext.restore()
record["restored"] = permissions(here)
protect(here, RX)
record["again"] = remap()["mapped_bytes"]
record["utf-7"] = b"+AOQ-".decode("utf-7")
h.report(record)
"""
    )
    record = last_record(python(code, sys.executable, backing, env=OFF))
    if not record["again"]:
        pytest.skip("the interpreter has no text in 2 MiB pages here")
    assert record["changed"] == record["remapped"] == record["restored"] == "r--p"
    assert record["again"] > record["whole"]
    assert record["utf-7"] == "\xe4"
