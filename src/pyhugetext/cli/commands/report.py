"""Writes a page about the machine code of a process: a map with a square for each 2 MiB, how much of
it is on huge pages, by what means and at what cost, object by object, and why not all of it."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

import pyhugetext
from pyhugetext.cli import text
from pyhugetext.cli.outcome import OK, USAGE, Failure
from pyhugetext.cli.progress import Progress

if TYPE_CHECKING:
    from pyhugetext.cli.reporting.benchfile import Bench
    from pyhugetext.cli.reporting.model import Report

SUMMARY = "write a page with a map of a process's text"

MANUAL = """\
which process:
  --pid PID      A running one of yours (of anybody, as root). It is read from /proc and neither
                 stopped nor changed.
  -m MODULE      A new process of this interpreter that imports the module and looks at itself, once
                 for each module; the current directory is not searched. It is remapped as the
                 PYHUGETEXT_ variables say, as any other. What it prints is shown when it fails.
  Without either: a new process of this interpreter that imports nothing.

the page:
  One file that needs nothing else: no script, no font, no network. It follows the browser's light
  or dark colours and is readable on a phone and on paper. Paths of files are on it, addresses and
  the arguments of the process are not.

  A square of the map is 2 MiB of memory that holds text:
    filled     in a 2 MiB page, as the kernel says
    pale       mapped, and not used yet: the kernel brings it in at the first use
    half       swapped, and yet the kernel holds it in 4 KiB pages
    hatched    in 4 KiB pages

keys of --json:
  file          where the page is
  bytes         its size
  process       {name, executable, pid}; pid is null for a process that was started for it
  share         how much of the coverable text is on huge pages, 0 to 1; null where there is none
  stats         as pyhugetext.stats().as_dict(): sizes in bytes, times in nanoseconds
  map           [{path, cells: {huge, waiting, mixed, small}}]: squares of each way of drawing
  small         the same for all objects without coverable text together
  benches       [{title, sentence, effect, control}]; ratios are {median, low, high, pairs,
                confidence}, huge / small: below 1 is faster

examples:
  pyhugetext report page.html                  the interpreter alone
  pyhugetext report -m numpy -m torch page.html
  pyhugetext report --pid 4242 page.html
  pyhugetext report --pid "$(pgrep -o gunicorn)" - | ssh desk 'cat >page.html'
  pyhugetext report -m torch --svg map.svg     the map alone, as a picture
  pyhugetext bench --json -s 'import json' 'json.dumps([1] * 100)' >bench.json
  pyhugetext report --bench bench.json page.html
                                               with the distribution of what was measured

exit status:
  0 written; 1 not written, and a sentence on stderr says why (a file that was there is as it was);
  2 wrong usage; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "pyhugetext report [-h] [--json] [--pid PID | -m MODULE ...] [--bench FILE.json ...]\n"
        "                         [--svg] FILE"
    )
    parser.add_argument("file", metavar="FILE", help="where to write it; - is the standard output")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--pid", metavar="PID", help="a running process")
    which.add_argument(
        "-m",
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a new process that imports it; may be given several times",
    )
    parser.add_argument(
        "--bench",
        dest="benches",
        metavar="FILE.json",
        action="append",
        default=[],
        help="show what pyhugetext bench --json printed; may be given several times",
    )
    parser.add_argument("--svg", action="store_true", help="the map alone, as SVG")
    parser.add_argument("--json", action="store_true", help="print JSON; keys below")


def run(options: argparse.Namespace) -> int:
    from pyhugetext.cli import importing, processes
    from pyhugetext.cli.reporting import benchfile, drawing, gather, model, output, page

    importing.check_names(options.modules)
    pid = None if options.pid is None else processes.number(options.pid)
    if options.svg and options.benches:
        raise Failure("a map alone (--svg) shows no measurement: leave --bench out", USAGE)
    if options.json and options.file == output.STDOUT:
        raise Failure("the page and --json cannot both go to the standard output", USAGE)
    # What is fast to fail comes first.
    benches = [benchfile.read(path) for path in options.benches]
    if pid is not None:
        found = gather.running(pid)
    else:
        names = ", ".join(options.modules)
        with Progress() as progress:
            progress.begin(f"importing {names}" if names else "starting")
            found = gather.started(options.modules)
    taken = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    report = model.build(*found, benches, pyhugetext.__version__, taken)
    content = drawing.alone(report) if options.svg else page.page(report)
    size = output.write(options.file, content)
    if options.json:
        print(json.dumps(_document(report, options.file, size), indent=2))
    elif options.file != output.STDOUT:
        print(_told(report, options.file, size))
    return OK


def _told(report: Report, file: str, size: int) -> str:
    from pyhugetext.cli.reporting import words

    return f"{text.printable(file)} ({text.size(size)}): {words.headline(report)}"


def _document(report: Report, file: str, size: int) -> dict[str, Any]:
    from pyhugetext.cli.reporting.model import STATES

    def counted(states: tuple[str, ...]) -> dict[str, int]:
        return {state: states.count(state) for state in STATES}

    subject, stats = report.subject, report.stats
    return {
        "file": file,
        "bytes": size,
        "process": dict(vars(subject)),
        "share": stats.mapped_bytes / stats.coverable_bytes if stats.coverable_bytes else None,
        "stats": stats.as_dict(),
        "map": [
            {"path": block.region.path, "cells": counted(block.cells)} for block in report.blocks
        ],
        "small": {"cells": counted(report.small_cells)},
        "benches": [_bench(bench) for bench in report.benches],
    }


def _bench(bench: Bench) -> dict[str, Any]:
    return {
        "title": bench.title,
        "sentence": bench.sentence,
        "effect": bench.effect._asdict(),
        "control": None if bench.control is None else bench.control._asdict(),
    }
