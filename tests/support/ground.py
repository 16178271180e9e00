"""What the servers of tests/servers stand on: a mount namespace in which /var/cache, /dev/shm and the
Python packages of this machine's administrator are the tests' own, so that nothing of the machine is
changed, and a store that is filled, or one that has yet to be made."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.common import OWN, clean_environment
from support.store import SYSTEM_STORE, require_huge_disk
from support.users import Namespace, namespace

SERVICE = "www-data"  # Debian's user for web servers
PR_SET_CHILD_SUBREAPER = 36
LIMIT = 60  # seconds after which something counts as hanging, on any machine

# Programs that load Python, and what they load it with.
HOSTS = (
    "/usr/bin/uwsgi", "/usr/lib/uwsgi/plugins/python3_plugin.so",
    "/usr/lib/apache2/modules/mod_wsgi.so",
    "/usr/lib/postgresql/*/bin/postgres", "/usr/lib/postgresql/*/lib/plpython3.so",
)  # fmt: skip
LOADS_ALL = """
import ctypes, ssl, sys
for library in sys.argv[1:]:
    ctypes.CDLL(library)
import numpy
"""


def linked_with(program: Path | str) -> set[str]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return set(re.findall(r"=> (/\S+)", listed.stdout))


def require_this_python(host: Path) -> None:
    """Skips a file of tests where a program has another Python inside than the tests run with."""
    name = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so"
    if sys.base_prefix != "/usr" or not any(name in path for path in linked_with(host)):
        pytest.skip(f"{host} is for another Python than this one", allow_module_level=True)


@functools.cache
def require_readable_by(user: str) -> None:
    """Skips where a service's user could not even read the packages that it is to run."""
    command = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", sys.executable)
    environ = clean_environment(PYHUGETEXT="0", HOME="/nonexistent")
    done = subprocess.run(
        [*command, "-c", "import numpy"], env=environ, cwd="/", capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"the user {user} cannot read the packages of this environment")


def libraries_of_hosts() -> list[str]:
    """Libraries with text to speak of, that programs with a Python inside are linked with."""
    programs = [path for pattern in HOSTS for path in glob.glob(pattern)]
    found = set().union(*map(linked_with, programs))
    directory, name = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
    if ".so" in name:
        found |= set(glob.glob(f"{directory}/{name}") + glob.glob(f"{directory}/*/{name}"))
    return sorted(
        path for path in found if os.path.getsize(path) > 1 << 20 and "/libc.so" not in path
    )


class Ground:
    """One such namespace."""

    def __init__(self, space: Namespace, place: Path) -> None:
        self._space = space
        self.place = place  # of the tests, which everybody can enter
        self.store = Path(SYSTEM_STORE)
        self.filled = False

    def prefix(self, place: Path | None = None) -> tuple[str, ...]:
        """In front of a command that runs in the namespace, and in a directory."""
        enter = 'cd "$0" && exec "$@"'  # nsenter's own --wd looks for it outside
        return (*self._space.prefix, "sh", "-c", enter, str(place or self.place))

    def environment(self, **settings: str) -> dict[str, str]:
        """As a service has it: no settings of ours but those given, the time to build as users have it."""
        always = {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
        environ = clean_environment(**{**always, **settings})
        for name in ("PYHUGETEXT_BUILD_TIME", "XDG_CACHE_HOME"):
            if name not in settings:
                del environ[name]
        return environ

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix(), *command],
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def warm(self) -> None:
        """Fills the system's store with all that the servers load."""
        code = (sys.executable, "-c", LOADS_ALL, *libraries_of_hosts())
        command = (sys.executable, "-m", "pyhugetext", "warm", "--system", "numpy", "--", *code)
        done = self.run(*command, PYHUGETEXT="0")
        assert done.returncode == 0, done.stdout + done.stderr
        self.filled = True

    def in_shared_memory(self) -> set[str]:
        return {path.name for path in self._space.sees("/dev/shm").iterdir()}


def public(place: Path) -> Path:
    """A directory below `place`, which nobody but its owner can enter, for everybody."""
    made = Path(tempfile.mkdtemp(dir=place))
    made.chmod(0o755)
    return made


@contextlib.contextmanager
def ground(more: Callable[[Path], str] = lambda place: "") -> Iterator[Ground]:
    """Skips where the file system gives no huge pages to files, or nothing can be mounted. `more` says
    what else is to be mounted, as a shell script."""
    require_huge_disk(Path(OWN.name))
    place = public(Path(OWN.name))
    cache = place / "cache"
    cache.mkdir()
    # Where Debian's python finds what an administrator installs.
    packages = f"/usr/local/lib/python3.{sys.version_info[1]}/dist-packages"
    setup = f"mount --bind {cache} {Path(SYSTEM_STORE).parent}"
    if os.path.isdir(packages):
        setup += f"\nmount --bind {sysconfig.get_path('platlib')} {packages}"
    with namespace(f"{setup}\n{more(place)}") as space:
        yield Ground(space, place)
    shutil.rmtree(place)


def descendants() -> set[int]:
    """The children of this process, those who lost their parents among them."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@contextlib.contextmanager
def nothing_left(ground: Ground) -> Iterator[None]:
    """Fails where the block leaves a process, whoever its parent was, or something in shared memory
    but a store, where that had yet to be made."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        pytest.skip("PR_SET_CHILD_SUBREAPER is not possible here")
    before, shared = descendants(), ground.in_shared_memory()
    try:
        yield
        limit = time.monotonic() + LIMIT
        while left := {pid for pid in descendants() - before if alive(pid)}:
            assert time.monotonic() < limit, [told_of(pid) for pid in left]
            time.sleep(0.02)
        more = ground.in_shared_memory() - shared
        assert [name for name in more if ground.filled or "pyhugetext" not in name] == []
    finally:
        for pid in descendants() - before:
            with contextlib.suppress(OSError):
                os.kill(pid, 9)
            with contextlib.suppress(OSError):
                os.waitpid(pid, 0)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def alive(pid: int) -> bool:
    """Those who ended and have nobody to wait for them are ours to wait for."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def told_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return str(pid)
