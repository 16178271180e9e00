"""Shows how much of the machine code of running processes is on 2 MiB pages, read from /proc:
nothing is stopped, traced or changed. Without arguments: your processes that run Python, or any
other program from huge pages."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from pyhugetext.cli import text
from pyhugetext.cli.outcome import FAILED, INTERRUPTED, OK, USAGE, Failure

if TYPE_CHECKING:
    from pyhugetext.cli.processes import Seen, Unread

SUMMARY = "show what runs from huge pages in other processes"

_SHORTEST, _LONGEST, _DEFAULT = 0.1, 3600.0, 2.0  # seconds between two looks

MANUAL = """\
which processes:
  PID ...   These, whatever they run; a note tells where that is not Python. Thread ids are refused.
  (none)    The processes of the calling user that run Python, and of any other program those with the
            preload library or with text that comes from a store; but for this command itself.
  --all     A line for each of these on the machine instead of a table of its objects, and how many
            processes could not be read. Root reads all; others their own.
  A process runs Python when an interpreter, a libpython or an extension module is mapped in it, by
  the names of the files.

columns (sizes in bytes are in --json):
  text       machine code mapped from the object's file
  coverable  of it, what can lie on 2 MiB pages
  mapped     of it, what was moved to mappings for 2 MiB pages
  huge       of those mappings, what the kernel holds in 2 MiB pages now; the read-only data beside
             the text is in it, and what was not used yet is not
  private    memory that no other process shares, because of the move
  backing    what the pages come from: file, store, shm, memfd, thp, hugetlb; none
  coverage   a bar for the coverable text: # on huge pages now, ~ moved, in use and in small pages
             all the same (small_bytes of --json; pyhugetext.remap() there, its next start, or
             pyhugetext store heal mends it), = moved and not used yet, - left on small pages; and
             the share that was moved and is not seen to be small
  A terminal of less than 90 columns gets fewer of them. A name is followed by "(replaced)" where
  its file was deleted or replaced on disk since: the process runs the old one until it is started
  again.

  The figures are those of pyhugetext.stats() in that process, to the byte. What only that process
  knows is left out: the time it took (elapsed_ns is 0) and why better backings were not taken
  (fallbacks is empty). A program that is no Python tells it with PYHUGETEXT_REPORT when it ends.
  Where the file of an object cannot be read any more (it was upgraded under a running program, or
  has no name), the table says so, and its figures are those of the mappings; root can read it still.

watching:
  --watch reads again every SECONDS (0.1 to 3600; 2 when left out) until Ctrl-C. On a terminal the
  table is drawn anew in place; elsewhere tables are separated by an empty line. With --json each
  look is one line. It ends by itself when the last PID asked for is gone. Write --watch behind the
  PIDs, or --watch=SECONDS.

keys of --json:
  time        seconds since the epoch
  processes   [{pid, uid, user, command, python, preloaded, active, reason, backing, regions,
              text_bytes, coverable_bytes, mapped_bytes, huge_bytes, small_bytes, private_bytes,
              elapsed_ns, strict, kernel, problems}]: as pyhugetext.stats().as_dict() there; python
              tells whether it runs Python, preloaded whether the preload library is in it; a region is
              {path, build_id, start, end, text_bytes, coverable_bytes, mapped_bytes, swapped_bytes,
              huge_bytes, small_bytes, private_bytes, backing, status, reason, fallbacks, elapsed_ns,
              replaced}; replaced is true where the file was deleted or replaced since; kernel is
              {release, thp_enabled, thp_defrag, shmem_enabled, huge_page_bytes, hugetlb_total,
              hugetlb_free, max_map_count}
  unreadable  [{pid, reason}]
  total       {processes, text_bytes, coverable_bytes, mapped_bytes, swapped_bytes, huge_bytes,
              small_bytes, private_bytes}: text shared by processes counts for each

examples:
  pyhugetext status                            my processes, a table each
  pyhugetext status 1234 --watch               one of them, every two seconds
  sudo pyhugetext status --all                 the machine, a line a process
  pyhugetext status --json 1234 | python -c "import json, sys; \\
      print(json.load(sys.stdin)['processes'][0]['huge_bytes'])"
  pyhugetext status --all --json --watch=60 >> coverage.jsonl

