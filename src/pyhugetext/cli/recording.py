"""Finding out what a program would take from a store, by running it.

The program gets a store of its own whose file system is said to give no huge pages. The start-up
hook, or the preload library, then builds nothing and writes a note for each object that it would have built: path and load
bias of exactly what it wants, from every process of the program that has it, at the moment of the
import. Nothing is polled and nothing is missed at exit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from pyhugetext import _words
from pyhugetext.children import temporary
from pyhugetext.children.endings import kill_group, uninterrupted
from pyhugetext.cli import installed
from pyhugetext.cli.importing import told_after_importing
from pyhugetext.cli.outcome import Failure
from pyhugetext.programs import preload
from pyhugetext.store import places, upkeep

# What of the user's settings decides about which objects are wanted.
_KEPT = ("PYHUGETEXT_MIN_TEXT", "PYHUGETEXT_INCLUDE", "PYHUGETEXT_EXCLUDE")
# And about what may be done by a program that runs from what it stores.
_KEPT_BY_FILLERS = (
    "PYHUGETEXT_PRIVATE_LIMIT",
    "PYHUGETEXT_SHM_LIMIT",
    "PYHUGETEXT_STORE_LIMIT",
    "PYHUGETEXT_STRICT",
)


class Wanted(NamedTuple):
    """An object to prepare: its path, and its load bias modulo 2 MiB."""

    path: str
    bias: int


class Recorder:
    """A store that only takes notes, at `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.store = places.Store(os.path.join(root, "store"), 0)
        places.remember(self.store, places.NEVER)

    def environment(self) -> dict[str, str]:
        """The environment for the program."""
        environ = {
            k: v for k, v in os.environ.items() if not k.startswith("PYHUGETEXT") or k in _KEPT
        }
        environ["PYHUGETEXT_STORE"] = self.store.root
        environ["PYHUGETEXT_BACKING"] = "store"
        # Waits for others that are taking notes.
        environ["PYHUGETEXT_BUILD"] = "always"
        return environ

    def objects(self) -> list[Wanted]:
        """What was wanted so far."""
        _, notes = upkeep.contents(self.store)
        return sorted(Wanted(note.original, note.bias) for note in notes if note.original)


class Filler(Recorder):
    """The store that is to be filled, which the program fills itself, with what it uses."""

    def __init__(self, store: places.Store, backing: str) -> None:
        self.store = store
        self._backing = backing
        self._before = {one for one, durable in self._entries() if durable}

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in _KEPT_BY_FILLERS}
        environ = super().environment()
        if self.store.kind == "shm":
            # As one on disk it would be filled without the limits of memory; it needs no name.
            del environ["PYHUGETEXT_STORE"]
            kept.update((k, v) for k, v in os.environ.items() if k == "PYHUGETEXT_STORE")
        return {
            **environ,
            **kept,
            "PYHUGETEXT_BACKING": self._backing,
            "PYHUGETEXT_BUILD_TIME": "unlimited",
        }

    def objects(self) -> list[Wanted]:
        """What is there, and is not known to be on disk for good since before."""
        return sorted(one for one, _ in self._entries() if one not in self._before)

    def _entries(self) -> list[tuple[Wanted, bool]]:
        entries, _ = upkeep.contents(self.store)
        return [
            (Wanted(one.original, one.bias), one.durable)
            for one in entries
            if one.original and one.state == upkeep.READY
        ]


@contextmanager
def recorder() -> Iterator[Recorder]:
    """A Recorder in a temporary directory that the hook trusts, removed afterwards."""
    try:
        directory = temporary.directory()
    except temporary.NoDirectory as error:
        raise Failure(str(error)) from None
    with directory as root:
        try:
            found = Recorder(root)
        except places.Trouble as error:
            what = "is not safe" if error.kind == places.UNTRUSTED else "cannot be used"
            raise Failure(
                f"the temporary directory {what}: {error.strerror}; TMPDIR can name another"
            ) from None
        yield found


def import_module(recorder: Recorder, module: str) -> list[Wanted]:
    """Imports a module (none when it is empty) in a child process, with the interpreter of this
    one. Returns what is in the system's store already; the rest is in recorder.objects(). Failure
    where the import fails, with what it printed on stderr."""
    told = told_after_importing([module] if module else [], "stored", recorder.environment())
    return [Wanted(path, bias) for path, low in told["present"] for bias in _bias(path, low)]


def _bias(path: str, low: int) -> Iterator[int]:
    """The load bias modulo 2 MiB of an object whose first page is at `low`; none where the file
    does not tell."""
    try:
        with open(path, "rb") as file:
            head = installed.read_head(file.fileno())
    except OSError:
        return
    if head is not None:
        yield installed.bias_of(head, low)


def run_command(
    recorder: Recorder,
    command: Sequence[str],
    quiet: bool,
    library: str = "",
) -> tuple[int, bool]:
    """Runs a command to its end, with the preload library in it where one is given; `quiet` sends its
    output to stderr. Returns its exit status, as
    subprocess does, and whether Ctrl-C came meanwhile (it is the command's to end then). Failure
    where it cannot be started."""
    out = sys.stderr.fileno() if quiet and sys.stderr is not None else None
    environ = _environment(recorder, library)
    try:
        process = subprocess.Popen(command, env=environ, stdout=out)
    except OSError as error:
        raise Failure(f"the command cannot be run: {_words.sentence(error)}") from None
    interrupted = False
    while True:
        try:
            return process.wait(), interrupted
        except KeyboardInterrupt:
            if interrupted:
                process.kill()
                process.wait()
                raise
            interrupted = True


def run_silently(recorder: Recorder, command: Sequence[str], library: str) -> int:
    """The same of a command that reads nothing, prints nowhere, and leaves nothing running: whatever
    is raised meanwhile ends it. Returns its exit status. Failure where it cannot be started."""
    nowhere = subprocess.DEVNULL
    process: subprocess.Popen[bytes] | None = None
    try:
        with uninterrupted():
            process = subprocess.Popen(
                command,
                env=_environment(recorder, library),
                stdin=nowhere,
                stdout=nowhere,
                stderr=nowhere,
                start_new_session=True,
            )
        return process.wait()
    except OSError as error:
        raise Failure(f"the command cannot be run: {_words.sentence(error)}") from None
    finally:
        if process is not None:
            kill_group(process)


def _environment(recorder: Recorder, library: str) -> dict[str, str]:
    environ = recorder.environment()
    return preload.environment(environ, library) if library else environ
