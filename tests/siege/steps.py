"""The steps that a process takes by itself; each is a function of the world, named as in the table."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import mmap
import os
import resource
import shutil
from collections.abc import Callable

import libraries
from world import LeftOut, Library, World, Wrong

import pyhugetext
from pyhugetext import _backing, _native

HUGETLB = _backing.NUMBERS["hugetlb"]
PAGE = 4096
NOREPLACE = 0x100000  # MAP_FIXED_NOREPLACE
# None of these changes what is in memory, as DONTNEED would: NORMAL, RANDOM, SEQUENTIAL, WILLNEED,
# MERGEABLE, UNMERGEABLE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP, COLD, PAGEOUT, POPULATE_READ, COLLAPSE.
HARMLESS = (0, 1, 2, 3, 12, 13, 14, 15, 16, 17, 20, 21, 22, 25)
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


def _is_reserved(library: Library) -> bool:
    regions = _native.snapshot()["regions"]
    return any(r["path"] == library.path and r["backing"] == HUGETLB for r in regions)


def patch(world: World) -> None:
    """Somebody writes to our text, as hooks and JIT compilers do."""
    world.require("patch")
    library = world.pick()
    number = world.chance.randrange(1, 1 << 30)
    at = library.patched + 4
    page, length = ctypes.c_void_p(at // PAGE * PAGE), ctypes.c_size_t(PAGE)
    if world.libc.mprotect(page, length, 7):
        if not _is_reserved(library):
            raise Wrong(f"mprotect: {os.strerror(ctypes.get_errno())}")
        raise LeftOut("a reserved huge page can be protected as a whole only")
    ctypes.c_int.from_address(at).value = library.number = number
    if world.libc.mprotect(page, length, 5):
        raise Wrong(f"mprotect back: {os.strerror(ctypes.get_errno())}")


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


def tighten(world: World) -> None:
    """Hardly any descriptors, address space, or room in files, for a moment."""
    which = world.chance.choice((resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_FSIZE))
    room = 0
    if which == resource.RLIMIT_NOFILE:
        room = world.open_descriptors() + world.chance.randrange(6)
    elif which == resource.RLIMIT_AS:
        with open("/proc/self/statm") as file:
            room = int(file.read().split()[0]) * PAGE + world.chance.choice((4, 8, 16)) * (1 << 20)
    before = resource.getrlimit(which)
    resource.setrlimit(which, (room, before[1]))
    try:
        world.remap(None, world.backing)
        _native.restore()
        world.remap(None, world.backing)
    finally:
        resource.setrlimit(which, before)


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
