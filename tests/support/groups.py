"""Control groups with the memory controller, of version 1 or 2, whichever this machine has."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.users import require_root


class Group:
    """A control group of the test's own."""

    _numbers = itertools.count()

    def __init__(self, top: Path, version: int) -> None:
        self.version = version
        self.path = top / f"pyhugetext-{os.getpid()}-{next(self._numbers)}"
        self.path.mkdir()
        self.children: list[Group] = []

    def child(self) -> Group:
        if self.version == 2:
            (self.path / "cgroup.subtree_control").write_text("+memory")
        self.children.append(Group(self.path, self.version))
        return self.children[-1]

    def limit(self, size: int) -> None:
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.path / name).write_text(str(size))

    def enter(self) -> None:
        """For preexec_fn: puts the process in."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def used(self) -> int:
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        return int((self.path / name).read_text())

    @property
    def killed(self) -> int:
        """How many processes the kernel killed for want of memory here."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return self._fields(name)["oom_kill"]

    @property
    def copied(self) -> int:
        """Bytes in shared memory and anonymous huge pages."""
        names = ("anon_thp", "shmem") if self.version == 2 else ("total_rss_huge", "total_shmem")
        fields = self._fields("memory.stat")
        return sum(fields[name] for name in names)

    def _fields(self, name: str) -> dict[str, int]:
        lines = (self.path / name).read_text().splitlines()
        return {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}

    def close(self) -> None:
        for child in self.children:
            child.close()
        for _ in range(100):
            for pid in (self.path / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.05)


@contextlib.contextmanager
def memory_group() -> Iterator[Group]:
    require_root()
    for version, top in ((1, Path("/sys/fs/cgroup/memory")), (2, Path("/sys/fs/cgroup"))):
        try:
            if version == 2 and "memory" not in (top / "cgroup.subtree_control").read_text():
                continue
            made = Group(top, version)
        except OSError:
            continue
        if (made.path / "memory.stat").exists():
            break
        made.path.rmdir()
    else:
        pytest.skip("no control group with the memory controller can be made here")
    try:
        yield made
    finally:
        made.close()
