"""Measures whether a program runs faster from 2 MiB pages, and says so when it does not.

STMT runs in a process that switches between small and huge text every few ten milliseconds; a
COMMAND is run again and again, in turns with PYHUGETEXT=0 and without. What counts is CPU time. A
control, small text against small text, shows what the method and the machine add of their own."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyhugetext
from pyhugetext.cli import text
from pyhugetext.cli.benching import (
    FEWEST_PROCESSES,
    MOST_PROCESSES,
    PRECISION,
    SECONDS,
    Call,
    signals,
)
from pyhugetext.cli.outcome import INTERRUPTED, OK, USAGE, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyhugetext.measure.measurement import Measurement

SUMMARY = "measure whether a program runs faster from 2 MiB pages"
TAKES_COMMAND = True

MANUAL = """\
how STMT is measured:
  As `python -m timeit` does it: SETUP is run once, STMT in a loop, with the garbage collector off
  (-s 'import gc; gc.enable()' turns it on); several -s and STMT are lines; the current directory
  is searched for modules. It happens in a new process of this interpreter, whose output goes
  nowhere. The process fills a slot (--slot) with laps, each as many runs of STMT as take half a
  millisecond, and measures four slots, a quad, in the order small, huge, huge, small. The CPU time
  of the fastest lap of a slot counts, that of all threads of the process: what neighbours on the
  same core take away comes and goes within milliseconds. Where STMT runs in several threads the
  slot is one lap; STMT that takes longer than the slot is run once a slot.

  The time of switching does not count, and after each switch STMT is run for a quarter of a slot,
  once at least, before the clock starts: the pages that were just mapped have been touched again
  then. `page faults a slot` shows whether that was enough.

  Each quad gives one ratio huge / small. After each comes a quad of the control. The time is
  divided among processes (--processes), one after the other: each lies elsewhere in memory and
  has another seed for its hashes, which makes differences of a percent. The result is the
  median of all ratios with its 95 % bootstrap interval, for which processes are drawn first and
  then quads of them.

how a COMMAND is measured:
  Whole processes in the order off, on, on, off (PYHUGETEXT=0 is off), after three runs that fill
  the store and the caches and must succeed; user and system time, with that of children that it
  waited for. Each neighbouring pair gives one ratio. It reads nothing, and prints into --log or
  nowhere. Three quads and three of the control are measured at least, so it is run 27 times. What
  pyhugetext costs at each start of Python is part of it. A COMMAND that is no Python runs with the
  preload library on both sides, as under pyhugetext run; `text` is then that of the process with the
  most of it.

whether a gain can be expected is said first, and it is measured all the same (not with --expect):
  Where the processor counts page walks, their share of the cycles on small text says it: a gain can
  be expected from 2 % on, hardly below 0.5 %. Of a COMMAND the last run before measuring counts.
      Intel          ITLB_MISSES.WALK_ACTIVE; before Skylake ITLB_MISSES.WALK_DURATION
      AMD Zen        bp_l1_tlb_miss_l2_tlb_miss (Zen 4 and later: .all), at 30 cycles a walk
      Arm            ITLB_WALK, at 30 cycles a walk
  Elsewhere STMT is sampled: how much text one lap touches, as the marks in its page table say
  (/proc/self/clear_refs and `Referenced` of smaps, in the process that runs STMT), against what the
  instruction TLB reaches, by a table of processors. Touching less than half of that, a program
  hardly gains. Such a look takes half a second; a COMMAND is not sampled.

when it ends:
  The interval is looked at after a third of the processes (of a COMMAND: of the time), after two
  thirds and at the end, and not before five processes or twelve pairs. It ends when the interval
  reaches no more than --precision to either side of its middle, or when 1 lies that far outside
  of it; or when --seconds are over. Because it is looked at up to three times, the interval is
  made wider, so that it holds the truth in 95 % of all cases whichever look was the last.

Both: entries missing in the store are built beforehand. PYHUGETEXT_PRIVATE_LIMIT is lifted for a
STMT, and for a COMMAND where --backing names memfd, thp or hugetlb. The other settings are those
of the environment.

