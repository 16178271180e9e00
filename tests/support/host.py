"""Extension modules with much text, and programs that import them on a store that has no entry of
theirs yet: what runs of ours then runs in the middle of somebody else's program."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.common import clean_environment
from support.once import once
from support.store import require_huge_disk

LIMIT = 60  # seconds after which a program counts as hanging, on any machine
SMALL, LARGE = 5 << 20, 96 << 20  # bytes of text; to build the large one takes a while

SOURCE = """
    #include <Python.h>
    __asm__(".text\\n.skip {size}, 0x90\\n");
    static PyObject *triple(PyObject *self, PyObject *x) {{
        return PyLong_FromLong(3 * PyLong_AsLong(x));
    }}
    static PyMethodDef methods[] = {{{{"triple", triple, METH_O, 0}}, {{0, 0, 0, 0}}}};
    static struct PyModuleDef definition = {{
        PyModuleDef_HEAD_INIT, "{name}", 0, -1, methods, 0, 0, 0, 0}};
    PyMODINIT_FUNC PyInit_{name}(void) {{ return PyModule_Create(&definition); }}
"""


@functools.cache
def modules() -> str:
    """A directory, for sys.path, with the extension modules `hostbig` and `hosthuge`. Everybody
    can read it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) on the path")

    def make(directory: Path) -> None:
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        include = sysconfig.get_path("include")
        for name, size in (("hostbig", SMALL), ("hosthuge", LARGE)):
            source = directory / f"{name}.c"
            source.write_text(SOURCE.format(name=name, size=size))
            target = directory / f"{name}{suffix}"
            command = [compiler, "-shared", "-fPIC", f"-I{include}", "-o", str(target), str(source)]
            subprocess.run(command, check=True)
            source.unlink()
        time.sleep(2.5)  # what is younger than two seconds may be changed again within its times

    return str(once("host-modules", make))


class Host:
    """Programs with a store of their own, which is on disk."""

    def __init__(self, place: Path) -> None:
        require_huge_disk(place)
        self.place = place  # all that the programs may touch but must not
        self.store = place / "store"
        self.modules = modules()
        self.children: list[subprocess.Popen[str]] = []

    def environment(self, **settings: str) -> dict[str, str]:
        defaults = {
            "PYHUGETEXT_STORE": str(self.store),
            "PYHUGETEXT_BACKING": "store",
            "HOME": "/nonexistent",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return clean_environment(**{**defaults, **settings})

    def default(self, **settings: str) -> dict[str, str]:
        """The same store with no setting of ours in the environment."""
        cache = {"XDG_CACHE_HOME": str(self.place / "cache"), "HOME": "/nonexistent"}
        self.store = self.place / "cache/pyhugetext"
        return clean_environment(**cache, PYTHONDONTWRITEBYTECODE="1", **settings)

    def command(self, code: str, *arguments: str, flags: tuple[str, ...] = ()) -> list[str]:
        """Runs code that can import the modules."""
        code = f"import sys; sys.path.insert(0, {self.modules!r})\n{code}"
        return [sys.executable, *flags, "-c", code, *arguments]

    def run(
        self, code: str, *arguments: str, env: dict[str, str], **options: Any
    ) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a program."""
        result = subprocess.run(
            self.command(code, *arguments, flags=options.pop("flags", ())),
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            **options,
        )
        return result.returncode, result.stdout, result.stderr

    def traced(self, calls: str, env: dict[str, str], *flags: str) -> str:
        """strace's lines of a program that imports a module; `calls` as its -e trace= takes them."""
        strace = shutil.which("strace")
        if not strace:
            pytest.skip("strace is not installed")
        with tempfile.NamedTemporaryFile("r", errors="replace") as log:
            command = (strace, "-f", "-qqq", *flags, "-o", log.name, "-e", f"trace={calls}")
            result = subprocess.run(
                [*command, *self.command("import hostbig")],
                env=env,
                cwd=self.place,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
            if result.returncode or result.stderr:
                pytest.skip(f"strace does not work here: {result.stderr}")
            return log.read()

    def start(self, code: str, **options: Any) -> subprocess.Popen[str]:
        """A program that goes on beside the test, but not after it."""
        pipe = subprocess.PIPE
        env = options.pop("env", None) or self.environment()
        child = subprocess.Popen(
            self.command(code), env=env, stdout=pipe, stderr=pipe, text=True, **options
        )
        self.children.append(child)
        return child

    def finish(self, child: subprocess.Popen[str]) -> tuple[int, str, str]:
        """How such a program ended, and what it said; fails where it hangs."""
        try:
            out, errors = child.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end within {LIMIT} s")
        return child.returncode, out, errors

    def end(self) -> None:
        for child in self.children:
            with child:
                child.kill()
        # Copies are large, and pytest keeps what tests leave.
        shutil.rmtree(self.place, ignore_errors=True)

    def backing(self, name: str = "hostbig", env: dict[str, str] | None = None) -> tuple[str, str]:
        """What the next start that builds nothing has under a module, and why nothing better."""
        code = (
            f"import json, {name}, pyhugetext\n"
            f"print(json.dumps([r for r in pyhugetext.stats().as_dict()['regions']"
            f" if {name}.__file__ == r['path']]))"
        )
        env = {**(env or self.environment()), "PYHUGETEXT_BUILD": "never"}
        status, out, errors = self.run(code, env=env)
        assert (status, errors) == (0, "")
        (region,) = json.loads(out)
        return region["backing"], "; ".join([region["reason"] or "", *region["fallbacks"]])

    def is_building(self) -> bool:
        """Whether something is being written to the store now, or was left."""
        try:
            return bool(os.listdir(self.store / "v1/tmp"))
        except FileNotFoundError:
            return False

    def has_record_of(self, name: str) -> bool:
        index = self.store / "v1/index"
        records = list(index.iterdir()) if index.is_dir() else []
        return any(f"/{name}.".encode() in record.read_bytes() for record in records)

    def clear(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Mode and content of all that lies beside the store."""
        out = {}
        for path in sorted(self.place.rglob("*")):
            if path == self.store or self.store in path.parents or path == self.store.parent:
                continue
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            out[str(path)] = (status.st_mode, content)
        return out


@contextlib.contextmanager
def writer_of(store: Path) -> Iterator[None]:
    """Holds the lock of a store's writer, by whatever means that is taken, as a process does that
    was stopped while it built."""
    base = store / "v1"
    base.mkdir(parents=True, exist_ok=True)
    store.chmod(0o700)
    base.chmod(0o700)
    directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    file = os.open(base / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
        os.close(directory)


def wait_until(condition: Callable[[], object]) -> None:
    """Looks often, for what lasts only a moment."""
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.0005)
