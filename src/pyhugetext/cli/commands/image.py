"""Prepares the environment of a container image, so that every container runs the machine code of its
Python from pages of 2 MiB that all containers share: as the last line of what installs it. Large
objects are made to be loaded at multiples of 2 MiB, which overlayfs does not see to by itself, their
entries are put into the store, and a Python is started to see that they are used."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyhugetext.cli import stores, text
from pyhugetext.cli.outcome import FAILED, INTERRUPTED, OK, USAGE, Failure
from pyhugetext.cli.progress import Progress

if TYPE_CHECKING:
    from pyhugetext.cli.environment import Found
    from pyhugetext.cli.preparing import Object
    from pyhugetext.store.places import Store

SUMMARY = "prepare the environment of a container image"

MANUAL = """\
what is prepared:
  The interpreter, its library, all shared objects of the installed distributions, and the libraries
  of the system that these load, but for the C library itself; those with as much coverable text as
  PYHUGETEXT_MIN_TEXT says (default 256K) and not named by PYHUGETEXT_EXCLUDE. Their modules are
  imported, in processes of their own.

  With --program instead of that the programs named, which are no Python: databases, compilers. One
  that is position-independent lies at another address at each start, where no copy in a store fits;
  prepared it comes to a multiple of 2 MiB, which leaves address space randomization 9 bits fewer.
  Its libraries are the business of pyhugetext warm.

what is done to a file:
  Eight bytes are changed: the alignment that its first segment asks for, 2 MiB. The changed file is
  written beside the old one with owner, mode, attributes and times, loaded by this C library (a
  program is not run), and renamed; the RECORD of its distribution follows. Killed at any point, each
  file is the old or the new one, and a second run goes on. glibc 2.35 and later look at the
  alignment; with another C library nothing is changed.
  A file stays as it is, and the table says why, when it is signed, has several names (hard links),
  belongs to another user, lies where nothing can be written, or does not load by itself.

where the entries go:
  root's to /var/cache/pyhugetext, which every user's processes read; another user's to that user's
  store ($PYHUGETEXT_STORE, $XDG_CACHE_HOME/pyhugetext or ~/.cache/pyhugetext), which only that user's
  read. In the containers of an image they are found by content.

columns:
  alignment  aligned (now), already, fixed (its address is its own: nothing to do), left (as it is)
  entry      built, promoted, present, refused, as of pyhugetext warm; found or missing with --check
  runs from  what a process that imported it ran it from: store, file and shm are shared by all; "-"
             where no import loaded it

keys of --json:
  mode      prepare, check or undo
  store     {path, kind, verdict}: what its file system does with new files on this kernel: written
            (huge pages), evicted (only when it reads them back), never, unknown
  objects   [{path, alignment, bias, reason, record, entry, entry_reason, bytes, written, backing,
            huge_bytes, private_bytes, used, use_reason}]; alignment may be undone or own with --undo;
            record says why a RECORD did not follow; used is null where no import loaded it
  imports   [{module, error}]: those that failed
  kernels   [{kernel, gets, here}]: what a container gets on which
  total     {aligned, already, fixed, left, undone, entries, bytes, written, removed, private_bytes}
  problems  sentences, as on stderr

examples:
  RUN pip install -r requirements.txt pyhugetext && pyhugetext image
                                               in a Dockerfile, before USER
  docker run IMAGE pyhugetext image --check    whether it works on this machine, and why not
  pyhugetext image --undo                      as it was before
  RUN pyhugetext image --program /usr/lib/postgresql/15/bin/postgres
                                               for pyhugetext run -- postgres, see docs/any-program.md
  pyhugetext image --json | python -m json.tool

exit status:
  0 done, or all that is prepared is used; 1 something was not prepared for want of room or rights,
  nothing could be, or with --check something prepared is not used, and a sentence on stderr says
  what; 2 wrong usage; 130 interrupted (what was done is kept)
