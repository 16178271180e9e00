"""Outcomes of the core in words: what failed, on what, with which errno, and what to do."""

from __future__ import annotations

import errno

from pyhugetext import _native

Outcome = tuple[int, int, int]  # status, call, errno; see core/status.h

SENTENCES = dict(zip(_native.STATUSES, _native.SENTENCES))


def status_name(outcome: Outcome) -> str:
    """The short name of an outcome, as in the keys of SENTENCES."""
    return _native.STATUSES[outcome[0]]


def sentence(outcome: Outcome) -> str:
    """An outcome as a sentence, with the call and the errno where a call failed."""
    status, call, number = outcome
    # A region that is covered in part carries the reason of what is not.
    name = _native.STATUSES[status]
    text = SENTENCES[name] or ("kernel said no" if call else "")
    return f"{text}: {failed_call(call, number)}" if call else text


def failed_call(call: int, number: int) -> str:
    """What failed, and with which errno where it is known."""
    text = f"{_native.CALLS[call]} failed"
    return f"{text} with {errno.errorcode.get(number, number)}" if number else text
