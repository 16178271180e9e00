"""Writes a page about the machine code of a process: a map with a square for each 2 MiB, how much of
it is on huge pages, by what means and at what cost, object by object, and why not all of it. Or of
two processes side by side, or of all Python processes of the machine."""

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
    from pyhugetext.cli.reporting.gather import Gathered
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

two side by side:
  --without      New processes, one with PYHUGETEXT=0 and one without, that import the modules.
  --pid --pid    Two running processes.
  --compare      Two files that `pyhugetext report --json` printed: of yesterday and today, of two
                 machines. In a map the squares that are drawn alike lie together then.

all of them:
  --all          Every Python process that this user may read (root: all of them): what they share,
                 which have no package, and what huge text would still save: text that runs from
                 small pages, page tables, private copies. Memory is counted once, as the kernel's
                 proportional set size (PSS) does; sizes of text once for each process.

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
  version       of this package; taken is when, in UTC
  taken         see version
  format        "pyhugetext-report-1", what --compare reads; with --all "pyhugetext-machine-1"
  process       {name, executable, pid}; pid is null for a process that was started for it
  share         how much of the coverable text is on huge pages, 0 to 1; null where there is none
  stats         as pyhugetext.stats().as_dict(): sizes in bytes, times in nanoseconds
  map           [{path, cells: {huge, waiting, mixed, small}}]: squares of each way of drawing
  small         the same for all objects without coverable text together
  benches       [{title, sentence, effect, control}]; ratios are {median, low, high, pairs,
                confidence}, huge / small: below 1 is faster
  of two side by side, in place of process to small:
  sides         [{name, process, taken, stats}] of both
  difference    {text_bytes, coverable_bytes, mapped_bytes, huge_bytes, small_bytes,
                private_bytes}: the second less the first
  objects       [{path, sides}]: sizes and backing on both sides; null where it is not loaded
  with --all, in place of process to benches:
  total         {processes, text_bytes, coverable_bytes, mapped_bytes, huge_bytes, small_bytes,
                private_bytes, on_huge_bytes, left_bytes, page_table_bytes, spare_bytes,
                resident_bytes, share_bytes}: left is coverable and on small pages, spare what
                private copies take that one for all would save, share the PSS of the text
  processes     [{pid, user, program, loaded, active, reason, backing, the sizes}]; loaded tells
                whether the package is
  objects       [{path, processes, huge_in, coverable_bytes, left_bytes, private_bytes,
                spare_bytes}]; huge_in is in how many of the processes
  unreadable    [{pid, reason}]

