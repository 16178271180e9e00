"""Looks after the store: the copies of shared objects and interpreters, laid out for 2 MiB pages,
from which processes map their machine code. Removing entries never disturbs a running process, and
costs no more than building them again."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyhugetext.cli import healing, stores, text
from pyhugetext.cli.outcome import FAILED, OK, Failure
from pyhugetext.cli.progress import Progress
from pyhugetext.store import places
from pyhugetext.store.places import Store

if TYPE_CHECKING:
    from pyhugetext.store.upkeep import Entry, Removed

SUMMARY = "list, verify, heal, prune, clear the store, or tell where it is"

MANUAL = """\
actions:
  list    the entries with size, age, last use, and what is known of them, and the notes on objects
          that have no entry, with the reason
  verify  compares every entry with its original, byte for byte, and removes the damaged ones; exit
          status 1 when there was one
  heal    gets what is in memory of the copies back onto 2 MiB pages: writes back what is not on disk
          yet, drops what is in small pages, makes room, reads it again, and looks; exit status 1 when
          some stayed small (a running process has it mapped: pyhugetext.remap() in that process, or
          its next start, helps)
  prune   removes what no process can use any more: entries whose original was changed or is gone,
          entries that were never known to be on disk and of another boot of the machine, copies
          without a record, notes out of date, what killed builders left, and of shared memory what
          the store on disk has, too, and no process maps; then, above the size limit, what was
          least recently used
  clear   removes everything
  path    the directories of the stores in use

stores:
  Without --system the user's store on disk and the one in shared memory (with
  PYHUGETEXT_BACKING=store or shm only that one), with it the system's.
  Whoever may not write to the system's store can still list and verify it.

states of an entry:
  ready    a process will map it (the content is compared by verify only)
  stale    its original was changed or is gone
  expired  it was never known to be on disk, and the machine was started since
  damaged  it is not what was written, or somebody else could have written it

  Pages are the 2 MiB of text that the copy has so far, of those that the original has: programs add
  them as they start, those that they use first; pyhugetext warm adds all.
  Kept is "durable" for what survives a restart of the machine, "this boot" for what a program has
  built at its first start (pyhugetext warm makes it durable). "+image" is added where the entry is
  found in a container image as well; "image" alone is one that only container images find any more.

keys of --json:
  list, verify  {stores: [{path, kind, exists, limit, bytes, entries, notes}]}; kind is system, user
                or shm, bytes are allocated ones; an entry is {name, original, copy, bias, bytes,
                disk_bytes, pages, present_pages, age_seconds, unused_seconds, durable, image,
                state, reason}, with verify also removed (true or false); a note is {name, original,
                reason, kernel, age_seconds, state}
  heal          {stores: [{path, kind, exists, entries: [{name, original, copy, pages, cached,
                huge_before, huge_after, reason}]}]}; of the 2 MiB pages of a copy those in memory,
                and of these the huge ones
  prune, clear  {stores: [{path, kind, removed: [{path, reason, bytes}], freed}]}
  path          {stores: [{path, kind, exists}]}

examples:
  pyhugetext store list
  pyhugetext store verify --system             as a nightly job: exit status 1 tells of damage
  pyhugetext store heal                        after other programs have used the memory
  pyhugetext store prune && pyhugetext store list --json
  rm -rf VENV && pyhugetext store prune        after a virtual environment is gone
  sudo pyhugetext store clear --system

exit status:
  0 done; 1 something failed, verify found damage, or heal left something small; 2 wrong usage;
  130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "pyhugetext store [-h] [--json] [--system] list | verify | heal | prune | clear | path"
    )
    parser.add_argument("action", choices=sorted(_ACTIONS), metavar="ACTION", help="see below")
    parser.add_argument("--system", action="store_true", help="the system's store")
    parser.add_argument("--json", action="store_true", help="print JSON; keys below")


def run(options: argparse.Namespace) -> int:
    documents: list[dict[str, Any]] = []
    status = _ACTIONS[options.action](options, documents)
    if options.json:
        print(json.dumps({"stores": documents}, indent=2))
    return status


