"""remap() and restore() while other threads run the text, fork and vfork. A hang is a failed test:
every child has a time limit, and none needs a fast machine to stay inside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.common import Run, big_source
from support.layouts import PRELUDE, compile_object, last_record, link, skip_unless_huge

FUNCTIONS = 400
PRIVATE = ("memfd", "thp")
OFF = {"PYHUGETEXT": "0"}

# On a machine a hundred times slower the rounds end early; what was done until then must be right.
ROUNDS, FORK_ROUNDS, SECONDS = int(os.environ.get("ROUNDS", "1000")), 150, 60

WORKERS = f"""
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int stop;
static pthread_t threads[8];
static long calls[8], wrong[8];
static int (*const table[])(int) = {{{", ".join(f"f_{i}" for i in range(FUNCTIONS))}}};

static void *work(void *argument) {{
    long me = (long)argument;
    /* Of this thread only: the thread that remaps is to find a processor. */
    setpriority(PRIO_PROCESS, 0, 19);
    for (int i = (int)me, x = 1; !stop; i = (i + 7) % {FUNCTIONS}, ++x, x &= 0xffff) {{
        if (table[i](x) != x * 3 + i) ++wrong[me];
        ++calls[me];
    }}
    return 0;
}}

static void *breed(void *argument) {{
    long me = (long)argument;
    while (!stop) {{
        int status = -1;
        pid_t child = vfork();
        if (child == 0) _exit(table[calls[me] % {FUNCTIONS}](0) == calls[me] % {FUNCTIONS} ? 7 : 8);
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
            WEXITSTATUS(status) != 7)
            ++wrong[me];
        ++calls[me];
    }}
    return 0;
}}

/* Somebody who maps memory all the time gets the addresses that were just given back. */
static void *settle(void *argument) {{
    long me = (long)argument;
    while (!stop) {{
        size_t size = (1 + calls[me] % 512) * 4096;
        char *place = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (place == MAP_FAILED) continue;
        place[0] = place[size - 1] = (char)calls[me];
        usleep(50);
        if (place[0] != (char)calls[me] || place[size - 1] != (char)calls[me]) ++wrong[me];
        munmap(place, size);
        ++calls[me];
    }}
    return 0;
}}

int start(int workers, int breeders, int settlers) {{
    for (long i = 0; i < workers + breeders + settlers; ++i) {{
        void *(*body)(void *) = i < workers ? work : i < workers + breeders ? breed : settle;
        if (pthread_create(&threads[i], 0, body, (void *)i)) return -1;
    }}
    return 0;
}}

/* Ends them; returns how many results were wrong. out[i]: what thread i did. */
long finish(int count, long *out) {{
    long sum = 0;
    stop = 1;
    for (int i = 0; i < count; ++i) {{
        pthread_join(threads[i], 0);
        out[i] = calls[i];
        sum += wrong[i];
    }}
    return sum;
}}
"""

# Defines remap_rounds(): as many rounds as asked for, less only when time runs out. stats() takes
# longer than a round; so most rounds go through the binding, to be 2,000 in a few seconds.
ROUNDS_OF = f"""
import time, pyhugetext
from pyhugetext import _native
library = ctypes.CDLL(path)
library.f_sum.restype = library.finish.restype = ctypes.c_long
backing, expected = sys.argv[2], library.f_sum(5)

def regions():
    return [r for r in _native.snapshot()["regions"] if r["path"] == path]

def remap_rounds(wanted):
    done = covered = 0
    until = time.monotonic() + {SECONDS}
    request = h.request(backing, path)
    while done < wanted and time.monotonic() < until:
        if done % 50:
            _native.remap(**request)
            [region] = regions()
        else:
            region = h.region(pyhugetext.remap(backing=backing, include=path), path)
        assert region["coverable_bytes"] > 0
        covered += region["mapped_bytes"] == region["coverable_bytes"]
        if done % 50:
            _native.restore()
            [region] = regions()
        else:
            region = h.region(pyhugetext.restore(), path)
        assert region["mapped_bytes"] == 0, region
        done += 1
    return done, covered
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The workers are in the library, so that they return into what moves under them.
    directory = tmp_path_factory.mktemp("threads")
    source = big_source(FUNCTIONS, padding=12_000) + WORKERS
    objects = [compile_object(source, directory / "workers.o")]
    return link(directory / "libworkers.so", objects, None, "-shared", "-pthread")


def run_rounds(python: Run, library: Path, backing: str, code: str, wanted: int) -> dict[str, Any]:
    """Runs code that remaps and restores while the library's threads are at work; returns what it
    reports. No thread may have seen anything wrong, or have stood still."""
    skip_unless_huge(backing)
    record: dict[str, Any] = last_record(
        python(PRELUDE + ROUNDS_OF + code, str(library), backing, env=OFF)
    )
    assert record["wrong"] == 0
    assert min(record["calls"]) > 0
    assert 0 < record["rounds"] <= wanted
    # A round may find no huge page free; it must not be the rule.
    assert record["covered"] >= 0.9 * record["rounds"]
    return record


@pytest.mark.parametrize("backing", PRIVATE)
def test_threads_that_never_pause(python: Run, library: Path, backing: str) -> None:
    code = f"""
assert library.start(4, 0, 1) == 0
rounds, covered = remap_rounds({ROUNDS})
calls = (ctypes.c_long * 5)()
wrong = library.finish(5, calls)
h.report({{"rounds": rounds, "covered": covered, "wrong": wrong, "calls": list(calls)}})
"""
    run_rounds(python, library, backing, code, ROUNDS)


