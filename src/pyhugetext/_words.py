"""Sizes and errors in words."""

from __future__ import annotations

import errno
import os

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size(number: int) -> str:
    """Bytes in the unit that leaves one to four digits before the point: `335.2 MiB`."""
    if abs(number) < 1024:
        return f"{number} B"
    value = float(number)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def symbol(number: int) -> str:
    """An errno as manual pages list it: `ENOENT`; the number itself where it has no name."""
    return errno.errorcode.get(number, str(number))


def reason(error: BaseException) -> str:
    """What failed, without the name of the file: `No such file or directory`."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__


def sentence(error: BaseException, coded: bool = False) -> str:
    """The same with the file in front where one is known: `/x: No such file or directory`; `coded`
    adds the errno's symbol."""
    words = reason(error)
    if not isinstance(error, OSError):
        return words
    code = symbol(error.errno) if coded and error.errno else ""
    if code and code not in words:  # a store's sentence names it already
        words += f" ({code})"
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    # Where there are no words, Python's own text has the name.
    return f"{name}: {words}" if name and error.strerror else words
