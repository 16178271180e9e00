"""Runs any program from 2 MiB pages: C, C++, Rust, Node, a database. COMMAND takes the place of this
process, with the preload library in its environment; its exit status, its signals and its input are
its own. What it starts in turn is covered, too."""

from __future__ import annotations

import argparse
import errno
import os
import signal
from typing import TYPE_CHECKING, NoReturn

from pyhugetext import _words
from pyhugetext.cli import text
from pyhugetext.cli.outcome import USAGE, Failure

if TYPE_CHECKING:
    from pyhugetext.programs.looking import Program

SUMMARY = "run any program from huge pages"
TAKES_COMMAND = True
PRINTS = False  # the standard output is the command's

MANUAL = """\
what happens:
  LD_PRELOAD gets the library that pyhugetext preload-path prints, before what is there; the options
  become PYHUGETEXT_ variables, which are described with the settings of the package. In the program
  the library does before main() what the start-up hook does in a Python. In a Python that has
  pyhugetext it is the same engine: nothing is done twice.

  A program that the library does not come into is run all the same, and one sentence on stderr says
  that it is not covered and why: one that is linked statically, a 32-bit one, one for another
  processor or another C library, one that runs with more rights than its caller (set-user-ID). Of a
  script the interpreter counts.

  Programs whose address is another one at each start (position-independent executables, unless their
  file asks for 2 MiB) find no copy in a store. They get private memory, one copy for all processes
  that they fork, up to PYHUGETEXT_PRIVATE_LIMIT; their libraries come from the store.

the report:
  With --report the library writes {version, pid, command, active, reason, elapsed_ns,
  settings_problems, regions: [{path, low, high, text_bytes, coverable_bytes, mapped_bytes, backing,
  status, reason}]} when the program ends by itself. %p in the name becomes the process id; without
  it the programs that the command starts write to the same file, and the last one to end is read.

examples:
  pyhugetext run -- node server.js
  pyhugetext run --warm -- clang++ -O2 -c large.cpp
  pyhugetext run --report /tmp/report-%p.json -- postgres -D data
  pyhugetext run --backing memfd --include '*/libLLVM*' -- ./compile

exit status:
  The command's. Where it was not started: 127 when it was not found, 126 when it cannot be executed,
  2 for wrong usage.
"""

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as a shell has them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "pyhugetext run [-h] [--backing BACKING] [--include PATTERN]... [--exclude PATTERN]...\n"
        "                      [--warm] [--report FILE.json] -- COMMAND [ARGUMENT ...]"
    )
    parser.add_argument(
        "--backing", metavar="BACKING", help="auto, file, store, shm, memfd, thp or hugetlb"
    )
    for name, what in (("--include", "only objects"), ("--exclude", "no objects")):
        parser.add_argument(
            name,
            metavar="PATTERN",
            action="append",
            default=[],
            help=f"{what} whose path fits; may be given several times",
        )
    parser.add_argument(
        "--warm", action="store_true", help="prepare the store for it and its libraries before"
    )
    parser.add_argument(
        "--report", metavar="FILE.json", help="have each program write what was done when it ends"
    )


def run(options: argparse.Namespace) -> int:
    from pyhugetext import _backing
    from pyhugetext.programs import looking, preload

    command: list[str] | None = options.command
    if not command:
        raise Failure("it takes a COMMAND behind --", USAGE)
    if options.backing is not None and options.backing not in _backing.ALLOWED:
        raise Failure(_backing.unknown("--backing", options.backing), USAGE)
    environ = _original()
    try:
        file = looking.find(command[0], environ)
    except looking.NotStartable as error:
        raise Failure(str(error), error.status) from None
    environ.update(_settings(options))
    try:
        library = preload.path()
    except preload.Missing as missing:
        text.say(f"{command[0]} will not be covered: {missing}", "run")
    else:
        program = looking.look(file, environ, library)
        _tell(program, environ)
        environ = preload.environment(environ, library)
        if options.warm and not program.why_not:
            _warm(program, environ)
    _execute(file, command, environ)


def _original() -> dict[str, str]:
    """The environment as it was given: in the C locale Python sets LC_CTYPE for itself."""
    environ = dict(os.environ)
    try:
        with open("/proc/self/environ", "rb") as file:
            given = file.read().split(b"\0")
    except OSError:
        return environ
    if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
        environ.pop("LC_CTYPE", None)
    return environ


def _settings(options: argparse.Namespace) -> dict[str, str]:
    """The variables that the options stand for."""
    given = {
        "BACKING": options.backing,
        "INCLUDE": ":".join(options.include),
        "EXCLUDE": ":".join(options.exclude),
        "REPORT": None if options.report is None else os.path.abspath(options.report),
    }
    return {f"PYHUGETEXT_{name}": value for name, value in given.items() if value}


def _tell(program: Program, environ: dict[str, str]) -> None:
    """Says why a program will not be covered, where that is known."""
    from pyhugetext._settings import Settings

    why = program.why_not
    if not why and Settings([os.fsencode(f"{k}={v}") for k, v in environ.items()]).off:
        why = "PYHUGETEXT turns it off"
    if not why:
        return
    subject = program.path
    if program.path != program.file:
        subject = f"{program.file} is run by {program.path}, which"
    text.say(f"{subject} will not be covered: {why}", "run")


def _warm(program: Program, environ: dict[str, str]) -> None:
    """Prepares the store. Whatever becomes of that, the command is run."""
    from pyhugetext.cli import warming

    call = warming.Warming("run", files=[program.path], environ=environ)
    try:
        warming.fill(call)
    except Failure as failure:
        text.say(str(failure), "run")
    if call.interrupted:
        raise KeyboardInterrupt


def _execute(file: str, command: list[str], environ: dict[str, str]) -> NoReturn:
    # Python ignores these; who starts a program expects them to end it.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(file, command, environ)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            # Of a script, its interpreter may be what is missing.
            raise Failure(f"{file}: {_words.reason(error)}", _NOT_EXECUTABLE) from None
    # What is neither a program nor a script the shell runs; see execvp(3).
    try:
        os.execve("/bin/sh", ["/bin/sh", file, *command[1:]], environ)
    except OSError as error:
        raise Failure(f"/bin/sh: {_words.reason(error)}", _NOT_EXECUTABLE) from None