exit status:
  0 done; 1 a process asked for could not be read, and a sentence on stderr says why (the others
  were shown); 2 wrong usage; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "pyhugetext status [-h] [--json] [PID ... | --all] [--watch [SECONDS]]"
    parser.add_argument("pids", metavar="PID", nargs="*", help="a process to show")
    parser.add_argument("--all", action="store_true", help="a line for each process on the machine")
    parser.add_argument(
        "--watch", metavar="SECONDS", nargs="?", const=str(_DEFAULT), help="look again and again"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; keys below")


def run(options: argparse.Namespace) -> int:
    from pyhugetext.cli import processes
    from pyhugetext.cli.coverage import Screen

    pids = list(dict.fromkeys(processes.number(pid) for pid in options.pids))
    if pids and options.all:
        raise Failure("name processes or --all, not both", USAGE)
    screen = Screen()
    if options.watch is None:
        return _once(options, pids, screen)
    seconds = _seconds(options.watch)
    try:
        return _watch(options, pids, screen, seconds)
    except KeyboardInterrupt:
        return INTERRUPTED


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST <= seconds <= _LONGEST:
        raise Failure(
            f"--watch: {given!r} is no number of seconds from {_SHORTEST} to {_LONGEST:.0f} "
            "(process ids go before it)",
            USAGE,
        )
    return seconds


def _look(options: argparse.Namespace, pids: list[int]) -> tuple[list[Seen], list[Unread]]:
    from pyhugetext.cli import processes

    if pids:
        found = [processes.look(pid) for pid in pids]
    else:
        found = list(processes.running(only_mine=not options.all))
    seen = [one for one in found if isinstance(one, processes.Seen)]
    return seen, [one for one in found if not isinstance(one, processes.Seen)]


def _once(options: argparse.Namespace, pids: list[int], screen: Any) -> int:
    seen, unread = _look(options, pids)
    if options.json:
        print(json.dumps(_document(seen, unread), indent=2))
    elif seen or not pids:
        screen.lines(_lines(options, seen, unread, screen.width))
    sys.stdout.flush()
    return _complain(unread) if pids else OK


def _watch(options: argparse.Namespace, pids: list[int], screen: Any, seconds: float) -> int:
    """Looks until interrupted, or until the last process asked for is gone."""
    status = OK
    redraw = text.can_redraw(sys.stdout) and not options.json
    first = True
    while True:
        began = time.monotonic()
        seen, unread = _look(options, pids)
        if pids:
            # Told once each; the rest is shown on.
            if unread and redraw and not first:
                print()
            # That a process ends while it is watched is no failure.
            failed = [one for one in unread if first or not one.gone]
            _complain(unread)
            status = FAILED if failed else status
            pids = [one.pid for one in seen]
            if not pids:
                return status
        if options.json:
            print(json.dumps(_document(seen, unread)), flush=True)
        elif redraw:
            if first:
                sys.stdout.write("\x1b[2J")
            screen.redraw([*_lines(options, seen, unread, screen.width), _footer(seconds)])
        else:
            screen.lines([*([] if first else [""]), *_lines(options, seen, unread, screen.width)])
        first = False
        time.sleep(max(seconds - (time.monotonic() - began), _SHORTEST / 2))


def _footer(seconds: float) -> str:
    return f"{time.strftime('%H:%M:%S')}, every {seconds:g} s; Ctrl-C ends it"


def _complain(unread: list[Unread]) -> int:
    for one in unread:
        text.say(one.reason, "status")
    return FAILED if unread else OK


def _lines(
    options: argparse.Namespace, seen: list[Seen], unread: list[Unread], width: int | None
) -> list[str]:
    from pyhugetext.cli import coverage

    if options.all:
        lines = coverage.overview_lines(seen, width)
    else:
        lines = []
        for one in seen:
            lines += [*([""] if lines else []), *coverage.process_lines(one, width)]
    if not seen and not options.pids:
        whose = "on this machine" if options.all else "of yours"
        none = f"no process {whose} but this one runs Python, or from huge pages"
        return [none, *coverage.unread_lines(unread)]
    if options.all or len(seen) > 1:
        lines.append(coverage.total_line(seen))
    if not options.pids:
        lines += coverage.unread_lines(unread)
    return [*lines, coverage.LEGEND]


def _document(seen: list[Seen], unread: list[Unread]) -> dict[str, Any]:
    from pyhugetext.cli import coverage

    return {
        "time": round(time.time(), 3),
        "processes": [{**dict(zip(one._fields[:-1], one)), **one.stats.as_dict()} for one in seen],
        "unreadable": [{"pid": one.pid, "reason": one.reason} for one in unread],
        "total": coverage.total_of(seen),
    }