"""

# What containers get, by the kernel they run on (docs/containers.md).
_KERNELS = (
    ((7, 2), "7.2 and later", "layers on ext4, xfs: the files themselves, shared by all containers"),
    ((6, 18), "6.18 to 7.1", "layers on ext4, xfs: the store's copies, shared by all containers"),
    ((6, 1), "6.1 to 6.17", "no huge pages of files: private copies, PYHUGETEXT_PRIVATE_LIMIT a process"),
    ((0, 0), "before 6.1", "private copies in anonymous memory, as far as the kernel gives them"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "pyhugetext image [-h] [--check | --undo] [--program FILE]... [--json]"
    parser.add_argument(
        "--check", action="store_true", help="look whether it works, change nothing"
    )
    parser.add_argument("--undo", action="store_true", help="put everything back")
    parser.add_argument(
        "--program", action="append", default=[], metavar="FILE",
        help="only this program, which is no Python; may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON; keys below")


class _Run:
    """One call: what it finds, does, and could not do."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.mode = "check" if options.check else "undo" if options.undo else "prepare"
        self.progress = Progress()
        self.objects: list[Object] = []
        self.failures: dict[str, str] = {}
        self.store: Store | None = None
        self.verdict = "unknown"
        self.removed = 0
        self.problems: list[str] = []
        self.interrupted = False

    def fail(self, sentence: str) -> None:
        """Something asked for was not done; the rest goes on."""
        self.progress.stop()
        self.problems.append(sentence)
        text.say(sentence, "image")


def run(options: argparse.Namespace) -> int:
    from pyhugetext.children.runner import Unanswered
    from pyhugetext.process import linker

    if options.check and options.undo:
        raise Failure("--check or --undo, not both", USAGE)
    why = linker.why_not_honoured()
    if why and not options.undo:
        raise Failure(f"{why}; nothing was changed")
    call = _Run(options)
    call.store = _store(call)
    try:
        {"prepare": _prepare, "check": _check, "undo": _undo}[call.mode](call)
    except KeyboardInterrupt:
        call.interrupted = True
    except Unanswered as error:
        call.fail(f"the process that imports what is installed {error}{error.line}")
    finally:
        call.progress.stop()
    _report(call)
    if call.interrupted:
        raise Failure("interrupted; what was done is kept", INTERRUPTED)
    return FAILED if call.problems else OK


def _store(call: _Run) -> Store | None:
    """The store of the image, made where something is to be put there; to look at it may be any.
    Failure where there can be none."""
    from pyhugetext.store import places

    found = stores.settings()
    store = places.system(found)
    if os.geteuid() != 0 and not (call.mode == "check" and stores.exists(store)):
        own = places.user(found)
        if own is None and call.mode == "check":
            return None
        if own is None:
            raise Failure("neither PYHUGETEXT_STORE nor XDG_CACHE_HOME nor HOME names a store")
        store = own._replace(images=True)
    if call.mode == "prepare":
        stores.make(store)
        with stores.told(store):
            call.verdict = places.judge(store)
    elif stores.exists(store):
        call.verdict = places.remembered_verdict(store)
    return store


def _find(call: _Run) -> Found:
    """The objects, with those that only importing shows."""
    from pyhugetext.cli import environment
    from pyhugetext.cli.preparing import Object

    if call.options.program:
        return _named(call)
    settings = stores.settings()
    call.progress.begin("looking through the installed distributions")
    found = environment.find(settings)
    imported = environment.look(found, settings, call.progress.label)
    call.failures = imported.failures
    call.objects = [Object(path, program) for path, program in sorted(found.objects.items())]
    call.progress.stop()
    return found


def _named(call: _Run) -> Found:
    """The programs that were named."""
    from pyhugetext.cli import environment
    from pyhugetext.cli.preparing import Object
    from pyhugetext.image.record import Records
    from pyhugetext.programs.looking import NotStartable
    from pyhugetext.programs.preload import Missing

    try:
        programs = environment.named(call.options.program, stores.settings())
    except (NotStartable, Missing) as error:
        raise Failure(str(error), USAGE) from None
    for path, why in programs.items():
        if why:
            call.fail(f"{path} cannot be prepared: {why}")
        else:
            call.objects.append(Object(path, named=True))
    return environment.Found(dict.fromkeys(programs, True), [], Records([]))


def _directories(call: _Run, found: Found) -> set[str]:
    """Where something may be written."""
    return {os.path.dirname(one.path) for one in call.objects} | found.records.directories()


def _over(call: _Run, objects: list[Object]) -> Iterator[Object]:
    """The objects one after the other, with progress by the size of their files."""
    from pyhugetext.cli import preparing

    sizes = [preparing.file_size(one) for one in objects]
    call.progress.begin("", sum(sizes))
    for one, size in zip(objects, sizes):
        call.progress.label(os.path.basename(one.path))
        yield one
        call.progress.advance(size)
    call.progress.stop()


