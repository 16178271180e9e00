"""What the kernel does when it is asked for huge pages, tried with files that have no name and
memory that is given back."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from typing import Any

from pyhugetext import _native, _words
from pyhugetext._units import HUGE
from pyhugetext.doctor import memory
from pyhugetext.doctor.check import INFO, LIMIT, OK, UNKNOWN, Check
from pyhugetext.doctor.storage import Storage, nearest
from pyhugetext.store import places

_NEEDED = 16 << 20  # bytes of disk: a trial that fills the file system would do harm


def checks(stores: list[Storage]) -> list[Check]:
    """The trials of this process, without the rungs themselves."""
    user = next(store for store in stores if store.kind == "user")
    shm = next(store for store in stores if store.kind == "shm")
    return [_large_folios(user), _shared_memory(shm), _memory_file(), _anonymous(), _original()]


def nameless(directory: str) -> int:
    """Opens a new empty file that goes with its descriptor. OSError as open(2)."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        # What kernels and file systems without O_TMPFILE answer.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
    path = os.path.join(directory, f".pyhugetext-doctor-{os.getpid()}")
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    os.unlink(path)
    return fd


def _verdict(directory: str, file_system: str | None) -> str:
    """What the file system of a directory does with a new file. OSError, Trouble."""
    fd = nameless(directory)
    try:
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        reader = -1
    try:
        verdict = places.try_file(fd)
    finally:
        os.close(fd)
    if reader < 0:
        return verdict
    try:
        # Collapsed is what nobody has open for writing; what is memory is no disk.
        disk = file_system not in ("tmpfs", "ramfs")
        if verdict == places.NEVER and disk and _native.probe(reader, 0, HUGE, True):
            return places.COLLAPSED
    except OSError:
        pass
    finally:
        os.close(reader)
    return verdict


def _large_folios(user: Storage) -> Check:
    facts: dict[str, Any] = {"verdict": None, "remembered": user.remembered, "directory": None}
    if user.path is None:
        return Check("tried", "large_folios", LIMIT, f"not tried: {user.reason}", facts)
    directory = nearest(os.path.join(user.path, places.VERSION, "tmp"))
    facts["directory"] = directory
    where = f"{user.file_system or 'the file system'} at {directory}"
    if not user.trusted:
        return Check("tried", "large_folios", LIMIT, f"not tried: {user.reason}", facts)
    try:
        status = os.statvfs(directory)
        if status.f_bavail * status.f_frsize < _NEEDED:
            raise OSError(errno.ENOSPC, "too little free space to try")
        verdict = _verdict(directory, user.file_system)
    except OSError as error:
        words = _words.sentence(error, coded=True)
        return Check("tried", "large_folios", LIMIT, f"not tried: {words}", facts)
    facts["verdict"] = verdict
    gives = {
        places.WRITTEN: "gives 2 MiB pages to a new file",
        places.EVICTED: "gives 2 MiB pages to a file that it reads back, not to a new one",
        places.COLLAPSED: "gives 2 MiB pages to a file once it is on disk (MADV_COLLAPSE)",
        places.NEVER: "gives no 2 MiB pages to a file",
    }
    state = OK if verdict in (places.WRITTEN, places.COLLAPSED) else LIMIT
    return Check("tried", "large_folios", state, f"{where} {gives[verdict]}", facts)


def _collapsed(open_: Callable[[], int]) -> int:
    """Bytes in 2 MiB pages of a new file of 2 MiB after MADV_COLLAPSE. OSError."""
    fd = open_()
    try:
        os.pwrite(fd, b"\x90" * HUGE, 0)
        return _native.probe(fd, 0, HUGE, True)
    finally:
        os.close(fd)


def _told(name: str, what: str, attempt: Callable[[], int], without: str = LIMIT) -> Check:
    """Makes the attempt; `without` is the state where it comes to nothing."""
    try:
        huge = attempt()
    except (OSError, ValueError, MemoryError) as error:
        words = "no memory" if not str(error) else _words.sentence(error, coded=True)
        facts: dict[str, Any] = {"huge": None, "error": words}
        return Check("tried", name, without, f"{what}: {words}", facts)
    facts = {"huge": huge, "error": None}
    if huge:
        return Check("tried", name, OK, f"{what} becomes a 2 MiB page", facts)
    return Check("tried", name, without, f"{what} stays in 4 KiB pages", facts)


def _shared_memory(shm: Storage) -> Check:
    directory = os.path.dirname(shm.path or "/dev/shm/")
    what = f"a file in {directory} (MADV_COLLAPSE)"
    if shm.file_system != "tmpfs":
        facts = {"huge": None, "error": shm.reason}
        return Check("tried", "shm_collapse", LIMIT, f"{what}: not tried: {shm.reason}", facts)
    return _told("shm_collapse", what, lambda: _collapsed(lambda: nameless(directory)))


def _memory_file() -> Check:
    what = "a memory file (MADV_COLLAPSE)"
    if not hasattr(os, "memfd_create"):
        facts = {"huge": None, "error": "this Python has no os.memfd_create"}
        return Check("tried", "memfd_collapse", UNKNOWN, f"{what}: {facts['error']}", facts)

    def open_() -> int:
        return os.memfd_create("pyhugetext:doctor", os.MFD_CLOEXEC)

    return _told("memfd_collapse", what, lambda: _collapsed(open_))


def _anonymous() -> Check:
    def attempt() -> int:
        with memory.aligned(HUGE) as (view, mapping):
            mapping.madvise(mmap.MADV_HUGEPAGE)
            view[0] = 1
            if not memory.huge_bytes(view):
                mapping.madvise(memory.MADV_COLLAPSE)
            return memory.huge_bytes(view)

    what = "anonymous memory (MADV_HUGEPAGE, MADV_COLLAPSE)"
    return _told("anonymous_thp", what, attempt)


def _original() -> Check:
    """The interpreter's own file, collapsed where it lies: what the `file` rung rests on."""
    path = interpreter()
    what = f"the original file {path} (MADV_COLLAPSE)"

    def attempt() -> int:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < HUGE:
                raise OSError(errno.EINVAL, "it is smaller than 2 MiB")
            return _native.probe(fd, 0, HUGE, True)
        finally:
            os.close(fd)

    # Few kernels can, and a copy in the store does as well.
    return _told("file_collapse", what, attempt, INFO)


def interpreter() -> str:
    """The file with the interpreter's text: the executable, or libpython."""
    found = [region for region in _native.snapshot()["regions"] if region["path"]]
    named = [r for r in found if "python" in os.path.basename(r["path"])] or found
    if not named:
        return os.path.realpath("/proc/self/exe")
    return max(named, key=lambda region: region["text_bytes"])["path"]
