"""The steps that a process takes by itself; each is a function of the world, named as in the table."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import mmap
import os
import shutil
import signal
import threading
from collections.abc import Callable

import libraries
from world import LeftOut, Library, World, Wrong

import pyhugetext
from pyhugetext import _backing, _native

STRANGER = 54321
PAGE = 4096
SECONDS = 60  # after which a child hangs
NOREPLACE = 0x100000  # MAP_FIXED_NOREPLACE
# None of these changes what is in memory.
HARMLESS = (0, 1, 2, 3, 14, 15, 20, 22, 25)  # NORMAL .. COLD, POPULATE_READ, COLLAPSE; no DONTNEED
IMPORTS = {
    "numpy": lambda numpy: float(numpy.arange(10.0) @ numpy.arange(10.0)) == 285.0,
    "contourpy": lambda module: bool(module.__version__),
    "kiwisolver": lambda module: (module.Variable("x") + 1).constant() == 1,
    "PIL._imaging": lambda module: module.new("L", (4, 4)).getbbox() is None,
    "matplotlib.ft2font": lambda module: bool(module.__freetype_version__),
    "psutil": lambda module: module.pid_exists(os.getpid()),
    "_decimal": lambda module: module.Decimal(7) * 6 == 42,
    "_sqlite3": lambda module: bool(module.sqlite_version),
    "_ssl": lambda module: bool(module.OPENSSL_VERSION),
}

Step = Callable[[World], None]


def remap(world: World) -> None:
    backing = world.backing
    if world.chance.random() < 0.15:
        backing = world.chance.choice(_backing.LADDER)
    world.remap(world.pick(), backing)


def remap_all(world: World) -> None:
    world.remap(None, world.backing)


def restore(world: World) -> None:
    _native.restore()


def public(world: World) -> None:
    kind = world.chance.choice(("remap", "restore", "stats"))
    if kind == "remap":
        pyhugetext.remap(backing=world.backing)
    else:
        getattr(pyhugetext, kind)()


def load(world: World) -> None:
    layout = world.chance.choice(world.layouts)
    if layout in world.loaded:
        world.loaded[layout].judge()
        return
    library = Library(world.path(layout))
    if library.factor != world.factors[layout]:
        raise Wrong(f"{library.path} is the version of {library.factor}")
    if world.broken and layout == "plain":
        ctypes.c_int.in_dll(library.code, "s_off").value = 1
    world.loaded[layout] = library


def unload(world: World) -> None:
    if len(world.loaded) < 2:
        return  # one stays, for the others to have something to do
    library = world.pick()
    layout = next(name for name, one in world.loaded.items() if one is library)
    if world.ticking == layout:
        tick_no_more(world)
    del world.loaded[layout]
    library.close()


def other_namespace(world: World) -> None:
    """dlmopen: the same library once more, with a C library of its own."""
    layout = world.chance.choice(world.layouts)
    world.libc.dlmopen.restype = ctypes.c_void_p
    world.libc.dlsym.restype = ctypes.c_void_p
    handle = world.libc.dlmopen(ctypes.c_long(-1), os.fsencode(world.path(layout)), os.RTLD_NOW)
    if not handle:
        raise LeftOut("the C library has no namespace left")
    place = ctypes.c_void_p(handle)
    check = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_int)(world.libc.dlsym(place, b"s_check"))
    for remapped in (False, True):
        if remapped:
            world.remap(None, world.backing)
        if check(5) != libraries.expected(5, world.factors[layout]):
            raise Wrong(f"{layout} in another namespace")
    world.libc.dlclose(place)


def call(world: World) -> None:
    library = world.pick()
    x = world.chance.randrange(1000)
    if library.code.s_check(x) != libraries.expected(x, library.factor):
        raise Wrong(library.path)
    if library.code.s_probe(x) != x * library.factor:
        raise Wrong(library.path)


def start_thread(world: World) -> None:
    library = world.pick()
    if library.threads < 2 and library.code.s_start() > 0:
        library.threads += 1


def stop_threads(world: World) -> None:
    world.pick().stop()


def tick(world: World) -> None:
    """A profiler's signal at 1 kHz, which runs what moves."""
    if world.ticking:
        tick_no_more(world)
        return
    library = world.pick()
    if world.helper.profile(library.code.s_tick, library.factor):
        raise Wrong("setitimer")
    world.ticking = next(name for name, one in world.loaded.items() if one is library)