examples:
  pyhugetext report page.html                  the interpreter alone
  pyhugetext report -m numpy -m torch page.html
  pyhugetext report --pid 4242 page.html
  pyhugetext report --pid "$(pgrep -o gunicorn)" - | ssh desk 'cat >page.html'
  pyhugetext report --without -m torch page.html
  pyhugetext report --json --pid 4242 page.html >today.json
  pyhugetext report --compare yesterday.json today.json page.html
  sudo pyhugetext report --all machine.html
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
        "                         [--svg] FILE\n"
        "       pyhugetext report [the same] --without [-m MODULE ...] FILE\n"
        "       pyhugetext report [the same] --pid PID --pid PID FILE\n"
        "       pyhugetext report [the same] --compare FILE.json FILE.json FILE\n"
        "       pyhugetext report [-h] [--json] --all FILE"
    )
    parser.add_argument("file", metavar="FILE", help="where to write it; - is the standard output")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--pid",
        dest="pids",
        metavar="PID",
        action="append",
        default=[],
        help="a running process; given twice the two side by side",
    )
    which.add_argument(
        "-m",
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a new process that imports it; may be given several times",
    )
    which.add_argument(
        "--compare",
        metavar="FILE.json",
        nargs=2,
        help="two files that --json printed, side by side",
    )
    which.add_argument("--all", action="store_true", help="all Python processes of the machine")
    parser.add_argument(
        "--without", action="store_true", help="beside it the same without pyhugetext"
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
    from pyhugetext.cli.reporting import benchfile, output

    _check(options)
    # What is fast to fail comes first.
    benches = [benchfile.read(path) for path in options.benches]
    version = pyhugetext.__version__
    taken = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if options.all:
        content, told, document = _machine(version, taken)
    elif options.without or options.compare or len(options.pids) > 1:
        content, told, document = _compared(options, benches, version, taken)
    else:
        content, told, document = _single(options, benches, version, taken)
    size = output.write(options.file, content)
    if options.json:
        head = {"file": options.file, "bytes": size, "version": version, "taken": taken}
        print(json.dumps({**head, **document}, indent=2))
    elif options.file != output.STDOUT:
        print(f"{text.printable(options.file)} ({text.size(size)}): {told}")
    return OK


def _check(options: argparse.Namespace) -> None:
    """Failure where options do not go together."""
    from pyhugetext.cli import importing
    from pyhugetext.cli.reporting import output

    importing.check_names(options.modules)
    if len(options.pids) > 2:
        raise Failure("two processes can be compared, not more", USAGE)
    if options.without and (options.pids or options.compare or options.all):
        raise Failure("--without goes with new processes only, with or without -m", USAGE)
    alone = "a map alone (--svg) shows no"
    if options.svg and options.benches:
        raise Failure(f"{alone} measurement: leave --bench out", USAGE)
    if options.svg and (options.without or options.compare or options.all or options.pids[1:]):
        raise Failure(f"{alone} comparison and no machine", USAGE)
    if options.all and options.benches:
        raise Failure("the page of a machine (--all) shows no measurement", USAGE)
    if options.json and options.file == output.STDOUT:
        raise Failure("the page and --json cannot both go to the standard output", USAGE)


_Made = tuple[str, str, dict[str, Any]]  # the page, a sentence, the JSON


def _started(modules: list[str], *, off: bool = False) -> Gathered:
    from pyhugetext.cli.reporting import gather

    names = ", ".join(modules)
    with Progress() as progress:
        progress.begin(f"importing {names}" if names else "starting")
        return gather.started(modules, off=off)


def _single(options: argparse.Namespace, benches: list[Bench], version: str, taken: str) -> _Made:
    from pyhugetext.cli import processes
    from pyhugetext.cli.reporting import drawing, gather, model, page, words

    if options.pids:
        found = gather.running(processes.number(options.pids[0]))
    else:
        found = _started(options.modules)
    report = model.build(*found, benches, version, taken)
    content = drawing.alone(report) if options.svg else page.page(report)
    return content, words.headline(report), _document(report)


def _compared(options: argparse.Namespace, benches: list[Bench], version: str, taken: str) -> _Made:
    from pyhugetext.cli import processes
    from pyhugetext.cli.reporting import comparepage, gather, model, reportfile

    if options.compare:
        before, after = (reportfile.read(path) for path in options.compare)
        pair = comparepage.Pair(before, after, ("before", "after"))
    else:
        names = ("without pyhugetext", "with it")
        if options.pids:
            pids = [processes.number(pid) for pid in options.pids]
            found = [gather.running(pid) for pid in pids]
            names = (f"in process {pids[0]}", f"in process {pids[1]}")
        else:
            found = [_started(options.modules, off=off) for off in (True, False)]
        left, right = (model.build(*one, (), version, taken) for one in found)
        pair = comparepage.Pair(left, right, names)
    content = comparepage.page(pair, benches, version, taken)
    document = {**comparepage.as_dict(pair), "benches": [_bench(bench) for bench in benches]}
    return content, comparepage.headline(pair), document


def _machine(version: str, taken: str) -> _Made:
    from pyhugetext._stats import kernel
    from pyhugetext.cli.reporting import machine, machinepage

    found = machine.gather()
    content = machinepage.page(found, f"Linux {kernel.read().release}", version, taken)
    return content, machinepage.headline(found), machine.as_dict(found)


def _document(report: Report) -> dict[str, Any]:
    from pyhugetext.cli.reporting.model import STATES
    from pyhugetext.cli.reporting.reportfile import FORMAT

    def counted(states: tuple[str, ...]) -> dict[str, int]:
        return {state: states.count(state) for state in STATES}

    subject, stats = report.subject, report.stats
    return {
        "format": FORMAT,
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
