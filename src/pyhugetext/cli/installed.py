"""Finding the shared objects of all installed distributions, without loading any."""

from __future__ import annotations

import mmap
import os
import site
import stat
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple

from pyhugetext import _native
from pyhugetext._units import HUGE
from pyhugetext.process import elf, linker
from pyhugetext.process.elf import Head


class Installed(NamedTuple):
    """A shared object with enough text, and where it would be loaded: the load bias modulo 2 MiB,
    None where that is another one each time."""

    path: str
    bias: int | None


def roots() -> list[str]:
    """The directories where this interpreter finds installed extension modules."""
    found = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    # Missing under an old virtualenv.
    found += getattr(site, "getsitepackages", list)()
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    found.append(sysconfig.get_config_var("DESTSHARED") or "")
    out: list[str] = []
    for path in sorted({os.path.realpath(path) for path in found if path}):
        if not any(path.startswith(above + "/") for above in out):
            out.append(path)
    return out


def shared_objects(directories: list[str], minimum_text: int) -> Iterator[Installed]:
    """The shared objects below the directories with at least so many bytes of coverable text,
    sorted by path."""
    seen: set[tuple[int, int]] = set()
    for path in sorted(_files(directories)):
        try:
            with open(path, "rb", opener=no_wait) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size < minimum_text:
                    continue
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                head = read_head(file.fileno())
                if head is None:
                    continue
                bias = bias_of(head, head.loads[0].offset)  # its first page on a multiple of 2 MiB
                if coverable(head, file.fileno(), status.st_size, bias) < max(minimum_text, 1):
                    continue
                yield Installed(path, bias if comes_aligned(head, file.fileno()) else None)
        except OSError:
            continue


def no_wait(path: str, flags: int) -> int:
    """Opens without waiting for a FIFO's writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _files(directories: list[str]) -> Iterator[str]:
    for directory in directories:
        for where, _, names in os.walk(directory):
            for name in names:
                if name.endswith(".so") or ".so." in name:
                    yield os.path.join(where, name)


def read_head(fd: int) -> Head | None:
    """The head of a shared object or executable of this machine; None where it is none. OSError as
    fstat(2)."""
    head = elf.head_of(fd)
    return head if head is not None and head.loads else None


def coverable(head: Head, fd: int, size: int, bias: int) -> int:
    """Bytes of text that the copy of an object would put on 2 MiB pages. OSError as pread(2)."""
    layout = _native.lay_out(fd, size, bias)
    if layout["refused"]:
        return 0
    total = 0
    for load in head.loads:
        if not load.executable or load.writable:
            continue
        for start, length, _ in layout["ranges"]:
            total += max(min(start + length, load.end) - max(start, load.start), 0)
    return total


def bias_of(head: Head, low: int) -> int:
    """The load bias modulo 2 MiB of an object whose first page is at `low`."""
    return (low - head.loads[0].start) % HUGE


def comes_again(path: str, bias: int) -> bool:
    """Whether the next process is likely to have an object at this load bias modulo 2 MiB, as the core
    judges: a program whose addresses are its own, and what lies on a multiple of 2 MiB. Of what cannot
    be read nothing is known."""
    try:
        with open(path, "rb", opener=no_wait) as file:
            head = read_head(file.fileno())
    except OSError:
        return True
    return head is None or head.fixed or bias == bias_of(head, head.loads[0].offset)


def lesser_alignment(head: Head) -> int:
    """What an object asks for, in bytes, where that is more than a page and less than 2 MiB; else 0.
    glibc, from 2.35, then reserves address space without the file, which no kernel aligns to 2 MiB."""
    largest = max(load.align for load in head.loads)
    asks = mmap.PAGESIZE < largest < HUGE and not linker.why_not_honoured()
    return largest if asks else 0


def lesser_alignment_of(path: str) -> int:
    """The same of a file; 0 where it cannot be read."""
    try:
        with open(path, "rb", opener=no_wait) as file:
            head = read_head(file.fileno())
    except OSError:
        return 0
    return 0 if head is None else lesser_alignment(head)


def comes_aligned(head: Head, fd: int) -> bool:
    """Whether the dynamic linker puts this object at a multiple of 2 MiB.

    It does for an object that asks for it (p_align; glibc 2.35), and does not for one that asks for
    less. For the others the kernel chooses, and since 6.1 it aligns large mappings of files on ext4,
    xfs and btrfs, on x86; not on overlayfs and tmpfs. Tried by mapping the file as the dynamic linker
    does.
    """
    if any(load.align >= HUGE for load in head.loads):
        return True
    if lesser_alignment(head):
        return False
    protection = mmap.PROT_READ | mmap.PROT_WRITE  # private; the binding wants it writable
    mapping = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=protection)
    with mapping, memoryview(mapping) as view:
        return _native.address_of(view) % HUGE == 0