def tick_no_more(world: World) -> None:
    world.ticking = ""
    if world.helper.profile_end():
        raise Wrong("a signal handler had a wrong result")


def advise(world: World) -> None:
    """Somebody advises the kernel on our text, as allocators and debuggers do on all mappings."""
    library = world.pick()
    low = library.low + world.chance.randrange(max((library.high - library.low) // PAGE, 1)) * PAGE
    size = world.chance.choice((PAGE, 1 << 16, 1 << 21, library.high - low))
    size = min(size, library.high - low)
    advice = world.chance.choice(HARMLESS)
    world.libc.madvise(ctypes.c_void_p(low), ctypes.c_size_t(size), advice)


def protect(world: World) -> None:
    """The same permissions once more, for a part: mappings are split and joined."""
    library = world.pick()
    low, high = library.text
    start = low + world.chance.randrange((high - low) // PAGE) * PAGE
    size = min(world.chance.choice((PAGE, 1 << 16, 1 << 21)), high - start)
    world.libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.PROT_READ | 4)


def patch(world: World) -> None:
    """Somebody writes to our text, as hooks and JIT compilers do."""
    world.require("patch")
    library = world.pick()
    number = world.chance.randrange(1, 1 << 30)
    at = library.patched + 4
    page, length = ctypes.c_void_p(at // PAGE * PAGE), ctypes.c_size_t(PAGE)
    if world.libc.mprotect(page, length, 7):
        # Sealed memory files cannot be written to; remapping says so, and restore() makes it possible.
        _native.restore()
        if world.libc.mprotect(page, length, 7):
            raise Wrong(f"mprotect: {os.strerror(ctypes.get_errno())}")
    ctypes.c_int.from_address(at).value = library.number = number
    if world.libc.mprotect(page, length, 5):
        raise Wrong(f"mprotect back: {os.strerror(ctypes.get_errno())}")


def race(world: World) -> None:
    """Another thread remaps and restores while this one goes on."""
    kinds = [
        world.chance.choice((load, unload, call, fork, vfork, spawn, advise)) for _ in range(4)
    ]
    backings = [world.chance.choice((world.backing, "memfd", "")) for _ in range(3)]

    def others() -> None:
        for backing in backings:
            if backing:
                world.remap(None, backing)
            else:
                _native.restore()

    thread = threading.Thread(target=others)
    thread.start()
    try:
        for kind in kinds:
            kind(world)
            for library in world.loaded.values():
                library.judge()
    finally:
        thread.join()


def beside(world: World) -> None:
    """Somebody's memory directly before or behind a library, which is then changed, moved, given back."""
    libc, chance = world.libc, world.chance
    if len(world.neighbours) > 7 or (world.neighbours and chance.random() < 0.6):
        start, size = world.neighbours.pop(chance.randrange(len(world.neighbours)))
        place, length = ctypes.c_void_p(start), ctypes.c_size_t(size)
        kind = chance.randrange(4)
        if kind == 0:
            libc.mprotect(place, length, chance.choice((0, 1, 3)))
        elif kind == 1:
            libc.madvise(place, length, chance.choice((4, 14, 15, 25)))
        elif kind == 2:
            moved = libc.mremap(place, length, ctypes.c_size_t(size * 2), 1)  # MAYMOVE
            if moved not in (None, ctypes.c_void_p(-1).value):
                world.neighbours.append((moved, size * 2))
                return
        if kind == 3 or size > 1 << 24:
            libc.munmap(place, length)
        else:
            world.neighbours.append((start, size))
        return
    library = world.pick()
    size = chance.choice((PAGE, 1 << 16, 1 << 21))
    end = -(-library.high // PAGE) * PAGE
    wanted = chance.choice((library.low - size, end, end + PAGE, end + (1 << 21)))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NOREPLACE
    got = libc.mmap(ctypes.c_void_p(wanted), ctypes.c_size_t(size), 3, flags, -1, ctypes.c_long(0))
    if got == wanted:
        ctypes.memset(got, 0x5A, min(size, PAGE))
        world.neighbours.append((wanted, size))
    elif got not in (None, ctypes.c_void_p(-1).value):
        libc.munmap(ctypes.c_void_p(got), ctypes.c_size_t(size))


def _ends_well(pid: int, what: str) -> None:
    _, status = os.waitpid(pid, 0)
    if status != 7 << 8:
        raise Wrong(f"{what}: wait status {status}")


def _in_child(world: World, what: str, action: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            signal.alarm(SECONDS)
            for library in world.loaded.values():
                library.threads = 0  # they stayed with the parent
                library.judge()
            action()
            for library in world.loaded.values():
                library.judge()
            code = 7
        except BaseException as error:
            os.write(2, f"{what}, in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    _ends_well(pid, what)


def fork(world: World) -> None:
    both = world.chance.random() < 0.5

    def action() -> None:
        if both:
            _native.restore()
            world.remap(None, world.backing)
        else:
            world.remap(None, world.chance.choice(_backing.LADDER))
            _native.restore()

    _in_child(world, "fork", action)


def vfork(world: World) -> None:
    if world.pick().code.s_vfork() != 7:
        raise Wrong("vfork")


def execute(world: World) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(f"{world.pool}/helper", ["helper", "nothing"])
        finally:
            os._exit(9)
    _ends_well(pid, "exec")


def spawn(world: World) -> None:
    _ends_well(os.posix_spawn(f"{world.pool}/helper", ["helper", "nothing"], {}), "posix_spawn")


def change_user(world: World) -> None:
    world.require("root")

    def action() -> None:
        if world.loaded:
            library = world.loaded[sorted(world.loaded)[0]]
            library.code.s_start()
            library.threads += 1
        os.seteuid(STRANGER)
        world.remap(None, world.backing)
        _native.restore()
        os.seteuid(0)
        world.remap(None, world.backing)
        os.setgid(STRANGER)
        os.setuid(STRANGER)
        world.remap(None, world.backing)
        pyhugetext.stats()
        for library in world.loaded.values():
            library.stop()
        _native.restore()

    _in_child(world, "setuid", action)


def bring_in(world: World) -> None:
    """An extension module is imported."""
    left = [n for n in IMPORTS if n not in world.imported and _is_there(n)]
    if not left:
        return
    name = world.chance.choice(left)
    module = importlib.import_module(name)
    works = IMPORTS[name]
    world.imported[name] = lambda: works(module)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def uprobe(world: World) -> None:
    """Planted in the original's file, and taken away some steps later."""
    world.require("uprobe")
    if world.probes:
        os.close(world.probes.pop())
        return
    library = world.pick()
    with open("/sys/bus/event_source/devices/uprobe/type") as file:
        kind = int(file.read())
    path = os.fsencode(library.path)
    offset = ctypes.c_uint64(library.probe_offset)
    fd = world.helper.uprobe(kind, path, offset)
    if fd < 0:
        raise LeftOut(f"perf_event_open: {os.strerror(-fd)}")
    world.probes.append(fd)


def replace_file(world: World) -> None:
    """Another version takes the library's name, as an upgrade does it; who runs the old one goes on."""
    layout = world.chance.choice(world.layouts)
    factor = libraries.FACTORS[world.factors[layout] == libraries.FACTORS[0]]
    path = world.path(layout)
    shutil.copy(f"{world.pool}/libsiege_{layout}.so.{factor}", f"{path}.new")
    os.rename(f"{path}.new", path)
    world.factors[layout] = factor
