"""A program that patches its own text (mprotect, write, mprotect) while it is remapped or put
back: what it made writable stays where it is."""

from __future__ import annotations

import pytest

from support.common import TESTS, Run, big_source
from support.filters import needs_filters
from support.layouts import PRELUDE, last_record, skip_unless_huge

pytestmark = pytest.mark.quick

FUNCTIONS = 400

# The patch begins while the core makes the call `number`: long after it looked at the mappings,
# some time before it replaces them.
PATCHER = f"""
import os, select, struct, sys, threading
sys.path.insert(0, sys.argv[2])
import pyhugetext
from support import harm as f
library = ctypes.CDLL(path)
library.f_sum.restype = ctypes.c_long
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
expected = library.f_sum(5)
page = ctypes.cast(library.f_{FUNCTIONS // 2}, ctypes.c_void_p).value & -4096
begun = []

def protect(protection):
    if libc.mprotect(page, 4096, protection):
        raise OSError(ctypes.get_errno(), "mprotect")

def begin(listener):
    while True:
        notice = ctypes.create_string_buffer(80)
        if libc.ioctl(listener[0], ctypes.c_ulong(f._RECEIVE), notice):
            continue
        if not begun:
            protect(7)
        begun.append(1)
        reply = struct.pack("=QqiI", struct.unpack_from("=Q", notice)[0], 0, 0, 1)
        libc.ioctl(listener[0], ctypes.c_ulong(f._SEND), ctypes.create_string_buffer(reply, 24))

def patch_during(name, action):
    told, listener = threading.Event(), []
    def run():
        told.wait()
        begin(listener)
    threading.Thread(target=run, daemon=True).start()
    number = f.NUMBERS[name]
    rule = [(f._LOAD, 0, 0, f._NR), (f._EQUAL, 0, 1, number), (f._RETURN, 0, 0, f._NOTIFY)]
    listener.append(f.install(rule, listen=True))
    told.set()
    action()
    assert begun
    ctypes.memmove(page, bytes((ctypes.c_char * 16).from_address(page)), 16)
    protect(5)

def report():
    region = h.region(pyhugetext.stats(), path)
    pyhugetext.restore()
    h.report([region, library.f_sum(5) == expected, h.region(pyhugetext.stats(), path)])
"""


@pytest.fixture
def large(compile_library) -> str:
    return str(compile_library(big_source(FUNCTIONS, padding=20_000)))


@needs_filters
@pytest.mark.parametrize("kernel", ["this", "6.1"])
def test_text_made_writable_before_the_swap_is_left(python: Run, large: str, kernel: str) -> None:
    skip_unless_huge("memfd")
    code = f"""{PRELUDE}{PATCHER}
f.install(i for rule in f.KERNELS[{kernel!r}] for i in f.refuse_rule(rule))
patch_during("memfd_create", lambda: pyhugetext.remap(backing="memfd", include=path))
report()
"""
    result = python(code, large, str(TESTS), env={"PYHUGETEXT": "0"})
    region, right, after = last_record(result)
    assert right
    assert 0 < region["mapped_bytes"] < region["coverable_bytes"]
    assert "modified in memory" in region["reason"]
    assert after["mapped_bytes"] == 0


@needs_filters
def test_text_made_writable_before_it_is_put_back_stays(python: Run, large: str) -> None:
    skip_unless_huge("memfd")
    code = f"""{PRELUDE}{PATCHER}
pyhugetext.remap(backing="memfd", include=path)
patch_during("statx", pyhugetext.restore)
report()
"""
    result = python(code, large, str(TESTS), env={"PYHUGETEXT": "0"})
    region, right, _ = last_record(result)
    assert right
    assert region["swapped_bytes"] == 2 << 20
    assert "modified in memory" in region["reason"]
