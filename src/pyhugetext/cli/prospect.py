"""What a program would get, from its files, the stores, and what the machine can do; it is not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pyhugetext import _backing, _settings
from pyhugetext._settings import Settings
from pyhugetext.cli import objects, text
from pyhugetext.cli.objects import Object
from pyhugetext.cli.outcome import Failure
from pyhugetext.doctor import rungs, storage
from pyhugetext.doctor.rungs import Ladder
from pyhugetext.programs import looking, preload
from pyhugetext.programs.looking import Program
from pyhugetext.store import places, upkeep


class Share(NamedTuple):
    """What one object would get. Sizes in bytes."""

    object: Object
    backing: str
    note: str  # why that, or what is still to be done for it


class Prospect(NamedTuple):
    """What a command would get. `reason` says why nothing, where that is so."""

    program: Program
    shares: list[Share]
    reason: str

    @property
    def covered(self) -> int:
        return sum(share.object.coverable for share in self.shares if share.backing != "none")

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.program.file,
            "program": self.program.path,
            "python": self.program.python,
            "covered": bool(self.covered),
            "reason": self.reason or None,
            "covered_bytes": self.covered,
            "objects": [
                {
                    "path": share.object.path,
                    "text_bytes": share.object.text,
                    "coverable_bytes": share.object.coverable,
                    "bias": share.object.bias,
                    "backing": share.backing,
                    "note": share.note or None,
                }
                for share in self.shares
            ],
        }


def of(command: Sequence[str], environ: Mapping[str, str], settings: Settings) -> Prospect:
    """Looks. Failure where there is no such command."""
    try:
        library = preload.path()
    except preload.Missing as missing:
        raise Failure(str(missing)) from None
    try:
        program = looking.look(looking.find(command[0], environ), environ, library)
    except looking.NotStartable as error:
        raise Failure(str(error)) from None
    if program.why_not:
        return Prospect(program, [], program.why_not)
    found = objects.of(program, environ, settings)
    if settings.off:
        return Prospect(
            program, [Share(one, "none", "") for one in found], "PYHUGETEXT turns it off"
        )
    ladder = rungs.try_all(settings, storage.stores(settings), None)
    entries = _entries(settings)
    # The budget of a process goes to what needs it, the program first.
    left = settings.private_limit
    shares = []
    for one in found:
        share = _share(one, ladder, entries, settings, left)
        left -= one.coverable if share.backing in _backing.PRIVATE else 0
        shares.append(share)
    reason = ""
    if all(share.backing == "none" for share in shares):
        largest = max(shares, key=lambda share: share.object.coverable)
        reason = largest.note or "no object is large enough"
    return Prospect(program, shares, reason)


def _share(
    one: Object,
    ladder: Ladder,
    entries: Mapping[tuple[str, int], tuple[str, upkeep.Entry]],
    settings: Settings,
    left: int,
) -> Share:
    if one.error:
        return Share(one, "none", one.error)
    if one.excluded:
        large = one.coverable >= max(settings.min_text, 1)
        return Share(one, "none", "the settings exclude it" if large else "too small")
    works = [rung.backing for rung in ladder.rungs if rung.works]
    if ladder.wanted != "auto":
        works = [name for name in works if name == ladder.wanted]
    else:
        works = [name for name in works if name != "hugetlb"]  # only when asked for
    if one.bias is None:
        return _private(one, works, left)
    store, entry = entries.get((one.path, one.bias), ("", None))
    if entry is not None and store in works:
        if entry.present >= entry.pages:
            return Share(one, store, "its copy is there")
        return Share(one, store, f"{entry.present} of {entry.pages} pages of its copy are there")
    shared = [name for name in works if name in _backing.SHARED]
    if not shared:
        return _private(one, works, left)
    if shared[0] == "file":
        return Share(one, "file", "")
    return Share(one, shared[0], "its copy is made at first starts, or by pyhugetext warm")


def _private(one: Object, works: Sequence[str], left: int) -> Share:
    where = "each start has it at another address; " if one.bias is None else ""
    private = [name for name in works if name in _backing.PRIVATE]
    if not private:
        return Share(one, "none", f"{where}no backing works for it here")
    if left < one.coverable and left != _settings.NO_LIMIT:
        limit = f"PYHUGETEXT_PRIVATE_LIMIT leaves {text.size(max(left, 0))}"
        return Share(one, "none", f"{where}{limit}")
    return Share(one, private[0], f"{where}private memory, one copy for all that it forks")


def _entries(settings: Settings) -> dict[tuple[str, int], tuple[str, upkeep.Entry]]:
    """The usable entries of all stores, by original and load bias, with the backing; the better
    store's where two have one."""
    out: dict[tuple[str, int], tuple[str, upkeep.Entry]] = {}
    own = places.user(settings)
    for store in (places.shared_memory(settings), own, places.system(settings)):
        if store is None:
            continue
        try:
            entries, _ = upkeep.contents(store)
        except OSError:  # there is none that is any good
            continue
        kind = "shm" if store.kind == "shm" else "store"
        ready = (entry for entry in entries if entry.state == upkeep.READY)
        out.update(((entry.original, entry.bias), (kind, entry)) for entry in ready)
    return out


def lines(found: Prospect, width: int | None) -> list[str]:
    """What people read."""
    program, shares = found.program, found.shares
    name = text.printable(program.file)
    if program.path != program.file:
        name += f" (run by {text.printable(program.path)})"
    if not found.covered:
        out = [f"{name} would not run from huge pages: {text.printable(found.reason)}"]
    else:
        total = text.size(sum(share.object.text for share in shares))
        out = [f"{name} would have {text.size(found.covered)} of {total} text on huge pages"]
    if program.python:
        out.append(
            "it is a Python: the start-up hook does this where pyhugetext is installed for it"
        )
    small = [share for share in shares if share.note == "too small"]
    shown = [share for share in shares if share.note != "too small"]
    shown.sort(key=lambda share: -share.object.coverable)
    rows = [
        (
            share.object.path,
            text.size(share.object.text),
            text.size(share.object.coverable),
            share.backing,
            share.note,
        )
        for share in shown
    ]
    if small:
        size = text.size(sum(share.object.text for share in small))
        rows.append((f"({len(small)} too small)", size, "0 B", "none", ""))
    if rows:
        out += text.table(("object", "text", "coverable", "backing", "note"), rows, "prrlp", width)
    if shares:
        out.append("what it opens while it runs is not known: pyhugetext warm -- COMMAND sees that")
    return out