the verdict:
  faster by X % (FROM to TO %)   X % of the CPU time is saved; 1 lies outside the interval
  slower by X % (FROM to TO %)
  no difference shown            1 lies inside the interval
  no verdict                     the 99 % interval of the control does not contain 1: the machine
                                 is too noisy now; or there are fewer than 6 ratios

  The text itself lies in the same pages of physical memory until the machine is restarted or its
  memory runs short; a difference of less than a percent may come from that.

TLB misses are counted in user space by perf_event_open(2), where the machine lets it; with one
line for the reason where not.

keys of --json:
  format        "pyhugetext-bench-1"
  kind          "statement" or "command"
  effect        {median, low, high, pairs, confidence}: the ratio huge / small of CPU time
  control       the same of small / small; null where nothing was measured of it
  whole         {effect, control} of the CPU time of whole slots, not only the fastest laps
  wall          {effect, control} of the wall-clock time
  verdict       {word, sentence}: faster, slower, no difference, too noisy, too few
  samples       {loops, laps, quads, faults_per_slot}: runs a lap, laps a slot; quads is [{kind,
                lap, cpu, wall, faults, process}] in the order of measuring, with four numbers each: CPU time
                of the fastest lap, CPU and wall-clock time of the slot (nanoseconds), page faults
  text          {backing, text_bytes, coverable_bytes, mapped_bytes, huge_bytes, private_bytes}
                while huge; {command, backing, text_bytes, coverable_bytes, mapped_bytes} of a
                COMMAND that is no Python, empty of another
  counters      by name {small, huge}, how many a run, or {unavailable: why}
  machine       {processor, processors, machine, hypervisor, kernel, thp_enabled, python,
                executable, pyhugetext}
  settings      what was asked for, and {run_seconds, threaded, looks, ended, elapsed_seconds,
                interrupted}; ended is narrow, decided, time or interrupted
  expectation   {word, sentence, method, walk_share, touched_bytes, seconds, reach_bytes}: word is
                likely, possible, unlikely or unknown; the only key with --expect
  line          the last line

examples:
  pyhugetext bench -s 'import json; d = {str(i): i for i in range(100)}' 'json.loads(json.dumps(d))'
  pyhugetext bench --seconds 60 -s 'from mine import run' 'run()'
  pyhugetext bench --backing thp -s 'import torch; a = torch.rand(9, 9)' 'a.sum() + a.mean()'
  pyhugetext bench -- python -m pytest -q tests
  pyhugetext bench -- clang++ -O2 -c large.cpp -o /dev/null
  pyhugetext bench --pyperf /tmp/mine -- python program.py &&
      python -m pyperf compare_to /tmp/mine-small.json /tmp/mine-huge.json
  pyhugetext bench --expect -s 'import numpy' 'numpy.ones((50, 50)) @ numpy.ones((50, 50))'
  pyhugetext bench --html bench.html --name 'my service' -s 'from mine import run' 'run()'
  pyhugetext bench --json 'sorted(range(99))' > bench.json && pyhugetext report --bench bench.json page.html