@pytest.mark.parametrize("backing", PRIVATE)
def test_fork_vfork_and_subprocess_meanwhile(python: Run, library: Path, backing: str) -> None:
    code = f"""
import signal, subprocess, threading, warnings
# 3.12 and later warn of fork() with threads, which is what is tested here.
warnings.simplefilter("ignore", DeprecationWarning)
# No module is to be at its first import when another thread forks: the child would wait for that
# module's lock for ever, as with any module of Python's.
pyhugetext.stats()
stop, counts, errors = threading.Event(), {{"fork": 0, "stats": 0, "spawn": 0}}, []

def child(full):
    signal.alarm(30)  # a child that hangs is a failed child
    right = library.f_sum(5) == expected
    if full:
        # Where the rounds stood is not known; that the answer fits itself is.
        region = h.region(pyhugetext.stats(), path)
        right = right and region["mapped_bytes"] in (0, region["coverable_bytes"])
        pyhugetext.restore()
        right = right and library.f_sum(5) == expected
    os._exit(7 if right else 8)

def fork():
    while not stop.is_set():
        full = counts["fork"] % 8 == 0
        pid = os.fork()
        if pid == 0:
            try:
                child(full)
            finally:
                os._exit(9)
        _, status = os.waitpid(pid, 0)
        if status != 7 << 8:
            errors.append(f"fork: wait status {{status}}, with stats() {{full}}")
        counts["fork"] += 1
        counts["stats"] += full

def spawn():
    command = [sys.executable, "-S", "-E", "-c", "print(7)"]
    while not stop.is_set():
        # close_fds=False lets subprocess use posix_spawn; otherwise it is vfork, or fork.
        for close in (False, True):
            done = subprocess.run(command, close_fds=close, stdout=subprocess.PIPE, timeout=60)
            if done.stdout != b"7\\n":
                errors.append(f"subprocess: {{done}}")
            counts["spawn"] += 1

threads = [threading.Thread(target=fork), threading.Thread(target=spawn)]
assert library.start(1, 1, 1) == 0
for thread in threads:
    thread.start()
try:
    rounds, covered = remap_rounds({FORK_ROUNDS})
finally:
    stop.set()
    for thread in threads:
        thread.join()
calls = (ctypes.c_long * 3)()
wrong = library.finish(3, calls)
h.report({{"rounds": rounds, "covered": covered, "wrong": wrong, "calls": list(calls),
          "errors": errors, **counts}})
"""
    record = run_rounds(python, library, backing, code, FORK_ROUNDS)
    assert record["errors"] == []
    assert record["fork"] > 0
    assert record["stats"] > 0
    assert record["spawn"] > 0


@pytest.mark.quick
def test_several_threads_call_remap_and_restore(python: Run, library: Path) -> None:
    code = (
        PRELUDE
        + ROUNDS_OF
        + """
import random, threading
errors, stop = [], threading.Event()

def shuffle(seed):
    choose = random.Random(seed)
    for _ in range(40):
        kind = choose.choice(("memfd", "thp", "restore", "stats"))
        if kind == "restore":
            stats = pyhugetext.restore()
        elif kind == "stats":
            stats = pyhugetext.stats()
        else:
            stats = pyhugetext.remap(backing=kind, include=path)
        check(h.region(stats, path))

def watch():
    # The part of stats() that is not Python's, all the time.
    while not stop.is_set():
        [region] = regions()
        check(region)

def check(region):
    if region["mapped_bytes"] not in (0, region["coverable_bytes"]):
        errors.append(region)
    if library.f_sum(5) != expected:
        errors.append("wrong result")

assert library.start(1, 0, 1) == 0
threads = [threading.Thread(target=shuffle, args=(seed,)) for seed in range(4)]
watchers = [threading.Thread(target=watch) for _ in range(2)]
for thread in threads + watchers:
    thread.start()
for thread in threads:
    thread.join()
stop.set()
for thread in watchers:
    thread.join()
calls = (ctypes.c_long * 2)()
h.report({"errors": errors, "wrong": library.finish(2, calls)})
"""
    )
    record = last_record(python(code, str(library), "auto", env=OFF))
    assert record == {"errors": [], "wrong": 0}


LISTER = """
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <unistd.h>

static int ready[2], end[2];
static pthread_t thread;

static int wait_in_list(struct dl_phdr_info *info, size_t size, void *data) {
    char byte;
    (void)info, (void)size, (void)data;
    return write(ready[1], "", 1) != 1 || read(end[0], &byte, 1) != 1 ? 2 : 1;
}
static void *list(void *data) {
    dl_iterate_phdr(wait_in_list, data);
    return NULL;
}
int begin(void) {
    char byte;
    if (pipe(ready) || pipe(end) || pthread_create(&thread, NULL, list, NULL)) return -1;
    return read(ready[0], &byte, 1) == 1 ? 0 : -1;
}
int finish(void) {
    return write(end[1], "", 1) == 1 ? pthread_join(thread, NULL) : -1;
}
"""


def test_import_that_fails_in_a_child_whose_parent_was_listing_objects(
    python: Run, tmp_path: Path
) -> None:
    objects = [compile_object(LISTER, tmp_path / "lister.o")]
    lister = link(tmp_path / "liblister.so", objects, None, "-shared", "-pthread")
    # glibc leaves the child the lock that the thread held. To find no file the import needs none.
    code = """
import ctypes, os, sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
lister = ctypes.CDLL(sys.argv[1])
assert lister.begin() == 0
child = os.fork()
if child == 0:
    loader = ExtensionFileLoader("missing", "/nonexistent/missing.so")
    try:
        loader.create_module(ModuleSpec("missing", loader, origin=loader.path))
    except ImportError:
        os._exit(7)
    os._exit(8)
status = os.waitpid(child, 0)[1]
assert lister.finish() == 0
print(os.WEXITSTATUS(status))
"""
    assert python(code, str(lister), timeout=60).stdout == "7\n"
