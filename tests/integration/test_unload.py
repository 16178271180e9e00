"""dlclose of a remapped library takes all of it away, and what is loaded there next is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.common import Run, big_source, big_sum
from support.layouts import (
    LARGE_PAGES,
    PRELUDE,
    compile_object,
    last_record,
    link,
    skip_unless_huge,
)

FUNCTIONS = 400
PADDING = 12_000
BACKINGS = ("memfd", "thp")
OFF = {"PYHUGETEXT": "0"}
LARGE = ("-shared", LARGE_PAGES)

# Two libraries of the same layout, to the byte; only the second's results are one more. argv: the
# first, the second, the backing.
UNLOADING = """
import _ctypes, pyhugetext
other, backing = sys.argv[2:4]
other_backing = {"memfd": "thp", "thp": "memfd"}[backing]
closed = pyhugetext.stats()
low, high = [0, 0]

def load(file, remap=True):
    global low, high
    library = ctypes.CDLL(file)
    library.f_sum.restype = ctypes.c_long
    low, high = h.span(file)
    if remap:
        region = h.region(pyhugetext.remap(backing=backing, include=(path, other)), file)
        assert region["mapped_bytes"] == region["coverable_bytes"] > 0, region
    return library

def unload(library):
    _ctypes.dlclose(library._handle)

def left():
    # Python itself may have mapped memory there since: writable, of no file, not executable.
    return [line for line in h.maps() if "pyhugetext:" in line[5] or line[5] in (path, other)
            or (line[0] < high and line[1] > low and "w" not in line[2])]
"""


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("unload")
    source = big_source(FUNCTIONS, padding=PADDING)
    return [
        compile_object(source, directory / "first.o"),
        compile_object(source.replace("return sum;", "return sum + 1;"), directory / "second.o"),
    ]


@pytest.fixture(params=["small pages", "large pages", "one segment"])
def pair(request: pytest.FixtureRequest, objects: list[Path], tmp_path: Path) -> list[str]:
    """The two libraries, without a build-id that would tell them apart."""
    flags = {
        "small pages": ("-shared",),
        "large pages": LARGE,
        # Huge pages with nothing but executable mappings below.
        "one segment": ("-shared", "-Wl,-z,noseparate-code"),
    }[request.param]
    names = ("libfirst.so", "libother.so")
    return [
        str(link(tmp_path / name, [file], None, *flags, "-Wl,--build-id=none"))
        for name, file in zip(names, objects)
    ]


@pytest.fixture(params=BACKINGS)
def backing(request: pytest.FixtureRequest) -> str:
    skip_unless_huge(request.param)
    name: str = request.param
    return name


def test_dlclose_leaves_nothing(python: Run, pair: list[str], backing: str) -> None:
    code = (
        PRELUDE
        + UNLOADING
        + """
library = load(path)
before = pyhugetext.stats()
unload(library)
record = {"left": left()}
after = pyhugetext.stats()
record["stats"] = [[s.text_bytes, s.mapped_bytes, s.huge_bytes, s.private_bytes, len(s.regions)]
                   for s in (closed, before, after)]
record["restored"] = pyhugetext.restore().mapped_bytes
record["left later"] = left()
h.report(record)
"""
    )
    record = last_record(python(code, *pair, backing, env=OFF))
    assert record["left"] == record["left later"] == []
    closed, before, after = record["stats"]
    assert before[1] > 0
    assert before[2] == before[3] > 0
    # The binding of pyhugetext itself came in between.
    assert after[1:4] == closed[1:4] == [0, 0, 0]
    assert after[0] < before[0]
    assert after[4] == before[4] - 1
    assert record["restored"] == 0


def test_two_hundred_reloads(python: Run, pair: list[str], backing: str) -> None:
    code = (
        PRELUDE
        + UNLOADING
        + """
