"""Other users than the one who runs the tests, and mount namespaces, which take every mount with them
however a test ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.common import PREFIX, clean_environment
from support.store import Store, require_no_system_store


def require_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: files of other users, mounts")


def as_user(uid: int) -> tuple[str, ...]:
    """The command in front that makes a child another user's. Skips where that user could not
    even read the interpreter."""
    require_root()
    if not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) is not installed")
    prefix = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    # Through env: setpriv itself still has root's capabilities when it starts a program.
    probe = [*prefix, "env", sys.executable, "-c", "import json, pyhugetext._boot"]
    environ = clean_environment(PYHUGETEXT="0", HOME="/nonexistent")
    if subprocess.run(probe, env=environ, capture_output=True, check=False).returncode:
        pytest.skip("another user cannot read the interpreter of these tests")
    return prefix


@contextlib.contextmanager
def home_of(uid: int) -> Iterator[Path]:
    """A home of that user's that the user can reach, unlike pytest's temporary directories."""
    require_root()
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    try:
        os.chown(place, uid, uid)
        yield place
    finally:
        shutil.rmtree(place)


class Namespace:
    """A mount namespace with /dev/shm of its own. All that is mounted in it, loop devices too,
    is gone when it ends; it ends with this process, even when that is killed."""

    def __init__(self, setup: str = "", shm: str = "size=1G") -> None:
        require_root()
        require_no_system_store()
        if not (shutil.which("unshare") and shutil.which("nsenter")):
            pytest.skip("unshare and nsenter (util-linux) are not installed")
        shell = f"mount -t tmpfs -o {shm} tmpfs /dev/shm\n" if shm else ""
        shell += f"{setup}\necho ready; read line"
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", shell]
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            _, errors = self._holder.communicate()
            pytest.skip(f"mounting is not possible here: {errors.strip()}")

    def close(self) -> None:
        self._holder.communicate("done\n")

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self._holder.pid}", "--mount")

    def sees(self, path: str | Path) -> Path:
        """Where this process finds a path of the namespace."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def run(self, *command: str) -> None:
        subprocess.run([*self.prefix, *command], check=True, capture_output=True)

    def store(self, root: str | Path, backing: str = "auto") -> Store:
        shm = self.sees("/dev/shm/pyhugetext-0")
        return Store(Path(root), self.prefix, backing, self.sees(root), shm)

    def shm_store(self) -> Store:
        """The store in the namespace's shared memory, for root."""
        root = Path("/dev/shm/pyhugetext-0")
        return Store(root, self.prefix, "shm", self.sees(root))


@contextlib.contextmanager
def namespace(setup: str = "", shm: str = "size=1G") -> Iterator[Namespace]:
    space = Namespace(setup, shm)
    try:
        yield space
    finally:
        space.close()
