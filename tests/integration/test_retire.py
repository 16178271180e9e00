"""Large text is moved out of the way instead of being unmapped: that is kept track of, given back,
and not done where it would do harm."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from support.common import HUGE, Run, big_source
from support.filters import why_no_filters
from support.layouts import PRELUDE, compile_object, last_record, link, skip_unless_huge

OFF = {"PYHUGETEXT": "0", "PYHUGETEXT_PRIVATE_LIMIT": "256M"}
FUNCTIONS = 24
# Of text a function; only the larger two sums are worth it.
LARGE, MIDDLE, SMALL = 4 << 20, 1 << 20, 1 << 19

# retired(): address, size and resident bytes of what was moved away, as smaps tells.
START = """
import re, pyhugetext
backing = sys.argv[2]
library = ctypes.CDLL(path)
library.f_sum.restype = ctypes.c_long
expected = library.f_sum(7)
low, high = h.span(path)

def touch():
    # Every page of the text, as constructors all over it would.
    for start, end, permissions, *_, name in h.maps():
        if name == path and permissions == "r-xp" and low <= start < high:
            return len(ctypes.string_at(start, end - start))

def retired():
    found, resident = [], 0
    for line in open("/proc/self/smaps"):
        if match := re.match("([0-9a-f]+)-([0-9a-f]+) r-xp .* (/.*)", line):
            start, end = int(match[1], 16), int(match[2], 16)
            inside = match[3] == path and not low <= start < high
            if inside:
                found.append([start, end - start])
        elif line[1] != "-" and line.startswith("Rss:") and inside:
            resident += int(line.split()[1]) * 1024
        elif line[0] in "0123456789abcdef":
            inside = False
    return found, resident

def remap():
    return h.region(pyhugetext.remap(backing=backing, include=path), path)
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    directory = tmp_path_factory.mktemp("retire")
    out = {}
    for padding in (LARGE, MIDDLE, SMALL):
        source = big_source(FUNCTIONS, padding=padding)
        file = compile_object(source, directory / f"{padding}.o")
        out[padding] = str(link(directory / f"lib{padding}.so", [file], None, "-shared"))
        file.unlink()
    return out


@pytest.fixture(autouse=True)
def able() -> None:
    skip_unless_huge("thp")
    numbers = platform.release().split(".")[:2]
    if tuple(int("".join(c for c in n if c.isdigit()) or 0) for n in numbers) < (5, 13):
        pytest.skip("mremap(2) knows MREMAP_DONTUNMAP of files since Linux 5.13")


def run(python: Run, code: str, library: str, **options: Any) -> Any:
    return last_record(python(PRELUDE + START + code, library, "thp", env=OFF, **options))


def test_large_text_is_moved_away_and_given_back(python: Run, libraries: dict[int, str]) -> None:
    record = run(
        python,
        """
record = {"touched": touch()}
record["region"] = remap()
record["retired"], record["resident"] = retired()
from pyhugetext.process import inspect
record["stats"], record["seen from outside"] = (
    [[r.text_bytes, r.swapped_bytes] for r in stats.regions if r.path == path]
    for stats in (pyhugetext.stats(), inspect.inspect(os.getpid())))
record["right"] = library.f_sum(7) == expected
record["restored"] = h.region(pyhugetext.restore(), path)
record["left"] = retired()
record["right"] &= library.f_sum(7) == expected
h.report(record)
""",
        libraries[LARGE],
    )
    assert record["right"]
    assert record["region"]["mapped_bytes"] == record["region"]["coverable_bytes"] > 64 << 20
    [[start, size]] = record["retired"]
    assert start % HUGE == size % HUGE == 0
    assert size > 64 << 20
    # Its pages came along: none was taken out of the page table.
    assert record["resident"] == size
    # It is text of nobody's.
    region = record["region"]
    assert record["stats"] == [[region["text_bytes"], region["swapped_bytes"]]]
    assert record["seen from outside"] == record["stats"]
    assert record["restored"]["mapped_bytes"] == 0
    assert record["left"] == [[], 0]


def test_smaller_text_is_unmapped_as_ever(python: Run, libraries: dict[int, str]) -> None:
    code = "touch(); h.report([remap(), retired()])"
    region, (retired, _) = run(python, code, libraries[SMALL])
    assert region["mapped_bytes"] > 8 << 20
    assert retired == []


@pytest.mark.parametrize(
    "before",
    [
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, -1))",
        "from support import harm as f; f.install(i for r in f.KERNELS['5.10'] for i in f.refuse_rule(r))",
        "from support import harm as f; f.install(f.refuse_rule((f.NUMBERS['prlimit64'], None, 1)))",
    ],
    ids=["limited address space", "kernel before 5.13", "limit unknown"],
)
def test_where_it_cannot_be_moved_it_is_unmapped(
    python: Run, libraries: dict[int, str], before: str
) -> None:
    code = f"""
{before}
touch()
h.report([remap(), retired(), library.f_sum(7) == expected, pyhugetext.restore().mapped_bytes])
"""
    region, (retired, _), right, left = run(python, code, libraries[LARGE])
    assert right
    assert region["mapped_bytes"] == region["coverable_bytes"] > 0
    assert retired == []
    assert left == 0


