"""Prepares the store ahead of use, so that no program builds its entries at its first start: when
an image is built, at deployment, after an upgrade. The interpreter's own entry is always prepared;
MODULEs are imported in a process of their own, a COMMAND is run to its end, and what their Python
processes would take from the store is put there. The entries are on disk for good when it ends."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

from pyhugetext.cli import stores, text
from pyhugetext.cli.outcome import FAILED, INTERRUPTED, OK, USAGE, Failure
from pyhugetext.cli.progress import Progress

if TYPE_CHECKING:
    from pyhugetext.cli.recording import Wanted
    from pyhugetext.store.places import Store
    from pyhugetext.store.warm import Made

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
  refused   with the reason; no room and no rights make the exit status 1, an object that cannot be
            represented does not

keys of --json:
  stores        [{path, kind, verdict}]: written (this file system gives new files huge pages),
                evicted (only when it reads them back), collapsed (once they are on disk), never
  objects       [{path, bias, status, reason, bytes, written, huge, seconds, store}]: the load bias
                modulo 2 MiB; bytes of the copy, bytes written now, bytes in 2 MiB pages now (null
                where that was not looked at)
  total         {built, promoted, present, refused, bytes, written, seconds}
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
        "pyhugetext warm [-h] [--json] [--system] [MODULE ... | --all-installed] [-- COMMAND ...]"
    )
    parser.add_argument("modules", metavar="MODULE", nargs="*", help="import it and see")
    parser.add_argument(
        "--all-installed", action="store_true", help="all that is installed for this interpreter"
    )
    parser.add_argument(
        "--system", action="store_true", help="fill the system's store /var/cache/pyhugetext (root)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; keys below")


class _Run:
    """One call: what it finds, does, and could not do."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.progress = Progress()
        self.wanted: dict[Wanted, None] = {}
        self.elsewhere: list[Wanted] = []  # loaded at another address each time
        self.present: dict[Wanted, None] = {}  # in the system's store already
        self.made: list[Made] = []
        self.stores: list[tuple[Store, str]] = []
        self.problems: list[str] = []
        self.interrupted = False
        self.began = time.perf_counter()

    def fail(self, sentence: str) -> None:
        """Something asked for cannot be done; the rest goes on."""
        self.progress.stop()
        self.problems.append(sentence)
        text.say(sentence, "warm")


def run(options: argparse.Namespace) -> int:
    from pyhugetext.cli import importing

    importing.check_names(options.modules)
    if options.modules and options.all_installed:
        raise Failure("name modules or --all-installed, not both", USAGE)
    if options.system:
        stores.need_root()
    call = _Run(options)
    try:
        store = _choose(call)
        _find(call)
        _prepare(call, store)
    except KeyboardInterrupt:
        call.interrupted = True
    finally:
        call.progress.stop()
    _report(call)
    if call.interrupted:
        raise Failure("interrupted; what was done is kept", INTERRUPTED)
    return FAILED if call.problems else OK


def _choose(call: _Run) -> Store:
    """The store to fill. Failure where there is none."""
    from pyhugetext.store import places

    found = stores.settings()
    only_disk = call.options.system or found.backing == "store"
    why = ""  # it is not the store on disk
    disk = places.system(found) if call.options.system else places.user(found)
    if found.backing == "shm" and not call.options.system:
        disk = None
    elif disk is None:
        why = "neither PYHUGETEXT_STORE nor XDG_CACHE_HOME nor HOME names a store"
    if disk is not None:
        stores.make(disk)
        with stores.told(disk):
            verdict = places.judge(disk)
        call.stores.append((disk, verdict))
        if verdict != places.NEVER:
            return disk
        why = f"store {disk.root}: this file system never gives files huge pages"
    if why and only_disk:
        raise Failure(f"{why}; nothing was built" if disk else why)
    if why:
        text.say(f"{why}; the store in shared memory is filled instead", "warm")
    return _choose_memory(call, places.shared_memory(found))


def _choose_memory(call: _Run, shm: Store) -> Store:
    """The store in shared memory. Failure where the kernel does not collapse what is there."""
    from pyhugetext.store import places

    stores.make(shm)
    with stores.told(shm):
        verdict = places.judge(shm)
    if verdict == places.NEVER:
        raise Failure(
            f"store {shm.root}: the kernel does not collapse shared memory (MADV_COLLAPSE, Linux 6.1), "
            "so a copy there would be of no use; nothing was built"
        )
    call.stores.append((shm, verdict))
    return shm


