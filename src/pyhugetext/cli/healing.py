"""What `pyhugetext store heal` does and shows."""

from __future__ import annotations

import os
import sys
from typing import Any

from pyhugetext import _words
from pyhugetext.cli import stores, text
from pyhugetext.cli.progress import Progress
from pyhugetext.store import places
from pyhugetext.store.places import Store


def heal(store: Store, exists: bool) -> tuple[dict[str, Any], bool]:
    """Mends all entries of a store. The document of --json, and whether some stayed small."""
    from pyhugetext.store import upkeep

    document: dict[str, Any] = {"path": store.root, "kind": store.kind, "exists": exists}
    healed = document["entries"] = []
    if not exists:
        return document, False
    with stores.told(store):
        entries, _ = upkeep.contents(store)
    # Entries of the same content share a copy.
    ready = {entry.copy: entry for entry in entries if entry.state == upkeep.READY}
    with Progress() as progress:
        progress.begin("", sum(entry.size for entry in ready.values()))
        for entry in ready.values():
            progress.label(os.path.basename(entry.copy))
            told = {"name": entry.name, "original": entry.original or None, "copy": entry.copy}
            try:
                found = upkeep.heal(store, entry)
            except places.Trouble as error:
                pages = dict.fromkeys(("pages", "cached", "huge_before", "huge_after"))
                healed.append({**told, **pages, "reason": _words.reason(error)})
            else:
                if found is not None:
                    healed.append(
                        {
                            **told,
                            "pages": found.pages,
                            "cached": found.cached,
                            "huge_before": found.before,
                            "huge_after": found.after,
                            "reason": found.reason or None,
                        }
                    )
            progress.advance(entry.size)
    return document, any(one["reason"] for one in healed)


def show(store: Store, document: dict[str, Any]) -> None:
    """The same for people."""
    root = text.printable(store.root)
    if not document["exists"]:
        print(f"{store.kind} store {root}: not there")
        return
    entries = document["entries"]
    known = [one for one in entries if one["pages"] is not None]
    before, after, cached = (
        sum(one[key] for one in known) for key in ("huge_before", "huge_after", "cached")
    )
    number = text.count(len(entries), "copy", "copies")
    print(
        f"{store.kind} store {root}: {number}, {cached} pages of 2 MiB in memory, "
        f"{before} of them huge before and {after} now"
    )
    rows = [
        (
            *("?" if one[key] is None else str(one[key])
              for key in ("pages", "cached", "huge_before", "huge_after")),
            one["original"] or one["copy"],
            one["reason"] or "",
        )
        for one in entries
    ]  # fmt: skip
    if rows:
        header = ("pages", "in memory", "huge before", "huge now", "original", "remark")
        print("\n".join(text.table(header, rows, "rrrrpp", text.width_of(sys.stdout))))