def _each(options: argparse.Namespace, write: bool = False) -> list[tuple[Store, bool]]:
    """The stores addressed and whether they are there. Failure where one is not to be used."""
    if write and options.system:
        stores.need_root()
    return [(store, stores.exists(store)) for store in stores.addressed(options.system)]


def _list(options: argparse.Namespace, documents: list[dict[str, Any]]) -> int:
    from pyhugetext.store import upkeep

    for store, exists in _each(options):
        entries: list[Entry] = []
        notes: list[Entry] = []
        if exists:
            with stores.told(store):
                entries, notes = upkeep.contents(store)
        documents.append(_document(store, exists, entries, notes))
        if not options.json:
            _print_store(store, exists, entries, notes)
    return OK


def _verify(options: argparse.Namespace, documents: list[dict[str, Any]]) -> int:
    from pyhugetext.store import upkeep

    damaged = 0
    for store, exists in _each(options):
        checked: list[tuple[Entry, bool]] = []
        notes: list[Entry] = []
        if exists:
            with stores.told(store):
                entries, notes = upkeep.contents(store)
            with Progress() as progress:
                progress.begin("", sum(entry.size for entry in entries))
                for entry in entries:
                    progress.label(os.path.basename(entry.copy))
                    with stores.told(store):
                        found, removed = upkeep.verify(store, entry)
                    if found is not None:
                        checked.append((found, removed))
                    progress.advance(entry.size)
        document = _document(store, exists, [entry for entry, _ in checked], notes)
        for described, (_, gone) in zip(document["entries"], checked):
            described["removed"] = gone
        documents.append(document)
        if not options.json:
            _print_store(store, exists, [entry for entry, _ in checked], [])
        for entry, gone in checked:
            if entry.state == upkeep.DAMAGED:
                damaged += 1
                what = "damaged and was removed" if gone else "damaged"
                text.say(f"{entry.original or entry.name} is {what}: {entry.reason}", "store")
    return FAILED if damaged else OK


def _heal(options: argparse.Namespace, documents: list[dict[str, Any]]) -> int:
    status = OK
    for store, exists in _each(options):
        document, small = healing.heal(store, exists)
        documents.append(document)
        if not options.json:
            healing.show(store, document)
        status = FAILED if small else status
    return status


def _prune(options: argparse.Namespace, documents: list[dict[str, Any]]) -> int:
    from pyhugetext.store import upkeep

    for store, exists in _each(options, write=True):
        removed: list[Removed] = []
        try:
            if exists:
                with stores.told(store):
                    removed.extend(upkeep.prune(store))
        finally:
            documents.append(_tell_removed(options, store, removed))
    return OK


def _clear(options: argparse.Namespace, documents: list[dict[str, Any]]) -> int:
    from pyhugetext.store import upkeep

    for store, exists in _each(options, write=True):
        removed = []
        # One of which parts are missing is there, too.
        if exists or os.path.isdir(store.base):
            with stores.told(store):
                freed = upkeep.clear(store)
            removed.append(upkeep.Removed(store.root, "the whole store", freed))
        documents.append(_tell_removed(options, store, removed))
    return OK


def _path(options: argparse.Namespace, documents: list[dict[str, Any]]) -> int:
    found = stores.settings()
    rows = []
    for store in (places.system(found), *stores.addressed(False)):
        if options.system and store.kind != "system":
            continue
        try:
            exists = stores.exists(store)
            state = "ready" if exists else "not there"
        except Failure as failure:
            exists, state = False, str(failure)
        documents.append({"path": store.root, "kind": store.kind, "exists": exists})
        rows.append((store.kind, store.root, state))
    if not options.json:
        print("\n".join(text.table(("store", "path", "state"), rows, "lll")))
    return OK


# Each adds a document for each store, and prints what people read.
_ACTIONS: dict[str, Callable[[argparse.Namespace, list[dict[str, Any]]], int]] = {
    "list": _list,
    "verify": _verify,
    "heal": _heal,
    "prune": _prune,
    "clear": _clear,
    "path": _path,
}


