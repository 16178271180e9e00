"""Outcomes of the core in words: what failed, on what, with which errno, and what to do."""

from __future__ import annotations

import errno

from pyhugetext import _native
from pyhugetext._sizes import size

Outcome = tuple[int, int, int]  # status, call, errno; see core/status.h

SENTENCES = {
    "pending": "not looked at yet: loaded since the last import; pyhugetext.remap() covers it",
    "huge": "",
    "partial": "",
    "restored": "put back by restore()",
    "too_small": "too small: no 2 MiB page of its read-only part holds text",
    "below_minimum": "too small: less coverable text than PYHUGETEXT_MIN_TEXT",
    "excluded": "excluded by a pattern",
    "not_included": "matches none of the include patterns",
    "budget": "budget: PYHUGETEXT_PRIVATE_LIMIT leaves no room for its private copy",
    "memory_limit": "memory limit",  # and which
    "own_code": "own code: holds pyhugetext or the dynamic linker",
    "modified": "modified in memory: a breakpoint, probe or hook is in it",
    "refused": "kernel said no",
    "unsupported": "the layout of this file does not fit the backing",
    "unreadable": "not verifiable: /proc does not tell what has to be known",
    "map_count": "the process is near vm.max_map_count",
    "no_huge_page": "the kernel gave no 2 MiB page",
    "file_gone": "the original file was deleted or replaced",
    "no_store": "there is no store",
    "untrusted": "not trusted: somebody else could have written it",
    "no_entry": "the store has no entry for this file",
    "stale": "the entry was never known to be on disk, and the machine was started since",
    "damaged": "the entry is not what was written",
    "unbuildable": "an entry could not be made; pyhugetext store list tells why",
    "overlay": "on overlayfs it would be built at every start of a container; warm it in the image "
    "(pyhugetext warm) or set PYHUGETEXT_BUILD=always",
    "cramped": "not built under a limit (RLIMIT_AS or RLIMIT_DATA) that leaves less than 256 MiB; "
    "warm it (pyhugetext warm) or set PYHUGETEXT_BUILD=always",
    "no_memory": "no memory for own tables",
}


def status_name(outcome: Outcome) -> str:
    """The short name of an outcome, as in the keys of SENTENCES."""
    return _native.STATUSES[outcome[0]]


def sentence(outcome: Outcome) -> str:
    """An outcome as a sentence, with the call and the errno where a call failed."""
    status, call, number = outcome
    # A region that is covered in part carries the reason of what is not.
    name = _native.STATUSES[status]
    text = SENTENCES[name] or ("kernel said no" if call else "")
    if name == "memory_limit" and not call:
        text += f": {_room()}"
    return f"{text}: {failed_call(call, number)}" if call else text


def failed_call(call: int, number: int) -> str:
    """What failed, and with which errno where it is known."""
    text = f"{_native.CALLS[call]} failed"
    return f"{text} with {errno.errorcode.get(number, number)}" if number else text


def _room() -> str:
    """What is left too little of for a private copy, as it is now, and what to do."""
    room = _native.memory_room()
    said = []
    if room["limit"] is not None:
        said.append(
            f"control group {room['group']} may have {size(room['limit'])} and has "
            f"{size(room['used'])}"
        )
    for left, name in ((room["addresses"], "RLIMIT_AS"), (room["data"], "RLIMIT_DATA")):
        if left is not None:
            said.append(f"{name} leaves {size(left)}")
    return (
        f"{', '.join(said) or 'there was one'}: too little for a copy of its own; a warm store "
        "(pyhugetext warm) needs none"
    )
