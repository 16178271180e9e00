"""Prepares the store ahead of use, so that no program builds its entries at its first start: when
an image is built, at deployment, after an upgrade. The interpreter's own entry is always prepared;
MODULEs are imported in a process of their own, a COMMAND is run to its end, and what their Python
processes would take from the store is put there. The entries are on disk for good when it ends."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from pyhugetext.cli import stores, text
from pyhugetext.cli.outcome import FAILED, INTERRUPTED, OK, USAGE, Failure

if TYPE_CHECKING:
    from pyhugetext.cli.warming import Warming

SUMMARY = "prepare the store ahead of use"
TAKES_COMMAND = True

MANUAL = """\
what is prepared:
  MODULE         A module as in an import statement, or several. Each is imported by this
                 interpreter in a process of its own; the current directory is not searched. What
                 it prints is shown when the import fails.
  --all-installed
                 All shared objects of all distributions installed for this interpreter, found by
                 walking site-packages and not by importing.
  -- COMMAND     The command is run with its own input and output, as any other, and to its end.
                 Every Python process below it that has pyhugetext and keeps the PYHUGETEXT_
                 variables counts. It runs on small pages meanwhile. Ctrl-C ends the command; what
                 it used until then is prepared.

Entries are built for the load address that the dynamic linker uses on x86 with kernels 6.1 and later,
a multiple of 2 MiB. Where it uses another one each time, as on overlayfs, the object is refused with
that reason and the exit status is 1: what is built then would not be used. In a Dockerfile use
pyhugetext image, which has such objects aligned. PYHUGETEXT_BUILD=always builds them all the same.

With --used only the text that is used meanwhile is prepared, and the rest of an object of which much
is: what starts would store in time. A program is asked at its imports what it uses, a module once
it is imported. Without it all of the text is prepared.

Objects with less coverable text than PYHUGETEXT_MIN_TEXT (default 256K), and those that
PYHUGETEXT_EXCLUDE names, are left out, as a program leaves them out.

where:
  The user's store on disk ($PYHUGETEXT_STORE, $XDG_CACHE_HOME/pyhugetext or
  ~/.cache/pyhugetext). Where its file system never gives huge pages to files, the store in shared
  memory (/dev/shm/pyhugetext-UID) is filled instead; that one is gone after a restart of the
  machine. With --system /var/cache/pyhugetext, which every user's processes read.

status of an object:
  built     a copy was written, or tied to one of the same content
  promoted  it was there, built by a program at its first start, and is now on disk for good
  present   nothing was to do
  unneeded  this kernel takes the file itself, without a copy; an entry that it had is removed
            (PYHUGETEXT_BACKING=store makes one all the same)
  refused   with the reason; no room and no rights make the exit status 1, an object that cannot be
            represented does not

keys of --json:
  stores        [{path, kind, verdict}]: written (this file system gives new files huge pages),
                evicted (only when it reads them back), collapsed (once they are on disk), never
  objects       [{path, bias, status, reason, bytes, written, huge, seconds, store}]: the load bias
                modulo 2 MiB; bytes of the copy, bytes written now, bytes in 2 MiB pages now (null
                where that was not looked at)
  total         {built, promoted, present, unneeded, refused, bytes, written, seconds}
  problems      sentences, as on stderr

examples:
  pyhugetext warm                              the interpreter alone
  pyhugetext warm numpy pandas torch           what these import
  sudo pyhugetext warm --system --all-installed
                                               for every user of this machine
  pyhugetext warm -- python -m pytest -x tests/smoke
                                               what the program really loads
  pyhugetext warm --json numpy | python -m json.tool

exit status:
  0 done; 1 something was not prepared, and a sentence on stderr says what (the rest was); 2 wrong
  usage; 130 interrupted (what was done is kept)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "pyhugetext warm [-h] [--json] [--system | --used] [MODULE ... | FILE ... | --all-installed]\n"
        "                       [-- COMMAND ...]"
    )
    parser.add_argument(
        "names", metavar="MODULE or FILE", nargs="*", help="import it and see; look what it needs"
    )
    parser.add_argument(
        "--all-installed", action="store_true", help="all that is installed for this interpreter"
    )
    parser.add_argument(
        "--system", action="store_true", help="fill the system's store /var/cache/pyhugetext (root)"
    )
    parser.add_argument("--used", action="store_true", help="only the text that is used meanwhile")
    parser.add_argument("--json", action="store_true", help="print JSON; keys below")


def run(options: argparse.Namespace) -> int:
    from pyhugetext.cli import importing, warming

    files = [name for name in options.names if "/" in name]
    modules = [name for name in options.names if "/" not in name]
    try:
        importing.check_names(modules)
    except Failure as failure:
        raise Failure(f"{failure} (the name of a file has a / in it)", USAGE) from None
    if options.names and options.all_installed:
        raise Failure("name modules and files, or --all-installed, not both", USAGE)
    if options.used and (options.system or options.all_installed or files):
        raise Failure(
            "--used is for what is run: modules and a command, in the user's store", USAGE
        )
    if options.system:
        stores.need_root()
    call = warming.Warming(
        "warm",
        modules,
        files,
        options.all_installed,
        options.system,
        options.used,
        options.command or (),
        options.json,
    )
    warming.fill(call)
    _report(call, options.json)
    if call.interrupted:
        raise Failure("interrupted; what was done is kept", INTERRUPTED)
    return FAILED if call.problems else OK


def _report(call: Warming, as_json: bool) -> None:
    from pyhugetext.store import warm

    statuses = (warm.BUILT, warm.PROMOTED, warm.PRESENT, warm.UNNEEDED, warm.REFUSED)
    counts = {status: sum(made.status == status for made in call.made) for status in statuses}
    total: dict[str, Any] = {
        **counts,
        "bytes": sum(made.size for made in call.made),
        "written": sum(made.written for made in call.made),
        "seconds": round(time.perf_counter() - call.began, 3),
    }
    if as_json:
        document = {
            "stores": [
                {"path": store.root, "kind": store.kind, "verdict": verdict}
                for store, verdict in call.stores
            ],
            "objects": [
                {
                    "path": made.path,
                    "bias": made.bias,
                    "status": made.status,
                    "reason": made.reason,
                    "bytes": made.size,
                    "written": made.written,
                    "huge": made.huge,
                    "seconds": round(made.seconds, 3),
                    "store": made.store,
                }
                for made in call.made
            ],
            "total": total,
            "problems": call.problems,
        }
        print(json.dumps(document, indent=2))
        return
    if call.made:
        rows = [
            (one.status, text.size(one.size), f"{one.seconds:.2f} s", one.path, one.reason or "")
            for one in call.made
        ]
        text.print_table(("status", "size", "time", "object", "reason"), rows, "lrrpp")
    parts = [f"{number} {status}" for status, number in counts.items() if number]
    written = text.size(total["written"])
    print(f"total: {', '.join(parts) or 'nothing'}; {written} written in {total['seconds']:.1f} s")