def _document(
    store: Store, exists: bool, entries: list[Entry], notes: list[Entry]
) -> dict[str, Any]:
    now = time.time()
    return {
        "path": store.root,
        "kind": store.kind,
        "exists": exists,
        "limit": store.limit,
        "bytes": _allocated(entries),
        "entries": [
            {
                "name": entry.name,
                "original": entry.original or None,
                "copy": entry.copy or None,
                "bias": entry.bias,
                "bytes": entry.size,
                "disk_bytes": entry.disk,
                "pages": entry.pages,
                "present_pages": entry.present,
                "age_seconds": max(int(now - entry.built), 0),
                "unused_seconds": max(int(now - entry.used), 0),
                "durable": entry.durable,
                "image": entry.image,
                "state": entry.state,
                "reason": entry.reason or None,
            }
            for entry in entries
        ],
        "notes": [
            {
                "name": note.name,
                "original": note.original or None,
                "reason": note.reason,
                "kernel": note.kernel,
                "age_seconds": max(int(now - note.used), 0),
                "state": note.state,
            }
            for note in notes
        ],
    }


def _allocated(entries: list[Entry]) -> int:
    """Bytes of all copies, each once: entries of the same content share one."""
    return sum({entry.copy: entry.disk for entry in entries}.values())


def _pages(entry: Entry) -> str:
    """How much of the text the copy has."""
    if entry.present < entry.pages:
        return f"{entry.present}/{entry.pages}"
    return "all" if entry.pages else ""


def _kept(entry: Entry, image: set[str]) -> str:
    """How long an entry is kept, and whether images find its copy; `image` are the copies they do.
    An original that was changed here, if only its mode, may be in an image as it was."""
    if entry.image:
        return "image"
    kept = "durable" if entry.durable else "this boot"
    return f"{kept}+image" if entry.state == "ready" and entry.copy in image else kept


def _print_store(store: Store, exists: bool, entries: list[Entry], notes: list[Entry]) -> None:
    if not exists:
        print(f"{store.kind} store {text.printable(store.root)}: not there")
        return
    used, limit = text.size(_allocated(entries)), text.size(store.limit)
    # An entry that is found in images as well has two records.
    own = {entry.copy for entry in entries if not entry.image and entry.state == "ready"}
    image = {entry.copy for entry in entries if entry.image and entry.state == "ready"}
    shown = [
        entry
        for entry in entries
        if entry.state != "ready" or not entry.image or entry.copy not in own
    ]
    number = text.count(len(shown), "entry", "entries")
    print(f"{store.kind} store {text.printable(store.root)}: {number}, {used} of {limit}")
    now = time.time()
    rows = [
        (
            text.size(entry.disk),
            _pages(entry),
            text.age(now - entry.built),
            text.age(now - entry.used),
            _kept(entry, image),
            entry.state,
            entry.original or entry.copy or entry.name,
            entry.reason,
        )
        for entry in shown
    ]
    if rows:
        header = ("size", "pages", "built", "used", "kept", "state", "original", "remark")
        text.print_table(header, rows, "rrrrllpp")
    if notes:
        print("no entry:")
        lines = [
            (text.age(now - note.used), note.original or note.name, note.reason) for note in notes
        ]
        text.print_table(("noted", "original", "reason"), lines, "rpp")


def _tell_removed(
    options: argparse.Namespace, store: Store, removed: list[Removed]
) -> dict[str, Any]:
    freed = sum(one.freed for one in removed)
    if not options.json:
        number = text.count(len(removed), "thing")
        root = text.printable(store.root)
        print(f"{store.kind} store {root}: {number} removed, {text.size(freed)} freed")
        rows = [(text.size(one.freed), one.path, one.why) for one in removed]
        if rows:
            text.print_table(("freed", "object", "reason"), rows, "rpp")
    return {
        "path": store.root,
        "kind": store.kind,
        "removed": [{"path": one.path, "reason": one.why, "bytes": one.freed} for one in removed],
        "freed": freed,
    }
