"""A start from a warm store: huge pages, no private memory, no Python code; also where the kernel
or an administrator forbids what other ways need."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.common import HUGE
from support.libraries import USE_LIBRARY, make_library
from support.store import UNSET, Store, filled_store
from support.users import require_root

TOUCH = """
import ctypes, pyhugetext
for region in pyhugetext.stats().regions:
    if region.swapped_bytes:
        for at in range(region.start, region.end, 4096):
            ctypes.string_at(at, 1)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A warm store at its default place."""
    return filled_store(tmp_path / "cache" / "pyhugetext")


@pytest.fixture
def default(store: Store) -> dict[str, str]:
    """Settings of a user who set none, but whose cache is elsewhere."""
    unset = {"PYHUGETEXT_STORE": UNSET, "PYHUGETEXT_BACKING": UNSET}
    return {**unset, "XDG_CACHE_HOME": str(store.root.parent)}


SMAPS = """
import re
def kilobytes(field, path=""):
    total, inside = 0, False
    for line in open("/proc/self/smaps", errors="surrogateescape"):
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            inside = path in line
        elif inside and line.startswith(field + ":"):
            total += int(line.split()[1])
    return total
"""


@pytest.mark.quick
def test_interpreter_s_text_is_mapped_by_huge_pages_of_the_page_cache(
    store: Store, default: dict[str, str]
) -> None:
    code = f"""
print(kilobytes("FilePmdMapped", {str(store.root)!r}), kilobytes("AnonHugePages"),
      kilobytes("Anonymous", {str(store.root)!r}))
"""
    result = store.run(TOUCH + SMAPS + code, **default)
    assert result.stderr == ""
    huge, anonymous, private = (int(size) * 1024 for size in result.stdout.split())
    interpreter = store.start(**default).interpreter
    assert interpreter["backing"] == "store"
    assert interpreter["mapped_bytes"] == interpreter["coverable_bytes"]
    assert huge == interpreter["swapped_bytes"] >= HUGE
    if os.path.realpath(sys.executable) == "/usr/bin/python3.11":
        assert huge == 4 << 20
    assert anonymous == 0
    assert private == 0


@pytest.mark.quick
def test_warm_start_runs_no_python_code_of_the_store_s(
    store: Store, default: dict[str, str]
) -> None:
    report = store.start(**default)
    # A .start file can only name what the import system finds.
    package = {"pyhugetext"} if sys.version_info >= (3, 15) else set()
    assert report.modules == {"pyhugetext._boot"} | package
    assert report.mapped_below(store.root)


def test_warm_start_adds_little_private_memory(store: Store, default: dict[str, str]) -> None:
    write_back(store.copy)  # until then the kernel calls a page dirty that one process maps
    code = """
import re
print(re.search("Private_Dirty: +([0-9]+)", open("/proc/self/smaps_rollup").read())[1])
"""

    def dirty(**settings: str) -> int:
        sizes = [int(store.run(code, **default, **settings).stdout) for _ in range(7)]
        return int(statistics.median(sizes))

    added = dirty() - dirty(PYHUGETEXT="0")
    assert added < 256  # KiB


def write_back(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def drop_from_cache(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@pytest.mark.parametrize("way", ["fadvise", pytest.param("drop_caches", marks=pytest.mark.alone)])
def test_pages_are_huge_again_after_eviction(
    store: Store, default: dict[str, str], way: str
) -> None:
    write_back(store.copy)
    if way == "fadvise":
        drop_from_cache(store.copy)
    else:
        require_root()
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("1\n")
    report = store.start(TOUCH, **default)
    assert report.interpreter["status"] == "huge"
    assert report.interpreter["huge_bytes"] == report.interpreter["swapped_bytes"]


def test_pages_are_huge_again_when_an_evicted_entry_was_compared(store: Store) -> None:
    """Comparing reads the whole copy; after a restart of the machine that is how it is found."""
    write_back(store.copy)
    drop_from_cache(store.copy)
    inode = store.copy.stat().st_ino
    store.record.unlink()
    for _ in range(2):
        report = store.start(TOUCH)
        assert report.interpreter["huge_bytes"] == report.interpreter["swapped_bytes"] >= HUGE
    assert store.copy.stat().st_ino == inode


@pytest.mark.quick
def test_forked_child_runs_from_the_same_pages(store: Store, default: dict[str, str]) -> None:
    code = """
import os
path = %r
parent = [line for line in open("/proc/self/maps") if path in line]
child = os.fork()
if child == 0:
    text = str(sorted(range(1000)))
    same = [line for line in open("/proc/self/maps") if path in line] == parent
    os._exit(0 if same and parent and kilobytes("Anonymous", path) == 0 else 1)