def _find(call: _Run) -> None:
    """What is wanted: from the interpreter, the modules, what is installed, the command."""
    from pyhugetext.children.endings import ending
    from pyhugetext.cli import recording

    with recording.recorder() as recorder:
        # A module's process holds the interpreter too.
        for module in call.options.modules or [""]:
            call.progress.begin(f"importing {module}" if module else "starting the interpreter")
            try:
                found = recording.import_module(recorder, module)
                call.present.update(dict.fromkeys(found))
            except Failure as failure:
                call.fail(str(failure))
        call.progress.stop()
        command = call.options.command
        if command:
            before = len(recorder.objects())
            try:
                status, call.interrupted = recording.run_command(
                    recorder, command, call.options.json
                )
                if status and not call.interrupted:
                    call.fail(f"the command {ending(status)}")
            except Failure as failure:
                call.fail(str(failure))
            else:
                if not status and len(recorder.objects()) == before:
                    text.say("the command used nothing that is not in the list already", "warm")
        call.wanted.update(dict.fromkeys(recorder.objects()))
    if call.options.all_installed:
        _find_installed(call)


def _find_installed(call: _Run) -> None:
    from fnmatch import fnmatchcase

    from pyhugetext.cli import installed
    from pyhugetext.cli.recording import Wanted

    found = stores.settings()
    call.progress.begin("looking through the installed distributions")
    for item in installed.shared_objects(installed.roots(), found.min_text):
        excluded = any(fnmatchcase(item.path, pattern) for pattern in found.exclude)
        included = not found.include or any(fnmatchcase(item.path, p) for p in found.include)
        if excluded or not included:
            continue
        if item.bias is None:
            call.elsewhere.append(Wanted(item.path, 0))
        else:
            call.wanted[Wanted(item.path, item.bias)] = None
    call.progress.stop()


def _prepare(call: _Run, store: Store) -> None:
    from pyhugetext.store import warm

    objects = [wanted for wanted in call.wanted if _comes_again(call, wanted)]
    for wanted in call.present:
        if wanted in call.wanted:
            continue
        if store.kind == "system":
            objects.append(wanted)
        else:
            call.made.append(warm.Made(*wanted, stores.settings().system_store, warm.PRESENT))
    for wanted in call.elsewhere:
        reason = "the dynamic linker puts it at another address each time on this file system"
        call.made.append(warm.Made(*wanted, store.root, warm.REFUSED, reason))
    sizes = [_file_size(wanted.path) for wanted in objects]
    warmer = warm.Warmer(store)
    call.progress.begin("", sum(sizes))
    for wanted, size in zip(objects, sizes):
        call.progress.label(os.path.basename(wanted.path))
        call.made.append(warmer.prepare(wanted.path, wanted.bias))
        call.progress.advance(size)
    call.progress.stop()
    _tell_elsewhere(call)
    failed = [made for made in call.made if made.failed]
    if failed:
        rest = f" ({text.count(len(failed), 'object')} of {len(call.made)})" if failed[1:] else ""
        call.fail(f"store {store.root}: {failed[0].path} was not stored{rest}: {failed[0].reason}")


def _comes_again(call: _Run, wanted: Wanted) -> bool:
    """Whether an object is worth an entry; else it is put among those that are not."""
    from pyhugetext.cli import installed

    if stores.settings().building == "always" or installed.comes_again(*wanted):
        return True
    call.elsewhere.append(wanted)
    return False


def _tell_elsewhere(call: _Run) -> None:
    from pyhugetext.process import linker

    paths = list(dict.fromkeys(wanted.path for wanted in call.elsewhere))
    if not paths:
        return
    rest = f" and {len(paths) - 1} more" if paths[1:] else ""
    help_ = linker.why_not_honoured()
    help_ = (
        f"nothing helps here, for {help_}" if help_ else "pyhugetext image has such files aligned"
    )
    call.fail(
        f"{paths[0]}{rest} was not stored: each process has it at another address, and what was built "
        f"for one would not be used; {help_}"
    )


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _report(call: _Run) -> None:
    from pyhugetext.store import warm

    statuses = (warm.BUILT, warm.PROMOTED, warm.PRESENT, warm.REFUSED)
    counts = {status: sum(made.status == status for made in call.made) for status in statuses}
    total: dict[str, Any] = {
        **counts,
        "bytes": sum(made.size for made in call.made),
        "written": sum(made.written for made in call.made),
        "seconds": round(time.perf_counter() - call.began, 3),
    }
    if call.options.json:
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
