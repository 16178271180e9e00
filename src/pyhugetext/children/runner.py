"""Starting a module of this package in a new python, and hearing what it tells."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

from pyhugetext import _words
from pyhugetext.children import temporary
from pyhugetext.children.endings import ending, kill_group, last_line, tail, uninterrupted

_POLL = 0.2  # seconds between looks whether the process is still there

# What `-P -m` does, for versions that have no -P: a -c puts the current directory first.
_WITHOUT_P = """\
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
import runpy
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)"""


class Unanswered(Exception):
    """A child that gave no answer; the text says how it ended, as in `ended with exit status 1`.
    `printed` holds the last of what it printed, `line` is `: ` and the last line of it, or empty."""

    def __init__(self, how: str, printed: bytes = b"", line: str = "") -> None:
        super().__init__(how)
        self.printed = printed
        self.line = line


class Answer(NamedTuple):
    """What a child told, and the last of what it printed."""

    told: dict[str, Any]
    printed: bytes


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment with changes; None takes a variable away."""
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def command(module: str, *arguments: str) -> list[str]:
    """What runs a module of this package in a new python of this interpreter, without looking for
    anything in the current directory. Unanswered where the interpreter is not known."""
    if not sys.executable:
        why = "this interpreter does not know its own path (sys.executable is empty)"
        raise Unanswered(f"cannot be started: {why}")
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", module, *arguments]
    return [sys.executable, "-c", _WITHOUT_P, module, *arguments]


class Child:
    """A module that runs in a new python. It gets a request, anything that JSON can hold, and tells
    by lines of JSON. A context manager: at its end what still runs of it is killed.

    One that runs `apart` leads a session of its own, whose processes are all killed with it, and
    what it prints on stdout goes nowhere. Unanswered where it cannot be started.
    """

    def __init__(
        self,
        module: str,
        request: object,
        environ: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._output = _output()
        self._reader, writer = os.pipe()
        try:
            with uninterrupted():
                self._process = subprocess.Popen(
                    command(module, str(writer)),
                    env=environ,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL if apart else self._output,
                    stderr=self._output,
                    pass_fds=(writer,),
                    start_new_session=apart,
                )
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                raise Unanswered(f"cannot be started: {_words.sentence(error)}") from None
            raise
        finally:
            os.close(writer)
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # gone already: noticed by told()
                self._process.stdin.write(json.dumps(request).encode())
                self._process.stdin.close()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        if self._apart:
            kill_group(self._process)
        else:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        os.close(self._reader)
        self._output.close()

    def told(self, seconds: float | None = None) -> Iterator[dict[str, Any]]:
        """What it tells, until it has ended. Unanswered where that takes longer than `seconds`."""
        began = time.monotonic()
        rest = b""
        while True:
            gone = self._process.poll() is not None
            ready, _, _ = select.select([self._reader], [], [], 0 if gone else _POLL)
            if ready:
                data = os.read(self._reader, 1 << 16)
                *lines, rest = (rest + data).split(b"\n")
                yield from map(json.loads, lines)
                if data:
                    continue
                # The other end is closed: it ends now, or does not come back.
                time.sleep(0 if gone else _POLL / 10)
            # A child of the child's may hold the other end open.
            if gone:
                return
            if seconds is not None and time.monotonic() - began > seconds:
                raise self.unanswered(f"did not end within {seconds:.0f} seconds")

    def unanswered(self, how: str = "") -> Unanswered:
        """Says how it ended, and what it printed."""
        how = how or ending(self._process.wait())
        return Unanswered(how, self.printed(), last_line(self._output))

    def printed(self) -> bytes:
        """The last of what it printed."""
        return tail(self._output)


def _output() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=temporary.place())
    except OSError:  # what is printed then is lost, but only that
        return open(os.devnull, "w+b")


def ask(
    module: str,
    request: object = None,
    environ: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> Answer:
    """The first that a module tells. Unanswered where it ends before."""
    with Child(module, request, environ) as child:
        for told in child.told(seconds):
            return Answer(told, child.printed())
        raise child.unanswered()
