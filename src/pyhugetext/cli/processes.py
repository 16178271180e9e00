"""The processes that a command looks at."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

from pyhugetext._stats.model import Stats
from pyhugetext._stats.smaps import Mapping
from pyhugetext.cli.outcome import USAGE, Failure
from pyhugetext.process import inspect, proc

_T = TypeVar("_T")

_COMMAND = 4096  # bytes of a command line that are read


class Seen(NamedTuple):
    """A process and its statistics at one time."""

    pid: int
    uid: int
    user: str
    command: str
    python: bool
    preloaded: bool  # the preload library is in it
    stats: Stats


class Unread(NamedTuple):
    """A process that was not looked at."""

    pid: int
    reason: str  # a sentence
    cause: str  # the same without the process
    gone: bool


def number(text: str) -> int:
    """A process id from the command line. Failure where it is none."""
    if text.isascii() and text.isdigit() and 0 < int(text[:10]) < proc.MOST:
        return int(text)
    raise Failure(f"{text!r} is no process id: a number from 1 to {proc.MOST - 1}", USAGE)


def look(pid: int) -> Seen | Unread:
    """One process, whatever it runs."""
    try:
        with proc.Process(pid) as process:
            return _seen(process)
    except proc.NotInspectable as error:
        return _unread(pid, error)


class Close(NamedTuple):
    """A process looked at closely; without its arguments, of which some hold secrets."""

    pid: int
    user: str
    program: str  # the executable's name
    loaded: bool  # whether the package is
    stats: Stats
    held: inspect.Held


def running(only_mine: bool) -> Iterator[Seen | Unread]:
    """All processes but this one that run Python, have the preload library or text of ours, in order of their ids, and those of which it cannot be
    told. Kernel threads and what ends meanwhile are left out."""
    return _running(only_mine, _counts, _seen)


def running_python_closely() -> Iterator[Close | Unread]:
    """The Python processes of all users but this one, looked at closely."""
    return _running(False, inspect.runs_python, _close)


def _running(
    only_mine: bool,
    counts: Callable[[list[Mapping]], bool],
    look: Callable[[proc.Process], _T],
) -> Iterator[_T | Unread]:
    for name in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        pid = int(name)
        if pid == os.getpid():
            continue
        try:
            with proc.Process(pid) as process:
                if only_mine and process.owner != os.geteuid():
                    continue
                if counts(process.mappings("maps")):
                    yield look(process)
        except (proc.Gone, proc.NoMemory):
            continue
        except proc.NotInspectable as error:
            yield _unread(pid, error)


def _counts(mappings: list[Mapping]) -> bool:
    """Whether a process is one that this package has to do with."""
    return (
        inspect.runs_python(mappings) or inspect.is_preloaded(mappings) or inspect.is_ours(mappings)
    )


def _seen(process: proc.Process) -> Seen:
    stats, python, preloaded = inspect.examine(process)
    words = process.text("cmdline", _COMMAND).split("\0")
    command = " ".join(words).strip() or f"[{process.state().name}]"
    user = user_name(process.owner)
    return Seen(process.pid, process.owner, user, command, python, preloaded, stats)


def _close(process: proc.Process) -> Close:
    stats, loaded, held = inspect.examine_closely(process)
    try:
        program = os.path.basename(os.readlink("exe", dir_fd=process.directory))
    except OSError:
        program = process.state().name
    return Close(process.pid, user_name(process.owner), program, loaded, stats, held)


def _unread(pid: int, error: proc.NotInspectable) -> Unread:
    cause = error.cause if isinstance(error, proc.Forbidden) else str(error)
    return Unread(pid, str(error), cause, isinstance(error, proc.Gone))


@lru_cache(maxsize=256)
def user_name(uid: int) -> str:
    """The name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
