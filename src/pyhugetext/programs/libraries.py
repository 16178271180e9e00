"""The libraries that a program has from its start on, found as the dynamic linker finds them.

`ldd` has the program's own dynamic linker load the program, and names in a file decide what that is:
whoever prepares programs of other people's must run nothing of theirs. So files are read here, and
only that; what a program opens while it runs is seen by running it.
"""

from __future__ import annotations

import mmap
import os
import platform
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from pyhugetext.process import elf
from pyhugetext.programs import dynamic
from pyhugetext.programs.dynamic import Dynamic

_CACHE, _MAGIC = "/etc/ld.so.cache", b"glibc-ld.so.cache1.1"
_CACHE_HEADER, _CACHE_ENTRY = struct.Struct("<20sII5I"), struct.Struct("<iIIIQ")
# Of the entries of this machine; and of those that only some processors have a use for.
_FLAGS = {"x86_64": 0x0303, "aarch64": 0x0A03}
_SPECIAL = 1 << 62
_MACHINE = platform.machine()
_GLIBC = tuple(
    os.path.join(root, name)
    for name in (f"lib/{_MACHINE}-linux-gnu", "lib64", "lib")
    for root in ("/", "/usr")
)
_MUSL = ("/lib", "/usr/local/lib", "/usr/lib")
_MOST = 2000  # libraries of one program


class Needed(NamedTuple):
    """The libraries of a program, and what was not found of them."""

    paths: tuple[str, ...]
    missing: tuple[str, ...]


class _Object(NamedTuple):
    path: str  # the real one
    origin: str  # $ORIGIN: the kernel tells of a program's real path, the linker goes by names
    found: Dynamic
    above: _Object | None  # what needed it first


def of(program: str, environ: Mapping[str, str]) -> Needed:
    """The libraries of a program or library, in the order of loading, each once, by its real path."""
    first = _read(program, None)
    if first is None:
        return Needed((), ())
    musl = "ld-musl" in os.path.basename(first.found.interpreter)
    loaded: dict[str, _Object] = {}  # by the name that was asked for
    paths: dict[str, None] = {}
    missing: dict[str, None] = {}
    queue = [first]
    for one in queue:
        for name in one.found.needed:
            if name in loaded or name in missing:
                continue
            found = _search(name, one, environ, musl)
            if found is None:
                missing[name] = None
                continue
            loaded[name] = found
            loaded.setdefault(found.found.soname or name, found)
            if found.path not in paths and len(queue) < _MOST:
                paths[found.path] = None
                queue.append(found)
    linker = os.path.realpath(first.found.interpreter) if first.found.interpreter else ""
    paths.pop(first.path, None)
    # Its text cannot be moved while it moves that of others; it is no library to anybody.
    return Needed(tuple(path for path in paths if path != linker), tuple(missing))


def _read(path: str, above: _Object | None) -> _Object | None:
    """An object of this machine; None for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = elf.head_of(fd)
            if head is None:
                return None
            real = os.path.realpath(path)
            origin = os.path.dirname(os.path.abspath(path) if above else real)
            return _Object(real, origin, dynamic.read(fd, head), above)
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None


def _search(name: str, by: _Object, environ: Mapping[str, str], musl: bool) -> _Object | None:
    if "/" in name:
        return _read(_expanded(name, by.origin), by)
    for directory in _directories(by, environ):
        found = _read(os.path.join(directory, name), by)
        if found is not None:
            return found
    if not musl:
        for path in _cached().get(name, ()):
            found = _read(path, by)
            if found is not None and not (by.found.no_default and _is_default(path)):
                return found
    for directory in () if by.found.no_default else _musl_path() if musl else _GLIBC:
        found = _read(os.path.join(directory, name), by)
        if found is not None:
            return found
    return None


def _directories(by: _Object, environ: Mapping[str, str]) -> list[str]:
    """Where is looked before the places that all share; see ld.so(8)."""
    out: list[str] = []
    if not by.found.runpath:
        one: _Object | None = by
        while one is not None:
            # What has a RUNPATH has no RPATH.
            rpath = "" if one.found.runpath else one.found.rpath
            out += [_expanded(part, one.origin) for part in rpath.split(":") if part]
            one = one.above
    given = environ.get("LD_LIBRARY_PATH", "").replace(";", ":")
    out += [_expanded(part, by.origin) for part in given.split(":") if part]
    out += [_expanded(part, by.origin) for part in by.found.runpath.split(":") if part]
    return out


def _expanded(path: str, origin: str) -> str:
    values = {"ORIGIN": origin, "LIB": "lib64", "PLATFORM": _MACHINE}
    if os.path.isdir(f"/lib/{_MACHINE}-linux-gnu"):
        values["LIB"] = f"lib/{_MACHINE}-linux-gnu"
    for name, value in values.items():
        path = path.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return path


def _is_default(path: str) -> bool:
    return os.path.dirname(path) in _GLIBC


def _musl_path() -> tuple[str, ...]:
    try:
        with open(f"/etc/ld-musl-{_MACHINE}.path") as file:
            return tuple(file.read().replace("\n", ":").split(":"))
    except OSError:
        return _MUSL


@lru_cache(maxsize=1)
def _cached() -> dict[str, tuple[str, ...]]:
    """The files of ldconfig's cache by name, the best first. Empty where there is none."""
    out: dict[str, tuple[str, ...]] = {}
    try:
        with open(_CACHE, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            begin = data.find(_MAGIC)  # an older format may stand before it
            if begin < 0:
                return out
            count = _CACHE_HEADER.unpack_from(data, begin)[1]
            size = min(count, (len(data) - begin) // _CACHE_ENTRY.size) * _CACHE_ENTRY.size
            start = begin + _CACHE_HEADER.size
            for flags, key, value, _, special in _CACHE_ENTRY.iter_unpack(
                data[start : start + size]
            ):
                if flags == _FLAGS.get(_MACHINE) and not special & _SPECIAL:
                    name, path = (_string(data, begin + at) for at in (key, value))
                    out[name] = (*out.get(name, ()), path)
    except (OSError, ValueError, struct.error):
        pass
    return out


def _string(data: mmap.mmap, at: int) -> str:
    end = data.find(b"\0", at)
    return os.fsdecode(data[at : max(end, at)])
