"""What a besieged process has, and what is judged of it."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import libraries

import pyhugetext
from pyhugetext import _native
from support import child

HUGE = 2 << 20
MOST_MAPPINGS = 1500  # of a process that loses one at each step long before its end


class Wrong(Exception):
    """A judgement that fails."""


class LeftOut(Exception):
    """A step that this machine, or this moment, does not allow; the sentence says why."""


class Library:
    """One library that is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.code = ctypes.CDLL(path)
        self.handle: int = self.code._handle
        for name in ("s_check", "s_wrong", "s_stop"):
            getattr(self.code, name).restype = ctypes.c_long
        self.factor: int = self.code.s_factor()
        lines = [line for line in child.maps() if line[5] == path]
        self.low, self.high = lines[0][0], lines[-1][1]
        self.probe = ctypes.cast(self.code.s_probe, ctypes.c_void_p).value or 0
        self.trap = ctypes.cast(self.code.s_trap, ctypes.c_void_p).value or 0
        # Where in the file, for uprobes: the mappings are the original ones yet.
        self.probe_offset = next(
            (self.probe - start + offset for start, end, _, offset, _, _ in lines
             if start <= self.probe < end), 0)  # fmt: skip
        self.text = next((line[:2] for line in lines if "x" in line[2]), (self.low, self.high))
        self.patched = ctypes.cast(self.code.s_patched, ctypes.c_void_p).value or 0
        self.number = 7  # what it returns
        self.threads = 0

    def judge(self) -> None:
        if self.code.s_check(7) != libraries.expected(7, self.factor):
            raise Wrong(f"{self.path} computes {self.code.s_check(7)}")
        if self.code.s_patched() != self.number:
            raise Wrong(f"{self.path} was patched to {self.number}: {self.code.s_patched()}")
        if self.threads and self.code.s_wrong():
            raise Wrong(f"{self.path}: {self.code.s_wrong()} wrong results in threads")

    def stop(self) -> None:
        if self.threads and self.code.s_stop():
            raise Wrong(f"{self.path}: wrong results in threads")
        self.threads = 0

    def forget(self) -> None:
        """In a forked child: the threads stayed with the parent."""
        self.code.s_forget()
        self.threads = 0

    def close(self) -> None:
        self.stop()
        _ctypes.dlclose(self.handle)


@dataclass
class World:
    """The process, as the steps change it."""

    place: str  # its directory, with libraries and store
    pool: str  # where both versions of each library are
    backing: str
    layouts: list[str]
    chance: random.Random
    rights: dict[str, str]  # what is allowed here: name to "", or to why not
    broken: bool = False
    loaded: dict[str, Library] = field(default_factory=dict)
    factors: dict[str, int] = field(default_factory=dict)  # of the files as they are now
    ticking: str = ""  # the library whose function the profiler calls
    neighbours: list[tuple[int, int]] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)
    imported: dict[str, Callable[[], bool]] = field(default_factory=dict)
    descriptors: int = 0
    mappings_before: int = 0

    def __post_init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = self.libc.mremap.restype = ctypes.c_void_p
        self.helper = ctypes.CDLL(f"{self.pool}/libhelper.so")
        self.helper.profile_end.restype = ctypes.c_long

    def begin(self) -> None:
        """From now on what is taken has to be given back."""
        self.descriptors = self.open_descriptors()
        self.mappings_before = self.judge_mappings()

    def path(self, layout: str) -> str:
        return f"{self.place}/libsiege_{layout}.so"

    @property
    def store(self) -> str:
        return os.environ["PYHUGETEXT_STORE"]

    @staticmethod
    def open_descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) - 1  # without the one that lists them

    def require(self, right: str) -> None:
        if self.rights[right]:
            raise LeftOut(self.rights[right])

    def judge(self) -> None:
        """What is looked at after every step."""
        for library in self.loaded.values():
            library.judge()
        for name, works in self.imported.items():
            if not works():
                raise Wrong(f"{name} computes something else")
        expected = self.descriptors + len(self.probes)
        if self.open_descriptors() != expected:
            links = [os.readlink(f"/proc/self/fd/{fd}") for fd in self._descriptors()]
            raise Wrong(f"{len(links)} descriptors, not {expected}: {links}")
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        raise Wrong(f"a child that nobody asked for: {ended}")

    @staticmethod
    def _descriptors() -> Iterator[str]:
        for fd in os.listdir("/proc/self/fd"):
            if os.path.lexists(f"/proc/self/fd/{fd}"):
                yield fd

    def judge_mappings(self) -> int:
        with open("/proc/self/maps", "rb") as file:
            count = file.read().count(b"\n")
        if count > MOST_MAPPINGS:
            raise Wrong(f"{count} mappings")
        return count

    def mappings_of_ours(self) -> list[child.Line]:
        """Text that no file of the dynamic linker's is behind."""
        stores = ("/memfd:", "/anon_hugepage", f"{self.store}/", f"{self.store}.away/", "/dev/shm/")
        return [
            line for line in child.maps()
            if "x" in line[2] and (line[5].startswith(stores) or not line[5])
        ]  # fmt: skip

    def judge_statistics(self) -> int:
        """stats() against a second reading of smaps, which the kernel may change between them. Returns
        how much is huge."""
        for attempt in range(5):
            told = pyhugetext.stats().as_dict()
            found = [complaint for region in told["regions"] for complaint in self._compare(region)]
            if not found:
                break
            if attempt == 4:
                raise Wrong("; ".join(found))
        if told["huge_bytes"] != sum(region["huge_bytes"] for region in told["regions"]):
            raise Wrong(f"the sum is another: {told['huge_bytes']}")
        return int(told["huge_bytes"])

    @staticmethod
    def _compare(region: dict[str, Any]) -> Iterator[str]:
        name = f"{region['path']} ({region['backing']})"
        if not region["swapped_bytes"]:
            if region["huge_bytes"] or region["mapped_bytes"] or region["private_bytes"]:
                yield f"{name}: nothing is swapped, and yet {region}"
            return
        seen = child.huge_bytes(region["start"], region["end"])
        # Between the pieces that were swapped there may be others that are huge.
        if region["huge_bytes"] > seen:
            yield f"{name}: {region['huge_bytes']} bytes huge, smaps has {seen}"
        if not region["mapped_bytes"] <= region["coverable_bytes"] <= region["text_bytes"]:
            yield f"{name}: impossible sizes {region}"
        if region["mapped_bytes"] < region["coverable_bytes"] and not region["reason"]:
            yield f"{name}: not covered, without a reason: {region}"
        if region["backing"] in ("store", "shm", "file") and region["private_bytes"] > HUGE * 2:
            yield f"{name}: {region['private_bytes']} bytes private"

    def pick(self) -> Library:
        """One of those that are loaded."""
        if not self.loaded:
            raise LeftOut("no library is loaded at this moment")
        return self.loaded[self.chance.choice(sorted(self.loaded))]

    def request(self, library: Library | None, backing: str) -> dict[str, Any]:
        if library:
            return child.request(backing, library.path)
        from pyhugetext import _backing

        return {"backing": _backing.NUMBERS[backing], "include": b"", "exclude": b""}

    def remap(self, library: Library | None, backing: str) -> None:
        """As pyhugetext.remap(), without the statistics, which take longer than all the rest."""
        if _native.remap(**self.request(library, backing)):
            _native.complete()
