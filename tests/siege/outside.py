"""The steps that others take: who traces this process, builds beside it, harms its store, or uses the
machine's memory."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from children import SECONDS, in_child
from world import LeftOut, World, Wrong

from pyhugetext import _native

HITS = 3
LIMIT = 64 << 20  # of the control group
ALLOCATED = 24 << 20  # by a process in it
MOST_STORED = 256 << 20  # what a store of a few libraries of 5 MiB never has
STARTED = "import sys; print(6 * 7, len(sys.argv))"
# What a builder of libraries does: they are loaded, and the store has them afterwards.
BUILDER = """
import ctypes, sys, pyhugetext
libraries = [ctypes.CDLL(path) for path in sys.argv[1:]]
pyhugetext.remap()
"""


def attach(world: World) -> None:
    world.require("ptrace")
    command = [f"{world.pool}/helper", "attach", str(os.getpid())]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=SECONDS, check=False)
    if done.returncode != 7:
        raise Wrong(f"helper attach: {done}")


def breakpoint_(world: World) -> None:
    """Somebody's breakpoint stays and is hit, whatever is remapped meanwhile; and goes again."""
    world.require("breakpoint")
    library = world.pick()
    words = ["break", str(os.getpid()), str(library.trap), str(HITS)]
    rounds = [world.chance.choice(("remap", "restore", "")) for _ in range(HITS)]
    tracer = subprocess.Popen([f"{world.pool}/helper", *words], stdout=subprocess.PIPE)
    assert tracer.stdout
    if not select.select([tracer.stdout], [], [], SECONDS)[0]:
        raise Wrong("helper break says nothing")
    if tracer.stdout.readline() != b"armed\n":
        raise Wrong("helper break failed")
    for what in rounds:
        if what == "remap":
            world.remap(library, world.backing)
        elif what == "restore":
            _native.restore()
        if library.code.s_trap(11) != 11 * library.factor:
            raise Wrong("a function with a breakpoint computes something else")
    try:
        told, _ = tracer.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        tracer.kill()
        told, _ = tracer.communicate()
        there = ctypes.string_at(library.trap, 4).hex()
        raise Wrong(f"a breakpoint was not hit: {rounds}, {library.path} has {there} there; "
                    f"the helper told {told!r}") from None  # fmt: skip
    if tracer.returncode != 7:
        raise Wrong(f"helper break: exit status {tracer.returncode}, told {told!r}")


def _files(world: World, *names: str) -> list[Path]:
    """Files of the store, below one of its directories."""
    top = Path(world.store, "v1").joinpath(*names)
    return sorted(path for path in top.rglob("*") if path.is_file())


def drop_cache(world: World) -> None:
    for path in [*_files(world), *map(Path, map(world.path, world.layouts))]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def _specification(world: World) -> tuple[bytes, int, bool, bool, bool, bytes]:
    return (os.fsencode(world.store), 1 << 30, world.backing == "shm", False, False, b"")


def prune(world: World) -> None:
    specification = _specification(world)
    kind = world.chance.choice(("prune", "clear", "remove"))
    if kind == "prune":
        _native.store_prune(specification)
    elif kind == "clear":
        _native.store_clear(specification)
    else:
        shutil.rmtree(f"{world.store}/v1", ignore_errors=True)


def poison_record(world: World) -> None:
    found = _files(world, "index")
    if not found:
        raise LeftOut("there is no record at this moment")
    record = world.chance.choice(found)
    data = bytearray(record.read_bytes())
    for _ in range(world.chance.choice((1, 3, 50))):
        if data:
            data[world.chance.randrange(len(data))] ^= 1 << world.chance.randrange(8)
    record.chmod(0o600)
    record.write_bytes(data)


