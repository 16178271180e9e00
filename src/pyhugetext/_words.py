"""Sizes, errors and tables in words."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

_NARROWEST = 20  # a shortened column keeps at least this
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


def no_native_part(error: BaseException | None) -> str:
    """Why this Python has none of the modules that do the work, as `error` or before it."""
    implementation = sys.implementation.name
    if implementation != "cpython":
        name = {"pypy": "PyPy", "graalpy": "GraalPy"}.get(implementation, implementation)
        return f"no native part: it is made for CPython, and this is {name}"
    machine = os.uname().machine if hasattr(os, "uname") else "another machine"
    bits = 64 if sys.maxsize > 1 << 32 else 32
    expected = "no native part: Linux on x86_64 or aarch64 has one"
    if not sys.platform.startswith("linux") or bits < 64 or machine not in ("x86_64", "aarch64"):
        return f"{expected}, and this is {sys.platform} on {machine} ({bits} bits)"
    version = "{}.{}".format(*sys.version_info)
    if sys.version_info < (3, 9):  # noqa: UP036
        return f"no native part: it is made for CPython 3.9 and later, and this is {version}"
    files = os.listdir(os.path.dirname(__file__))
    # pip takes the wheel for every platform where no other fits, and compiles nothing then.
    if not any(name.startswith("_boot.") and name.endswith(".so") for name in files):
        again = "`pip install --force-reinstall --no-binary pyhugetext pyhugetext`"
        where = f"for CPython {version} here, on {machine}"
        return f"no native part: no wheel with one was found {where}; {again} compiles it"
    return f"{expected} ({error})"


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


def printable(text: str) -> str:
    """A path or a message without what would break a table or drive a terminal."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as JSON can hold it
        raw = text.encode("utf-8", "backslashreplace")
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(text: str, width: int) -> str:
    """The text in at most `width` columns: the middle gives way, names stay readable."""
    if len(text) <= width:
        return text
    head = max((width - 3) // 3, 0)
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str, width: int | None = None
) -> list[str]:
    """The lines of a table. `align` has a letter a column: `l`, `r`, or `p` for a text to the left
    that is shortened where the table is wider than `width` columns."""
    lines = [tuple(header), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    if width is not None:
        too_wide = sum(widths) + 2 * (len(widths) - 1) - width
        for i in sorted((i for i, a in enumerate(align) if a == "p"), key=lambda i: -widths[i]):
            if too_wide > 0:
                narrower = max(widths[i] - too_wide, min(widths[i], _NARROWEST))
                too_wide -= widths[i] - narrower
                widths[i] = narrower
    out = []
    for line in lines:
        cells = [
            cell.rjust(w) if a == "r" else shorten(cell, w).ljust(w)
            for cell, w, a in zip(line, widths, align)
        ]
        out.append("  ".join(cells).rstrip())
    return out
