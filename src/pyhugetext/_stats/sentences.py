"""Outcomes of the core in words: what failed, on what, with which errno, and what to do."""

from __future__ import annotations

from pyhugetext import _native, _words

Outcome = tuple[int, int, int]  # status, call, errno; see status.h

SENTENCES = dict(zip(_native.STATUSES, _native.SENTENCES))


def status_name(outcome: Outcome) -> str:
    """The short name of an outcome, as in the keys of SENTENCES."""
    return _native.STATUSES[outcome[0]]


def is_ok(outcome: Outcome) -> bool:
    """Whether nothing was wrong."""
    return status_name(outcome) == "ok"


def sentence(outcome: Outcome) -> str:
    """An outcome as a sentence, with the call and the errno where a call failed."""
    status, call, number = outcome
    # A region that is covered in part carries the reason of what is not.
    name = _native.STATUSES[status]
    text = SENTENCES[name] or ("kernel said no" if call else "")
    if name == "memory_limit" and not call:
        text = f"memory limit: {_room()}"
    return f"{text}: {failed_call(call, number)}" if call else text


def failed_call(call: int, number: int) -> str:
    """What failed, and with which errno where it is known."""
    text = f"{_native.CALLS[call]} failed"
    return f"{text} with {_words.symbol(number)}" if number else text


def _room() -> str:
    """What is left too little of for a private copy, as it is now, and what to do."""
    room = _native.memory_room()
    said = []
    if room["limit"] is not None:
        said.append(
            f"control group {room['group']} may have {_words.size(room['limit'])} and has "
            f"{_words.size(room['used'])}"
        )
    for left, name in ((room["addresses"], "RLIMIT_AS"), (room["data"], "RLIMIT_DATA")):
        if left is not None:
            said.append(f"{name} leaves {_words.size(left)}")
    return (
        f"{', '.join(said) or 'there was one'}: too little for a copy of its own; a warm store "
        "(pyhugetext warm) needs none"
    )