def _prepare(call: _Run) -> None:
    from pyhugetext.cli import environment, preparing
    from pyhugetext.store import warm

    found = _find(call)
    preparing.sweep(_directories(call, found))
    for one in _over(call, call.objects):
        preparing.align(one, found.records)
    assert call.store is not None
    warmer = warm.Warmer(call.store)
    for one in _over(call, [one for one in call.objects if one.prepared]):
        made = warmer.prepare(one.path, one.bias)
        one.entry, one.entry_reason, one.entry_failed = made.status, made.reason or "", made.failed
        one.size, one.written = made.size, made.written
    if call.options.program:
        return _tell_programs(call)
    _tell_failures(call)
    call.progress.begin("importing it all once more")
    imported = environment.prepared(found)
    for one in call.objects:
        preparing.judge(one, imported.stats)
    call.failures = imported.failures
    call.progress.stop()
    if imported.stats is None:
        call.fail("whether it is used is not known: no process came to the end of the imports")
    elif call.verdict == "never":
        text.say(
            f"on this kernel the file system of {call.store.root} gives files no huge pages: what was "
            "prepared serves where one does",
            "image",
        )
    elif any(one.prepared and one.used is False for one in call.objects):
        _tell_unused(call)


def _tell_failures(call: _Run) -> None:
    """One sentence for each reason for which something was not done that should have been."""
    reasons: dict[str, list[str]] = {}
    for one in call.objects:
        for failed, reason in ((one.failed, one.reason), (one.entry_failed, one.entry_reason)):
            if failed:
                reasons.setdefault(reason, []).append(one.path)
    for reason, paths in reasons.items():
        more = f" and {len(paths) - 1} more" if paths[1:] else ""
        call.fail(f"{paths[0]}{more} could not be prepared: {reason}")
    for one in call.objects:
        if one.remark_failed:
            call.fail(f"{one.path}: {one.remark}")
    if not any(one.prepared for one in call.objects) and not reasons:
        why = f": {call.objects[0].reason}" if call.objects else ", for there are no large objects"
        call.fail(f"nothing was prepared{why}")


def _tell_programs(call: _Run) -> None:
    for one in call.objects:
        if not one.prepared:
            call.fail(f"{one.path} is not prepared: {one.reason or one.entry_reason}")
        elif one.remark_failed:
            call.fail(f"{one.path}: {one.remark}")


def _tell_unused(call: _Run) -> None:
    unused = [one for one in call.objects if one.prepared and one.used is False]
    more = f" and {len(unused) - 1} more" if unused[1:] else ""
    reason = unused[0].use_reason or "no reason is known"
    call.fail(f"{unused[0].path}{more} is prepared but not used: {reason}")


def _check(call: _Run) -> None:
    from pyhugetext.cli import environment, preparing

    found = _find(call)
    if call.options.program:
        for one in call.objects:
            preparing.look(one)
        return _tell_programs(call)
    imported = environment.prepared(found)
    call.failures = imported.failures
    for one in call.objects:
        preparing.look(one)
        preparing.judge(one, imported.stats)
        preparing.judge_entry(one)
    stats = imported.stats or {}
    # What its linker aligned, or has fixed addresses, was not prepared for that alone.
    store = call.store is not None and stores.exists(call.store)
    if not any(one.ours or one.used or (store and one.prepared) for one in call.objects):
        call.fail("nothing here is prepared; pyhugetext image does that when the image is built")
    elif any(one.prepared and one.used is False for one in call.objects):
        _tell_unused(call)
    elif not stats.get("active"):
        call.fail(f"no process runs from huge pages: {stats.get('reason') or 'no reason is known'}")


def _undo(call: _Run) -> None:
    from pyhugetext.cli import preparing
    from pyhugetext.store import upkeep

    found = _find(call)
    preparing.sweep(_directories(call, found))
    for one in _over(call, call.objects):
        preparing.put_back(one, found.records)
    for one in call.objects:
        if one.alignment == preparing.LEFT:
            call.fail(f"{one.path} could not be put back: {one.reason}")
        elif one.remark_failed:
            call.fail(f"{one.path}: {one.remark}")
    assert call.store is not None
    if stores.exists(call.store):
        paths = {one.path for one in call.objects}
        with stores.told(call.store):
            call.removed = upkeep.forget(call.store, paths)


def _report(call: _Run) -> None:
    from pyhugetext.cli import imagetext

    document = imagetext.document(
        call.mode, call.store, call.verdict, call.objects, call.failures, _KERNELS, call.removed
    )
    document["problems"] = call.problems
    if call.options.json:
        print(json.dumps(document, indent=2))
    else:
        imagetext.show(document)