exit status:
  0 measured, whatever the verdict; 1 STMT or COMMAND failed, or no text came to lie on huge pages;
  2 wrong usage, STMT is no Python; 130 interrupted (what was measured until then is printed)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "pyhugetext bench [-h] [--json] [--expect] [--seconds SECONDS] [--precision PERCENT]\n"
        "       [--backing BACKING] [--name NAME] [--html FILE.html] [--pyperf PREFIX]\n"
        "       [-s SETUP]... [-n LOOPS] [--slot SECONDS] [--processes N] STMT...\n"
        "       pyhugetext bench [the same] [--log FILE] -- COMMAND..."
    )
    parser.add_argument("stmt", metavar="STMT", nargs="*", help="what to measure; a line each")
    parser.add_argument(
        "-s", "--setup", metavar="SETUP", action="append", help="runs once before; a line each"
    )
    parser.add_argument(
        "-n", metavar="LOOPS", help="runs of STMT a lap (default: what takes half a millisecond)"
    )
    parser.add_argument(
        "--expect", action="store_true", help="say whether a gain can be expected, and no more"
    )
    parser.add_argument(
        "--seconds", metavar="SECONDS", help=f"measure for so long at most (default {SECONDS:g})"
    )
    parser.add_argument(
        "--precision",
        metavar="PERCENT",
        help=f"end sooner when it is known so well (default {PRECISION:g}; 0: take all the time)",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        help="divide the time among so many processes (default: one for each four seconds, "
        f"{FEWEST_PROCESSES} to {MOST_PROCESSES})",
    )
    parser.add_argument("--slot", metavar="SECONDS", help="length of a slot (default 0.02)")
    parser.add_argument(
        "--backing", metavar="BACKING", help="auto, file, store, shm, memfd, thp or hugetlb"
    )
    parser.add_argument("--name", metavar="NAME", help="what to call it in the last line")
    parser.add_argument("--html", metavar="FILE.html", help="draw it; - is the standard output")
    parser.add_argument(
        "--pyperf", metavar="PREFIX", help="write PREFIX-small.json and PREFIX-huge.json for pyperf"
    )
    parser.add_argument("--log", metavar="FILE", help="what COMMAND prints, appended")
    parser.add_argument("--json", action="store_true", help="print JSON; keys below")


def run(options: argparse.Namespace) -> int:
    from pyhugetext.measure.measurement import MeasuringFailed

    call = Call(options)
    with signals():
        try:
            found, interrupted = _command(call) if call.command else _statement(call)
        except MeasuringFailed as failure:
            raise Failure(str(failure)) from None
        finally:
            call.progress.stop()
        if found is None and call.options.expect and not interrupted:
            return OK
        if found is None:
            text.say("interrupted before anything was measured", "bench")
            return INTERRUPTED
        _report(call, found)
        if interrupted:
            text.say("interrupted; this is what was measured until then", "bench")
            return INTERRUPTED
    return OK


def _statement(call: Call) -> tuple[Measurement | None, bool]:
    """What was measured, and whether Ctrl-C ended it."""
    from pyhugetext import _native  # without it there is nothing to compare
    from pyhugetext.measure import machine
    from pyhugetext.measure.session import Job, Session
    from pyhugetext.measure.statement import BadStatement, Statement

    assert _native is not None
    setup, stmt = "\n".join(call.options.setup or ()), "\n".join(call.options.stmt)
    try:
        Statement(setup, stmt)
    except BadStatement as error:
        if error.shown and sys.stderr is not None:
            sys.stderr.write(error.shown + "\n")
        raise Failure(str(error), USAGE) from None

    job = Job(
        setup,
        stmt,
        call.seconds,
        call.slot,
        call.backing,
        call.loops,
        processes=call.processes,
        precision=call.precision,
        expect=True,
        only_expect=call.options.expect,
    )

    def on_event(event: str, fields: dict[str, Any]) -> None:
        number = f"process {session.process + 1} of {job.processes}"
        if event == "phase" and session.process:
            call.progress.label(f"{number}: {fields['label']}")
        elif event == "phase":
            call.begin(fields["label"])
        elif event == "ranged":
            if not session.process:
                call.begin("", whole=True)
            call.progress.label(f"{number}: measuring")
        elif event == "quad":
            call.advance(fields["share"])
        elif event == "expectation":
            _expected(call, fields)

    session = Session(job, on_event)
    call.begin("starting the interpreter")
    began = time.monotonic()
    interrupted = call.interrupted(session.run)
    if not any(quad.kind == "effect" for quad in session.quads):
        return None, interrupted
    settings = {
        **vars(job),
        **session.ranged,
        **_ending(call, session.ended, len(session.looks), began, interrupted),
    }
    return session.measurement(machine=machine.describe(), settings=settings), interrupted