def poison_copy(world: World) -> None:
    """Another file takes the place of a copy: what runs from the old one is not touched."""
    found = _files(world, "objects")
    if not found:
        raise LeftOut("there is no copy at this moment")
    copy = world.chance.choice(found)
    new = copy.with_name("new")
    data = bytearray(copy.read_bytes())
    kind = world.chance.choice(("short", "empty", "zeros", "header", "open", "link", "directory"))
    if kind == "short":
        del data[len(data) // 2 :]
    elif kind == "empty":
        data.clear()
    elif kind == "zeros":
        data[:] = bytes(len(data))
    elif kind == "header":
        data[world.chance.randrange(64)] ^= 1 << world.chance.randrange(8)
    try:
        new.write_bytes(data)
    except OSError:
        new.unlink()
        raise
    new.chmod(0o666 if kind == "open" else 0o400)
    if kind == "link":
        shutil.move(copy, copy.with_name("elsewhere"))
        copy.symlink_to("elsewhere")
        new.unlink()
    elif kind == "directory":
        copy.unlink()
        copy.mkdir()
        new.unlink()
    else:
        os.rename(new, copy)


def move(world: World) -> None:
    """The store goes, with what is mapped, and comes back a little later; another may stand there."""
    away = f"{world.store}.away"
    if os.path.exists(away):
        shutil.rmtree(world.store, ignore_errors=True)
        os.rename(away, world.store)
    elif os.path.exists(world.store):
        os.rename(world.store, away)


def fill(world: World) -> None:
    """The file system of the store is full, and has room again."""
    if not os.path.ismount(os.path.dirname(world.store)):
        raise LeftOut("the store of this process is not on a file system of the harness's own")
    junk = Path(os.path.dirname(world.store), "junk")
    if junk.exists():
        junk.unlink()
        return
    with open(junk, "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass


def future(world: World) -> None:
    """The clock was set back: files of the store, and the libraries, are of times that come yet."""
    shift = world.chance.choice((-86400 * 400, -5, 5, 3600, 86400 * 400))
    files = [*_files(world), *map(Path, map(world.path, world.layouts))]
    for path in files:
        if world.chance.random() < 0.5 and path.exists():
            at = time.time() + shift
            os.utime(path, (at, at))


def kill_builder(world: World) -> None:
    """One or several that build what is missing, killed at any moment."""
    for record in _files(world, "index")[:: world.chance.choice((1, 2))]:
        record.unlink()
    command = [sys.executable, "-c", BUILDER, *map(world.path, world.layouts)]
    null = subprocess.DEVNULL
    count, delay = world.chance.choice((1, 1, 2)), world.chance.uniform(0, 0.2)
    builders = [subprocess.Popen(command, stdout=null, stderr=null) for _ in range(count)]
    time.sleep(delay)
    for builder in builders:
        builder.kill()
        if builder.wait() not in (0, -signal.SIGKILL):
            raise Wrong(f"a builder ended with {builder.returncode}")


def start_python(world: World) -> None:
    """Another process that starts in this environment, whatever became of the store."""
    command = [sys.executable, "-c", STARTED, "one"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if (done.returncode, done.stdout, done.stderr) != (0, "42 2\n", ""):
        raise Wrong(f"a start of python: {done}")


def pressure(world: World) -> None:
    """A process in a small control group that wants nearly all of its memory."""
    world.require("group")
    group = Path(os.environ["SIEGE_GROUP"])

    def action() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        for library in list(world.loaded.values()):
            world.remap(library, world.backing)
        memory = bytearray(ALLOCATED)
        for at in range(0, ALLOCATED, 4096):
            memory[at] = 1
        for path in map(world.path, world.layouts):
            with open(path, "rb") as file:
                while file.read(1 << 20):
                    pass
        world.remap(None, world.backing)

    in_child(world, "pressure", action)


def judge_files(world: World) -> None:
    """What killed builders left goes when somebody writes next; and a store does not grow for ever."""
    if os.path.exists(f"{world.store}.away"):
        move(world)
    if os.path.ismount(top := os.path.dirname(world.store)):
        Path(top, "junk").unlink(missing_ok=True)
    for record in _files(world, "index"):
        record.unlink()
    command = [sys.executable, "-c", BUILDER, *map(world.path, world.layouts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if (done.returncode, done.stdout, done.stderr) != (0, "", ""):
        raise Wrong(f"a builder: {done}")
    if left := [path for path in _files(world, "tmp") if path.stat().st_size > 16 << 10]:
        raise Wrong(f"left by a builder: {left}")
    size = sum(path.stat().st_blocks * 512 for path in _files(world))
    if size > MOST_STORED:
        raise Wrong(f"the store has {size >> 20} MiB")
    if strange := [name for name in os.listdir("/dev/shm") if not name.startswith("pyhugetext-")]:
        raise Wrong(f"in shared memory: {strange}")
