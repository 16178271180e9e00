"""What children are started under: limits of the process, mount namespaces."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

MIB = 1 << 20
PR_SET_THP_DISABLE, PR_SET_MDWE = 41, 65

# In a child: what the core reads of limits on memory, as JSON.
ROOM = "import json; from pyhugetext import _native; print(json.dumps(_native.memory_room()))"
# No store: the rungs below are to be seen.
NO_STORE = {"PYHUGETEXT_STORE": "/proc/none", "PYHUGETEXT_BUILD": "never"}


def set_process(option: int, value: int) -> Callable[[], None]:
    """For preexec_fn: prctl(option, value), which the program then inherits."""
    libc = ctypes.CDLL(None, use_errno=True)

    def set_() -> None:
        if libc.prctl(option, value, 0, 0, 0):
            os._exit(77)

    return set_


def limit(which: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (value, value))


def knows(option: int, value: int) -> bool:
    return (
        subprocess.run(
            [sys.executable, "-S", "-c", ""], preexec_fn=set_process(option, value), check=False
        ).returncode
        == 0
    )


def in_own_mounts(command: str) -> tuple[str, ...]:
    """A prefix that runs a shell command in a mount namespace of its own before the program."""
    for unshare in (("unshare", "-m"), ("unshare", "-rm")):
        if not shutil.which("unshare"):
            break
        test = [*unshare, "sh", "-c", command]
        if subprocess.run(test, capture_output=True, check=False).returncode == 0:
            return (*unshare, "sh", "-c", f'{command} && exec "$@"', "sh")
    pytest.skip("no mount namespaces here (needs root or user namespaces)")