def test_place_that_the_kernel_gave_away_is_not_unmapped(
    python: Run, libraries: dict[int, str]
) -> None:
    # As Linux 5.7 to 5.12 do it: the place is unmapped, another thread maps something there, and
    # the call is refused.
    code = """
import select, struct, threading
from support import harm as f
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
told, listener, places = threading.Event(), [], []

def refuse():
    told.wait()
    while True:
        notice = ctypes.create_string_buffer(80)
        if libc.ioctl(listener[0], ctypes.c_ulong(f._RECEIVE), notice):
            continue
        place, length = struct.unpack_from("=Q", notice, 64)[0], struct.unpack_from("=Q", notice, 40)[0]
        assert libc.munmap(place, length) == 0
        assert libc.mmap(place, 4096, 3, 0x100022, -1, 0) == place
        ctypes.memset(place, 7, 4096)
        places.append(place)
        reply = struct.pack("=QqiI", struct.unpack_from("=Q", notice)[0], 0, -22, 0)
        libc.ioctl(listener[0], ctypes.c_ulong(f._SEND), ctypes.create_string_buffer(reply, 24))

threading.Thread(target=refuse, daemon=True).start()
touch()
listener.append(f.install([
    (f._LOAD, 0, 0, f._NR), (f._EQUAL, 0, 3, f.NUMBERS["mremap"]),
    (f._LOAD, 0, 0, f._ARGUMENTS + 8 * 3), (f._EQUAL, 0, 1, f.MREMAP_AWAY),
    (f._RETURN, 0, 0, f._NOTIFY)], listen=True))
told.set()
region = remap()
there = [ctypes.string_at(place, 4096) == bytes([7]) * 4096 for place in places]
pyhugetext.restore()
remap()
h.report([region, there, len(places), library.f_sum(7) == expected])
"""
    reason = why_no_filters()
    if reason:
        pytest.skip(f"no seccomp filters here: {reason}")
    region, there, tries, right = run(python, code, libraries[LARGE])
    assert region["mapped_bytes"] == region["coverable_bytes"] > 0
    assert there == [True]
    assert tries == 1
    assert right


def test_locked_text_stays_no_second_time(python: Run, libraries: dict[int, str]) -> None:
    code = """
libc = ctypes.CDLL(None, use_errno=True)
text = next(line for line in h.maps() if line[5] == path and line[2] == "r-xp")
if libc.mlock(ctypes.c_void_p(text[0]), ctypes.c_size_t(text[1] - text[0])):
    h.report(None)
else:
    h.report([remap(), retired(), library.f_sum(7) == expected])
"""
    record = run(python, code, libraries[LARGE])
    if record is None:
        pytest.skip("mlock is refused (needs root or a large RLIMIT_MEMLOCK)")
    region, (retired, _), right = record
    assert right
    assert region["mapped_bytes"] == region["coverable_bytes"] > 0
    assert retired == []


def test_swap_that_fails_gets_its_pages_back(python: Run, libraries: dict[int, str]) -> None:
    code = """
from support import harm as f
start = remap()["start"]
pyhugetext.restore()
touch()
f.install(f.refuse_rule((f.NUMBERS["mremap"], (4, start & 0xffffffff, False), 12)))
region = remap()
gone = retired()[0]
low = high = 0  # what counts is in its place again
h.report([region, gone, retired(), library.f_sum(7) == expected])
"""
    region, gone, (_, resident), right = run(python, code, libraries[LARGE])
    assert right
    assert region["mapped_bytes"] == 0
    assert "mremap failed with ENOMEM" in region["reason"]
    assert gone == []
    assert resident > 64 << 20


def test_closed_library_takes_it_along(python: Run, libraries: dict[int, str]) -> None:
    code = """
import _ctypes
touch()
remap()
before = retired()[0]
_ctypes.dlclose(library._handle)
pyhugetext.stats()
h.report([before, [line for line in h.maps() if line[5] == path]])
"""
    before, after = run(python, code, libraries[LARGE])
    assert len(before) == 1
    assert after == []


def test_child_gives_back_its_own(python: Run, libraries: dict[int, str]) -> None:
    code = """
touch()
remap()
child = os.fork()
if child == 0:
    pyhugetext.restore()
    os._exit(0 if not retired()[0] and library.f_sum(7) == expected else 1)
status = os.waitpid(child, 0)[1]
h.report([status, len(retired()[0]), library.f_sum(7) == expected])
"""
    assert run(python, code, libraries[LARGE]) == [0, 1, True]


def test_running_threads_do_not_notice(python: Run, libraries: dict[int, str]) -> None:
    code = """
import threading, time
from pyhugetext import _native
sys.setswitchinterval(1e-4)  # the thread that remaps need not wait for the others for long
request = h.request(backing, path)
stop, wrong, calls = False, 0, 0

def work():
    global wrong, calls
    while not stop:
        wrong += library.f_sum(7) != expected
        calls += 1

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
rounds, most, until = 0, 0, time.monotonic() + 60
while rounds < 60 and time.monotonic() < until:
    _native.remap(**request)
    most = max(most, len(retired()[0]))
    _native.restore()
    rounds += 1
stop = True
for thread in threads:
    thread.join()
h.report([rounds, most, calls > rounds, wrong, retired()[0]])
"""
    rounds, most, busy, wrong, left = run(python, code, libraries[MIDDLE])
    assert rounds > 0
    assert most == 1
    assert busy
    assert wrong == 0
    assert left == []
