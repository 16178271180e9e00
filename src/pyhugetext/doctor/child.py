"""Running a short program in a new process of this interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

_SECONDS = 20.0


class Failed(Exception):
    """The child did not end as it should; the text says how."""


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment with changes; None takes a variable away."""
    environ = dict(os.environ)
    for name, value in changes.items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
    return environ


def run(code: str, *arguments: str, environ: dict[str, str]) -> Any:
    """Runs the code with `python -c`; what it printed last, read as JSON. Failed where it did not
    get that far."""
    if not sys.executable:
        raise Failed("this interpreter does not know its own path (sys.executable is empty)")
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"a new python did not end within {_SECONDS:.0f} seconds") from None
    except OSError as error:
        raise Failed(f"{sys.executable} cannot be started: {error.strerror}") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise Failed(f"a new python was killed by {name}")
    lines = done.stdout.decode(errors="replace").splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        last = said[-1] if said else "it printed nothing"
        raise Failed(f"a new python ended with status {done.returncode}: {last}") from None
