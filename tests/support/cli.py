"""What the tests of the command line share."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.common import PREFIX, STRANGER, clean_environment


class Cli:
    """Runs `python -m pyhugetext` on a store of its own. Only that store is in use, so that the
    one in shared memory, which all processes of a user share, stays as it is."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.prefix: tuple[str, ...] = ()
        self.executable = sys.executable
        self.words: tuple[str, ...] = ("-m", "pyhugetext")

    def environment(self, **env: str) -> dict[str, str]:
        # The process of the command itself builds nothing; its children run as they are told to.
        defaults = {
            "PYHUGETEXT": "0",
            "PYHUGETEXT_STORE": str(self.store),
            "PYHUGETEXT_BACKING": "store",
        }
        return clean_environment(**{**defaults, **env})

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, self.executable, *self.words, *arguments],
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str, status: int = 0, **env: str) -> dict[str, Any]:
        """Runs with --json before the rest, and checks the exit status."""
        at = 2 if arguments[0] == "store" else 1
        result = self(*arguments[:at], "--json", *arguments[at:], **env)
        assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
        parsed: dict[str, Any] = json.loads(result.stdout)
        return parsed

    def entries(self, **env: str) -> list[dict[str, Any]]:
        (store,) = self.json("store", "list", **env)["stores"]
        entries: list[dict[str, Any]] = store["entries"]
        return entries


# For Cli.words: doctor times page walks only a moment long, where what it finds is of no interest.
SHORT_WALKS = (
    "-c",
    "import sys; from pyhugetext.doctor import pagewalk as walks; "
    "walks.SIZE, walks._STEPS, walks._ROUNDS = 4 << 20, 100, 2; "
    "from pyhugetext.__main__ import main; sys.exit(main())",
)


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block at the latest."""
    options.setdefault("stdout", subprocess.PIPE)
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def on_terminal(cli: Cli, *arguments: str, **env: str) -> str:
    """What is shown on stderr when that is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *cli.words, *arguments],
        env=cli.environment(**env),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert process.wait() == 0, shown
    return shown.decode()


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line on stderr, which holds these words."""
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited for a minute")


def status_of(document: dict[str, Any], path: Path) -> str:
    """What warm --json did with an object."""
    (status,) = [one["status"] for one in document["objects"] if one["path"] == str(path)]
    return str(status)


def check(told: dict[str, Any], name: str) -> dict[str, Any]:
    """A check of `doctor --json`."""
    found = [one for one in told["checks"] if one["name"] == name]
    assert len(found) == 1, (name, told["checks"])
    return dict(found[0])


def rung(told: dict[str, Any], name: str) -> dict[str, Any]:
    """A backing of `doctor --json`."""
    (found,) = (one for one in told["backings"] if one["backing"] == name)
    return dict(found)


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts or changes users")


def need_tool(*names: str) -> None:
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def need_for_others(*paths: Path | str) -> None:
    """Skips where an ordinary user could not run this interpreter."""
    # The interpreter of a virtual environment is a link to one that may be in somebody's home.
    executable = os.path.realpath(sys.executable)
    for path in (sys.executable, executable, sysconfig.get_path("platlib"), *paths):
        for step in (Path(path), *Path(path).parents):
            if not step.stat().st_mode & 0o001 and not step.is_file():
                pytest.skip(f"an ordinary user cannot enter {step}")


AS_STRANGER = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups")


def in_namespace(script: str) -> tuple[str, ...]:
    """A command to put in front: a mount namespace of its own in which `script` has run."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh")


def in_read_only_root(cli: Cli) -> None:
    """From now on nothing but the store and shared memory can be written, as in a container."""
    need_root()
    need_tool("unshare", "findmnt")
    cli.store.mkdir()
    cli.prefix = in_namespace(
        f"""
        mount -t tmpfs -o mode=1777,size=1G none /dev/shm
        mount --bind '{cli.store}' '{cli.store}'
        for place in /tmp /var/tmp .; do
            mount -o remount,bind,ro "$(findmnt -n -o TARGET -T $place)"
        done
        """
    )


def own_shared_memory() -> tuple[str, ...]:
    """A command to put in front: a mount namespace with a /dev/shm of its own, since the store there
    is the user's who runs the tests, wherever the one on disk is."""
    script = "mount -t tmpfs -o mode=1777,size=1G none /dev/shm"
    for unshare in (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user")):
        prefix = (*unshare, "sh", "-ec", f'{script}\nexec "$@"', "sh")
        if not shutil.which("unshare"):
            break
        if not subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            return prefix
    pytest.skip("no mount namespaces here (needs root or user namespaces)")


Library = Callable[..., Path]


def make_library(compile_library: Library, tag: str = "f", mebibytes: int = 5) -> Path:
    """A shared library with so much text, most of it skipped: it compiles in no time."""
    source = f"""
        int {tag}_triple(int x) {{
            if (x == -12345) __asm__ volatile(".skip {mebibytes << 20}, 0x90");
            return x * 3;
        }}
    """
    return compile_library(source, name=f"lib{tag}.so")


def make_module(directory: Path, name: str, library: Path, more: str = "") -> Path:
    """A module that loads the library; for PYTHONPATH."""
    path = directory / f"{name}.py"
    path.write_text(f"import ctypes\nlibrary = ctypes.CDLL({str(library)!r})\n{more}\n")
    return path


@contextmanager
def public_directory() -> Iterator[Path]:
    """A temporary directory that every user can enter; pytest's own are for one only."""
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        directory.chmod(0o755)
        yield directory
    finally:
        shutil.rmtree(directory)


class Mounts:
    """Mounts new file systems from files: `mount(kind, mebibytes, *mkfs options)`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.points: list[Path] = []

    def __call__(self, kind: str, mebibytes: int, *options: str) -> Path:
        need_root()
        need_tool(f"mkfs.{kind}", "mount")
        image = self.directory / f"{kind}.image"
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        command = [f"mkfs.{kind}", "-q", *options, str(image)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        point = self.directory / kind
        point.mkdir()
        done = subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=False)
        if done.returncode:
            pytest.skip(f"a {kind} file system cannot be mounted here")
        self.points.append(point)
        return point

    @staticmethod
    def make_read_only(point: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)

    def clean_up(self) -> None:
        for point in self.points:
            subprocess.run(["umount", "--lazy", str(point)], check=True)