from pyhugetext import _native
places, wrong, unclean, history = [], [], [], []
for i in range(200):
    file = (path, other)[i // 2 % 2]  # the same again, then the other one, and so on
    library = load(file)
    places.append(low)
    if library.f_sum(5) != int(sys.argv[4]) + (file == other):
        wrong.append(i)
    if i % 20 == 0:
        pyhugetext.restore()
        if library.f_sum(5) != int(sys.argv[4]) + (file == other):
            wrong.append(i)
    unload(library)
    if left():
        unclean.append((i, left()))
    if i % 10 == 0:
        regions = _native.snapshot()["regions"]
        history.append((len(regions), sum(r["mapped_bytes"] for r in regions), len(h.maps())))
h.report({"same place": sum(a == b for a, b in zip(places, places[1:])), "wrong": wrong,
          "unclean": unclean, "history": history, "fds": len(os.listdir("/proc/self/fd"))})
"""
    )
    expected = str(big_sum(5, FUNCTIONS))
    record = last_record(python(code, *pair, backing, expected, env=OFF))
    assert record["wrong"] == record["unclean"] == []
    # Loading at the same address is what is dangerous; a loader usually does.
    assert record["same place"] > 0
    regions, mapped, mappings = zip(*record["history"])
    assert len(set(regions)) == 1
    assert set(mapped) == {0}
    assert max(mappings) <= min(mappings) + 10
    assert record["fds"] < 20


@pytest.mark.parametrize("there", ["free", "taken"])
@pytest.mark.parametrize("call", ["remap with another backing", "restore", "remap"])
def test_calls_after_dlclose_touch_nothing(
    python: Run, pair: list[str], backing: str, call: str, there: str
) -> None:
    # What is where the library was is free, or memory of the program's.
    code = (
        PRELUDE
        + UNLOADING
        + """
import mmap
library = load(path)
unload(library)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000  # MAP_FIXED_NOREPLACE
size, call, taken = high - low, sys.argv[4], sys.argv[5] == "taken"
if taken:
    got = libc.mmap(ctypes.c_void_p(low), ctypes.c_size_t(size), 3, flags, -1, ctypes.c_long(0))
    assert got == low
    ctypes.memset(low, 0x5a, size)
if call == "restore":
    pyhugetext.restore()
else:
    pyhugetext.remap(backing=backing if call == "remap" else other_backing, include=path)
kept = not taken or ctypes.string_at(low, size) == b"\\x5a" * size
h.report({"kept": kept, "left": left(), "mapped": pyhugetext.stats().mapped_bytes})
"""
    )
    record = last_record(python(code, *pair, backing, call, there, env=OFF))
    assert record["kept"]
    assert record["left"] == []
    assert record["mapped"] == 0


def test_other_library_at_the_address_survives_a_change_of_backing(
    python: Run, pair: list[str], backing: str
) -> None:
    code = (
        PRELUDE
        + UNLOADING
        + """
first = load(path)
place = low
unload(first)
second = load(other, remap=False)
region = h.region(pyhugetext.remap(backing=other_backing, include=other), other)
h.report({"same place": low == place, "sum": second.f_sum(5), "region": region})
"""
    )
    record = last_record(python(code, *pair, backing, env=OFF))
    if not record["same place"]:
        pytest.skip("this loader put the second library elsewhere")
    assert record["sum"] == big_sum(5, FUNCTIONS) + 1
    region = record["region"]
    assert region["mapped_bytes"] == region["coverable_bytes"] > 0
    assert region["backing"] == {"memfd": "thp", "thp": "memfd"}[backing]


CHURN = """
#include <dlfcn.h>
#include <pthread.h>

static pthread_t thread;
static const char *file;
static long expected, loops, wrong;
static volatile long done;

static void *churn(void *unused) {
    for (; done < loops; ++done) {
        void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        long (*sum)(int) = handle ? (long (*)(int))dlsym(handle, "f_sum") : 0;
        if (!sum || sum(5) != expected) ++wrong;
        if (handle) dlclose(handle);
    }
    return 0;
}
int start(const char *path, long value, long count) {
    file = path;
    expected = value;
    loops = count;
    return pthread_create(&thread, 0, churn, 0);
}
long progress(void) { return done; }
long finish(void) { pthread_join(thread, 0); return wrong; }
"""


def test_unloading_while_others_remap_and_restore(
    python: Run, pair: list[str], tmp_path: Path
) -> None:
    churn = link(
        tmp_path / "libchurn.so",
        [compile_object(CHURN, tmp_path / "churn.o")],
        None,
        "-shared",
        "-pthread",
        "-ldl",
    )
    code = (
        PRELUDE
        + """
import pyhugetext
from pyhugetext import _native
pyhugetext.stats()
requests = [h.request(name, path) for name in ("memfd", "thp")]
churn, loops = ctypes.CDLL(sys.argv[3]), 500
churn.progress.restype = churn.finish.restype = ctypes.c_long
name = path.encode()  # which the thread reads until it ends
assert churn.start(name, ctypes.c_long(int(sys.argv[4])), ctypes.c_long(loops)) == 0
rounds = 0
while churn.progress() < loops:
    # Each call puts back what the one before swapped, or closes in on what is just going away.
    _native.remap(**requests[rounds % 2])
    if rounds % 3 == 0:
        _native.restore()
    rounds += 1
wrong = churn.finish()
left = [line for line in h.maps() if "pyhugetext:" in line[5] or line[5] == path]
h.report({"rounds": rounds, "wrong": wrong, "left": left})
"""
    )
    expected = str(big_sum(5, FUNCTIONS))
    record = last_record(python(code, *pair, str(churn), expected, env=OFF))
    assert record["rounds"] > 0
    assert (record["wrong"], record["left"]) == (0, [])
