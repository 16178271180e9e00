"""Parsing the command line and running a command."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from types import ModuleType
from typing import NoReturn

import pyhugetext
from pyhugetext import _words
from pyhugetext.cli import commands, text
from pyhugetext.cli.outcome import FAILED, INTERRUPTED, USAGE, Failure

_DESCRIPTION = """\
Runs the machine code of every Python process from 2 MiB pages. That happens by itself wherever the
package is installed; these commands prepare and look after what it draws on, and run any other
program the same way. Without a command: what runs from huge pages in this process, what this
machine can do, and what to try next."""

_MANUAL = """\
environment:
  PYHUGETEXT_STORE        the user's store (an absolute path); else $XDG_CACHE_HOME/pyhugetext or
                          ~/.cache/pyhugetext
  PYHUGETEXT_STORE_LIMIT  bytes a store on disk may take (default 4G)
  PYHUGETEXT_SHM_LIMIT    bytes the store in shared memory may take (default 512M)

exit status:
  0 done; 1 something failed, and a sentence on stderr says what; 2 wrong usage; 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """Ends with the status of wrong usage even where stderr takes nothing."""

    def error(self, message: str) -> NoReturn:
        text.complain(f"{self.format_usage()}{self.prog}: error: {text.printable(message)}\n")
        raise SystemExit(USAGE)


def load() -> dict[str, ModuleType]:
    """The commands by name."""
    # Not pkgutil, which takes as long as the rest of a start: it brings inspect.
    files = os.listdir(commands.__path__[0])
    names = sorted({file.partition(".")[0] for file in files if not file.startswith("_")})
    return {
        name.replace("_", "-"): importlib.import_module(f"{commands.__name__}.{name}")
        for name in names
    }


def make_parsers(
    modules: dict[str, ModuleType],
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and the one of each command."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="pyhugetext", description=_DESCRIPTION, epilog=_MANUAL, formatter_class=plain
    )
    version = f"%(prog)s {pyhugetext.__version__}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="subcommand")
    subparsers.required = True
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, module in modules.items():
        parsers[name] = sub = subparsers.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            epilog=module.MANUAL,
            formatter_class=plain,
        )
        module.add_arguments(sub)
    return parser, parsers


def _split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """What is before the first `--`, and the program behind it."""
    if "--" not in arguments:
        return arguments, None
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _needs_no_output(modules: dict[str, ModuleType], arguments: list[str]) -> bool:
    """Whether a command is asked for that prints nothing itself, and no help."""
    module = modules.get(arguments[0] if arguments else "")
    return not (getattr(module, "PRINTS", True) or {"-h", "--help"}.intersection(arguments))


def _run(arguments: list[str]) -> int:
    name = ""
    try:
        if not arguments:
            if sys.stdout is None:
                raise Failure("the standard output is closed")
            from pyhugetext.cli import welcome

            return welcome.greet()
        modules = load()
        own, command = _split(arguments)
        if sys.stdout is None and not _needs_no_output(modules, own):
            raise Failure("the standard output is closed")
        parser, parsers = make_parsers(modules)
        options = parser.parse_args(own)
        name = options.subcommand
        module = modules[name]
        if command is not None and not getattr(module, "TAKES_COMMAND", False):
            parsers[name].error("it takes no command after --")
        if command == []:
            parsers[name].error("there is no command after --")
        options.command = command
        options.known = modules, parser, parsers
        status: int = module.run(options)
        return status
    except Failure as failure:
        text.say(str(failure), name)
        return failure.status
    except SystemExit as end:  # after --help or wrong usage; by a signal
        return end.code if isinstance(end.code, int) else FAILED
    except KeyboardInterrupt:
        text.say("interrupted", name)
        return INTERRUPTED
    except BrokenPipeError:
        text.give_up(sys.stdout)
        return FAILED
    except OSError as error:
        # If it was about stdout, that has been told.
        if _flush(name):
            text.say(_words.sentence(error), name)
        return FAILED
    except ImportError as error:
        # Windows lacks modules of Python's own, too.
        ours = (error.name or "").partition(".")[0] == "pyhugetext" or os.name != "posix"
        text.say(_words.no_native_part(error) if ours else str(error), name)
        return FAILED
    except Exception as error:
        if os.environ.get("PYHUGETEXT_DEBUG") == "1":
            raise
        sentence = f"this should not happen: {type(error).__name__}: {error}"
        text.say(f"{sentence} (PYHUGETEXT_DEBUG=1 shows where)", name)
        return FAILED


def _flush(name: str = "") -> bool:
    """Writes out what was printed. Where that fails says so, but of a reader that has seen enough,
    and returns False."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        return True
    except BrokenPipeError:
        pass
    except OSError as error:
        text.say(f"standard output: {_words.sentence(error)}", name)
    text.give_up(sys.stdout)
    return False


def main(arguments: list[str] | None = None) -> int:
    """Runs `pyhugetext` with these arguments (sys.argv's by default); returns the exit status."""
    try:
        # A path may hold bytes that the terminal's encoding has not.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        status = _run(sys.argv[1:] if arguments is None else arguments)
        return status if _flush() else status or FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