print(os.waitpid(child, 0)[1], kilobytes("Anonymous", path))
"""
    result = store.run(SMAPS + code % str(store.root), **default)
    assert (result.stdout, result.stderr) == ("0 0\n", "")


# Where other ways are forbidden.


@pytest.fixture
def thp_never() -> Iterator[None]:
    require_root()
    path = "/sys/kernel/mm/transparent_hugepage/enabled"
    try:
        with open(path) as file:
            before = re.findall(r"\[(\w+)\]", file.read())[0]
        with open(path, "w") as file:
            file.write("never")
    except OSError as error:
        pytest.skip(f"the THP setting cannot be changed: {error}")
    try:
        yield
    finally:
        with open(path, "w") as file:
            file.write(before)


@pytest.mark.alone
def test_huge_pages_come_without_transparent_huge_pages(
    store: Store, default: dict[str, str], thp_never: None
) -> None:
    interpreter = store.start(TOUCH, **default).interpreter
    assert interpreter["backing"] == "store"
    assert interpreter["huge_bytes"] == interpreter["swapped_bytes"] >= HUGE


# Launchers put a restriction on themselves and become the program; exit status 77 where the
# kernel does not know it. They do not remap themselves.
LAUNCH = (sys.executable, "-I", "-S", "-c")

MDWE = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""

# What systemd's MemoryDenyWriteExecute=yes installs: no mapping that is writable and executable,
# no mapping made executable, no executable shared memory.
SECCOMP = """
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
numbers = {"x86_64": (9, 10, 329, 30), "aarch64": (222, 226, 288, 196)}
mmap, mprotect, pkey_mprotect, shmat = numbers[platform.machine()]
WRITE, EXECUTE, SHM_EXEC = 2, 4, 0o100000
LOAD, EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06
ALLOW, REFUSE = 0x7fff0000, 0x00050000 | 1
def forbid(number, argument, bits):
    return [(LOAD, 0, 0, 0), (EQUAL, 0, 4, number), (LOAD, 0, 0, 16 + 8 * argument),
            (AND, 0, 0, bits), (EQUAL, 0, 1, bits), (RETURN, 0, 0, REFUSE)]
program = (forbid(mmap, 2, WRITE | EXECUTE) + forbid(mprotect, 2, EXECUTE)
           + forbid(pkey_mprotect, 2, EXECUTE) + forbid(shmat, 2, SHM_EXEC)
           + [(RETURN, 0, 0, ALLOW)])
code = b"".join(struct.pack("<HBBI", *step) for step in program)
buffer = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(
        22, 2, ctypes.byref(Program(len(program), ctypes.addressof(buffer)))):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""
PROBE = """
import mmap, sys
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except OSError:
    sys.exit(78)
"""


@pytest.mark.parametrize("launcher", [MDWE, SECCOMP], ids=["mdwe", "seccomp"])
def test_store_is_used_where_no_memory_may_become_executable(
    store: Store, default: dict[str, str], launcher: str
) -> None:
    prefix = (*LAUNCH, launcher)
    probe = store.run(PROBE, prefix=prefix, PYHUGETEXT="0")
    if probe.returncode == 77:
        pytest.skip("this kernel does not know the restriction")
    assert probe.returncode == 78, f"the restriction does not hold: {probe}"
    interpreter = store.start(TOUCH, prefix=prefix, **default).interpreter
    assert interpreter["backing"] == "store"
    assert interpreter["huge_bytes"] == interpreter["swapped_bytes"] >= HUGE
    # A cold store is built there as well.
    store.record.unlink()
    store.copy.unlink()
    report = store.start(prefix=prefix)
    assert report.interpreter["backing"] == "store", report.reasons


# Threads.

THREADS = """
#include <pthread.h>
#include <sys/resource.h>
static volatile int stop;
static volatile long rounds, wrong;
static pthread_t threads[4];
static void *work(void *argument) {
    int x = (int)(long)argument;
    setpriority(PRIO_PROCESS, 0, 19); /* of this thread: the one that remaps is to find a processor */
    while (!stop) {
        if (all(x) != 9L * x + 69) __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
        __atomic_add_fetch(&rounds, 1, __ATOMIC_RELAXED);
    }
    return 0;
}
void start_threads(void) {
    for (long i = 0; i < 4; ++i) pthread_create(&threads[i], 0, work, (void *)i);
}
long count_rounds(void) { return rounds; }
long stop_threads(void) {
    stop = 1;
    for (int i = 0; i < 4; ++i) pthread_join(threads[i], 0);
    return wrong;
}
"""


def test_threads_run_on_while_text_moves_to_the_store_and_back(
    store: Store, tmp_path: Path
) -> None:
    library = make_library(tmp_path, more=THREADS)
    store.start(USE_LIBRARY, str(library))
    code = """
    import ctypes, sys, pyhugetext
    library = ctypes.CDLL(sys.argv[1])
    library.count_rounds.restype = library.stop_threads.restype = ctypes.c_long
    library.start_threads()
    idle = 0
    for _ in range(200):
        before = library.count_rounds()
        for change, backing in ((pyhugetext.restore, "none"), (pyhugetext.remap, "store")):
            stats = change()
            for region in stats.regions:
                if region.coverable_bytes:
                    assert region.backing == backing, region
        idle += library.count_rounds() == before
    print(library.stop_threads(), idle < 200, library.count_rounds() > 0)
    """
    result = store.run(code, str(library))
    assert (result.stdout, result.stderr, result.returncode) == ("0 True True\n", "", 0)


@pytest.mark.quick
def test_processes_share_one_copy(store: Store, default: dict[str, str]) -> None:
    """Of what two processes touch, each is charged half."""
    code = (
        SMAPS
        + f"""
import sys
path = {str(store.root)!r}
print(flush=True)
sys.stdin.readline()
print(kilobytes("Rss", path), kilobytes("Pss", path), kilobytes("Private_Clean", path), flush=True)
sys.stdin.readline()
"""
    )
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen([sys.executable, "-c", TOUCH + code], env=store.environment(**default),
                         stdin=pipe, stdout=pipe, text=True)
        for _ in range(2)
    ]  # fmt: skip
    sizes = []
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        sizes.append([int(size) for size in child.stdout.readline().split()])
    for child in children:
        child.communicate("\n")
    for resident, share, private in sizes:
        assert resident >= 2048
        assert share <= resident // 2
        assert private == 0
