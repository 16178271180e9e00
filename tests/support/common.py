"""What most tests use: paths and sizes, the environment of children, tools, a large C source."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"  # in a child's sys.path, for `from support import ...`
HUGE = 2 << 20

STRANGER = 54321  # a user without any rights, who owns nothing here
# How the kernel shows whoever has no name in a user namespace: has no store, for what is that user's
# may be anybody's.
NOBODY = 65534

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# A run may have several processes, which pytest-xdist's first one starts.
WORKER = "PYTEST_XDIST_WORKER" in os.environ
# The names of all temporary directories of this run but pytest's own begin so.
PREFIX = f"pyhugetext-test-{os.getppid() if WORKER else os.getpid()}-"
# Where the user who runs the tests has stores.
USER_CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")

# The user's store is not for tests: each process has one of its own, and a home, removed at its end.
OWN = tempfile.TemporaryDirectory(prefix=PREFIX)
os.chmod(OWN.name, 0o755)
# Common to the processes of a run.
SHARED = Path(os.environ["TESTS_SHARED"] if WORKER else OWN.name, "shared")
SHARED.mkdir(exist_ok=True)
os.environ["TESTS_SHARED"] = str(SHARED.parent)
CACHE = os.path.join(OWN.name, str(os.geteuid()))
os.environ.setdefault("PIP_CACHE_DIR", os.path.expanduser("~/.cache/pip"))
os.environ["HOME"] = os.path.join(OWN.name, "home")
os.mkdir(os.environ["HOME"])


def script(path: Path) -> ModuleType:
    """A script of the project, as the module that it is when something imports it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clean_environment(**settings: str) -> dict[str, str]:
    """The environment without our settings, and with those given (PYHUGETEXT_ names or others)."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYHUGETEXT")}
    environ.pop("PYTHONPATH", None)
    environ["XDG_CACHE_HOME"] = CACHE
    environ["PYHUGETEXT_BUILD_TIME"] = "unlimited"  # a slow machine builds as much
    environ.update(settings)
    return environ


def tool(*names: str) -> str:
    """The path of the first program there is, of this virtual environment first; skips the test
    where there is none."""
    places = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    for name in names:
        path = shutil.which(name, path=places)
        if path:
            return path
    pytest.skip(f"{' or '.join(names)} is not installed")


def big_source(functions: int = 3000, tag: str = "f", padding: int = 1024) -> str:
    """C source of a library with `functions` functions, each padded to about `padding` bytes.

    `int <tag>_<i>(int x)` returns `x * 3 + i`; `long <tag>_sum(int x)` calls them all.
    """
    parts = [
        f"int {tag}_{i}(int x) {{ if (x == -12345) "
        f'__asm__ volatile(".skip {padding}, 0x90"); return x * 3 + {i}; }}'
        for i in range(functions)
    ]
    calls = "\n".join(f"  sum += {tag}_{i}(x);" for i in range(functions))
    parts.append(f"long {tag}_sum(int x) {{ long sum = 0;\n{calls}\n return sum; }}")
    return "\n".join(parts)


def big_sum(x: int, functions: int = 3000) -> int:
    """What `<tag>_sum(x)` of big_source returns."""
    return sum(x * 3 + i for i in range(functions))


def assert_interpreter_is_huge(stats: dict[str, Any]) -> None:
    assert stats["active"], stats
    main = max(stats["regions"], key=lambda region: region["coverable_bytes"])
    assert main["status"] == "huge", main


def run_silently(python: Run, code: str, *arguments: str, **options: object) -> None:
    result = python(code, *arguments, **options)
    assert (result.stdout, result.stderr) == ("", "")
