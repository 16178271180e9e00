"""The steps that make children: fork and its like, and what is done in them, other users, filters."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, ModuleSpec

from steps import advise, bring_in, call, load, unload
from world import LeftOut, World, Wrong

import pyhugetext
from pyhugetext import _backing, _native
from support import harm

STRANGER = 54321
SECONDS = 60  # after which a child hangs
# What a filter refuses in a child; only what Python itself can do without for a moment.
REFUSED = ("mremap", "madvise", "ioctl", "memfd_create", "process_vm_readv", "statx", "pwrite64")


def ends_well(pid: int, what: str) -> None:
    _, status = os.waitpid(pid, 0)
    if status != 7 << 8:
        raise Wrong(f"{what}: wait status {status}")


def in_child(world: World, what: str, action: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            signal.alarm(SECONDS)
            for library in world.loaded.values():
                library.forget()
                library.judge()
            action()
            for library in world.loaded.values():
                library.judge()
            code = 7
        except BaseException as error:
            os.write(2, f"{what}, in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    ends_well(pid, what)


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


def fork(world: World) -> None:
    both = world.chance.random() < 0.5

    def action() -> None:
        if both:
            _native.restore()
            world.remap(None, world.backing)
        else:
            world.remap(None, world.chance.choice(_backing.LADDER))
            _native.restore()

    in_child(world, "fork", action)


def _fail_to_import() -> None:
    loader = ExtensionFileLoader("missing", "/nonexistent/missing.so")
    try:
        loader.create_module(ModuleSpec("missing", loader, origin=loader.path))
    except ImportError:
        return
    raise Wrong("what is not there was imported")


def ask_linker(world: World) -> None:
    """Children of a process in which a thread lists objects, or asks for functions, all the time.

    glibc leaves a child what is held by a thread that lists, for ever. Then nobody loads there what
    is new, nor remaps, which has to list; what needs no such thing must not wait either.
    """
    lists = world.chance.random() < 0.5
    number = world.chance.randrange(1, 5)
    new = world.chance.choice((load, bring_in))

    def action() -> None:
        _fail_to_import()
        if lists:
            for library in world.loaded.values():
                ctypes.CDLL(library.path)
            return
        new(world)
        world.remap(None, world.backing)
        for library in world.loaded.values():
            library.judge()
        _native.restore()

    if world.helper.ask_begin(int(lists)):
        raise LeftOut("no thread can be started at this moment")
    try:
        for _ in range(number):
            in_child(world, f"ask_linker({lists})", action)
            call(world)
    finally:
        if world.helper.ask_end():
            raise Wrong("dlsym() has a wrong result in a thread")


def preloaded(world: World) -> None:
    """Any program, with the preload library, that forks beside such a thread."""
    library = os.environ["SIEGE_PRELOAD"]
    if not library:
        raise LeftOut("there is no preload library here")
    paths = [world.path(layout) for layout in world.chance.choices(world.layouts, k=2)]
    words = [world.chance.choice(("lists", "asks")), "8", str(world.chance.randrange(1 << 31))]
    done = subprocess.run(
        [f"{world.pool}/helper", *words, *paths], env={**os.environ, "LD_PRELOAD": library},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * SECONDS, check=False,
    )  # fmt: skip
    if (done.returncode, done.stdout, done.stderr) != (7, "", ""):
        raise Wrong(f"a preloaded program: {done}")


def refuse(world: World) -> None:
    """A child under a filter, as a sandbox sets it up late."""
    name = world.chance.choice(REFUSED)
    code = world.chance.choice((errno.EPERM, errno.ENOSYS, errno.ENOMEM))

    def action() -> None:
        harm.install(harm.refuse_rule((harm.NUMBERS[name], None, code)))
        for backing in (world.backing, "memfd", world.backing):
            world.remap(None, backing)
            _native.restore()

    in_child(world, f"{name} refused", action)


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
    ends_well(pid, "exec")


def spawn(world: World) -> None:
    ends_well(os.posix_spawn(f"{world.pool}/helper", ["helper", "nothing"], {}), "posix_spawn")


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

    in_child(world, "setuid", action)