def _command(call: Call) -> tuple[Measurement | None, bool]:
    """What was measured, and whether Ctrl-C ended it."""
    from pyhugetext.measure import machine, processes

    assert call.command is not None

    def on_phase(label: str) -> None:
        if label.startswith("run "):
            if not comparison.quads and call.shown == 0:
                call.begin(label, whole=True)
            call.progress.label(label)
        else:
            call.begin(label)

    from pyhugetext.cli import warming

    library = warming.library_for(call.command, os.environ, lambda why: text.say(why, "bench"))
    comparison = processes.Comparison(
        call.command,
        call.seconds,
        processes.environments(call.backing, library),
        on_quad=lambda quad, share: call.advance(share),
        on_phase=on_phase,
        precision=call.precision,
        on_expectation=lambda found: _expected(call, found._asdict()),
    )
    began = time.monotonic()
    log = call.options.log
    with open(os.devnull if log is None else log, "ab") as comparison.log:
        if library:
            _warm(call, call.command)
        interrupted = call.interrupted(comparison.run)
    if not comparison.quads:
        return None, interrupted
    settings = {
        "command": call.command,
        "seconds": call.seconds,
        "backing": call.backing,
        "precision": call.precision,
        **_ending(call, comparison.ended, comparison.looks, began, interrupted),
    }
    return comparison.measurement(machine=machine.describe(), settings=settings), interrupted


def _expected(call: Call, found: Mapping[str, Any]) -> bool:
    """Says what can be expected before anything is measured; whether to go on."""
    only = bool(call.options.expect)
    call.progress.stop()
    if only and call.options.json:
        print(json.dumps({"expectation": dict(found)}, indent=2))
    elif not call.options.json and call.options.html != "-":
        width = text.width_of(sys.stdout)
        sentence = str(found["sentence"])
        print("\n".join(textwrap.wrap(sentence, width) if width else [sentence]), flush=True)
    return not only


def _ending(call: Call, ended: str, looks: int, began: float, interrupted: bool) -> dict[str, Any]:
    """The settings that tell when and why measuring ended."""
    return {
        "name": call.options.name,
        "looks": looks,
        "ended": "interrupted" if interrupted else ended,
        "elapsed_seconds": round(time.monotonic() - began, 3),
        "interrupted": interrupted,
    }


def _warm(call: Call, command: list[str]) -> None:
    """Prepares the store for a program that is no Python, as pyhugetext warm does: at its start little
    of it is used yet, and each start would build some more."""
    from pyhugetext import _backing, _settings
    from pyhugetext.cli import warming

    if (call.backing or _settings.current().backing) in (*_backing.PRIVATE, "file"):
        return
    filling = warming.Warming("bench", command=command, silent=True)
    # What is in its way is told by the measurement: by what came to lie on huge pages.
    with suppress(Failure):
        warming.fill(filling)
    if filling.interrupted:
        raise KeyboardInterrupt


def _report(call: Call, found: Measurement) -> None:
    from pyhugetext.cli.benchtext import lines

    try:
        if call.options.html is not None:
            _write_page(call, found)
        if call.options.pyperf is not None:
            _write_pyperf(call, found)
    finally:
        # What took so long is told where it cannot be written, too.
        if call.options.json:
            print(json.dumps(found.as_dict(), indent=2))
        elif call.options.html != "-":
            print("\n".join(lines(found, text.width_of(sys.stdout))))


def _write_page(call: Call, found: Measurement) -> None:
    from pyhugetext.cli.reporting import benchpage, output

    taken = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    output.write(call.options.html, benchpage.page(found, pyhugetext.__version__, taken))


def _write_pyperf(call: Call, found: Measurement) -> None:
    from pyhugetext.measure.pyperf_file import suite

    name = " ".join(call.command) if call.command else "; ".join(call.options.stmt)
    for side in ("small", "huge"):
        path = f"{call.options.pyperf}-{side}.json"
        document = suite(found, side, text.printable(name))
        with open(path, "w") as file:
            json.dump(document, file)
