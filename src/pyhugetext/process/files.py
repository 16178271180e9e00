"""The files that another process has mapped, and what their ELF headers say.

That process may be anybody's and names what it likes. So a file is opened with O_PATH first, below
the process's own root, without following links out of it; it has to be the regular file that maps
tells of, and only a bounded part of its beginning is read. See openat2(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
from functools import lru_cache
from typing import NamedTuple

from pyhugetext import _native, _words
from pyhugetext._stats.kernel import fields_of
from pyhugetext._stats.smaps import DELETED, Mapping
from pyhugetext.process.elf import Head, NoObject, OtherFile, Unreadable, read_head
from pyhugetext.process.proc import Process

_LINK, _INSIDE, _CACHED = range(3)  # Way of elsewhere.h
_TRIES = 3


class Key(NamedTuple):
    """A mapped file, as maps names it."""

    device: str
    inode: int
    path: str


def key_of(mapping: Mapping) -> Key:
    return Key(mapping.device, mapping.inode, mapping.path)


@lru_cache(maxsize=64)
def device_numbers(device: str) -> tuple[int, int]:
    major, _, minor = device.partition(":")
    return int(major, 16), int(minor, 16)


class Files:
    """Reads heads of files that one process has mapped, each once."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._heads: dict[Key, Head | Unreadable | NoObject] = {}
        self._links = True  # whether map_files may be used: root's privilege
        self._roots: list[int] = []
        self._mounts: dict[str, str] | None = None
        # What belongs to somebody else may be made to wait for its owner.
        self._guarded = process.owner != os.geteuid()

    def close(self) -> None:
        while self._roots:
            os.close(self._roots.pop())

    def head(self, mapping: Mapping) -> Head:
        """The head of the file behind a mapping. Unreadable or NoObject."""
        key = key_of(mapping)
        found = self._heads.get(key)
        if found is None:
            try:
                found = self._read(key, mapping)
            except (Unreadable, NoObject) as error:
                found = error
            self._heads[key] = found
        if isinstance(found, Head):
            return found
        raise found

    def _read(self, key: Key, mapping: Mapping) -> Head:
        if self._links:
            name = f"map_files/{mapping.start:x}-{mapping.end:x}"
            try:
                return self._read_at(key, self._process.directory, name, _LINK)
            except PermissionError:
                self._links = False
            except (OSError, OtherFile):  # unmapped meanwhile, or another one mapped
                pass
        for root in self._open_roots():
            for name in _spellings(key.path):
                try:
                    return self._read_at(key, root, name, _INSIDE)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                        why = _words.reason(error)
                        raise Unreadable(f"its file cannot be opened: {why}") from None
                except OtherFile:
                    pass
        try:
            return self._read_at(key, self._process.directory, "exe", _LINK)
        except (OSError, OtherFile):
            pass
        raise Unreadable(
            "its file was deleted or replaced since, and only root may still read it"
            if key.path.endswith(DELETED) and not key.path.startswith("/memfd:")
            else "its file has no name, and only root may still read it"
            if key.path.startswith("/memfd:")
            else "its file was not found under the name in maps (replaced, or of another mount "
            "namespace), and only root may still read it"
        )

    def _open_roots(self) -> list[int]:
        """The process's root directory, and ours: maps names files from the root of their mount
        namespace, which is the one in a container and the other in a chroot."""
        if not self._roots:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            for name in ("root", "/"):
                with contextlib.suppress(OSError):
                    self._roots.append(os.open(name, flags, dir_fd=self._process.directory))
        return self._roots

    def _read_at(self, key: Key, directory: int, name: str, way: int) -> Head:
        fd = self._open(directory, os.fsencode(name), way)
        try:
            if self._guarded:
                self._check_mount(fd)
            major, minor = device_numbers(key.device)
            return read_head(fd, major, minor, key.inode)
        finally:
            os.close(fd)

    def _open(self, directory: int, name: bytes, way: int) -> int:
        if way == _LINK:
            return _native.open_elsewhere(directory, name, way)
        # A name in use is in the kernel's caches, so no file system has to be asked.
        for _ in range(_TRIES):
            try:
                return _native.open_elsewhere(directory, name, _CACHED)
            except OSError as error:
                if error.errno == errno.EINVAL:  # before Linux 5.12
                    return _native.open_elsewhere(directory, name, _INSIDE)
                if error.errno != errno.EAGAIN:
                    raise
        if self._guarded:
            raise Unreadable("its file system might make us wait, and it is another user's process")
        return _native.open_elsewhere(directory, name, _INSIDE)

    def _check_mount(self, fd: int) -> None:
        """Unreadable where a process of that user's may answer for the file system (FUSE)."""
        number = _mount_id(fd)
        if self._mounts is None:
            self._mounts = _mounts(self._process)
        kind = self._mounts.get(number)
        if kind is None and _mount_id_of_memory_files() == number:
            return
        if kind is None or kind.startswith("fuse"):
            raise Unreadable("its file system might make us wait, and it is another user's process")


def _spellings(path: str) -> list[str]:
    """The names that the kernel may mean: it writes a newline as \\012, and nothing else so."""
    return [path, path.replace("\\012", "\n")] if "\\012" in path else [path]


def _mount_id(fd: int) -> str:
    return fields_of(f"/proc/self/fdinfo/{fd}").get("mnt_id", "")


def _mount_id_of_memory_files() -> str:
    try:
        fd = os.memfd_create("pyhugetext")
    except OSError:
        return ""
    try:
        return _mount_id(fd)
    finally:
        os.close(fd)


def _mounts(process: Process) -> dict[str, str]:
    """The type of the file system of each mount that the process sees, by number."""
    out = {}
    try:
        fd = os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process.directory)
        with open(fd, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for line in file:
                mine, _, rest = line.partition(" - ")
                out[mine.split(" ", 1)[0]] = rest.split(" ", 1)[0]
    except OSError:
        pass
    return out
