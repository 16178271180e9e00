"""Where what is temporary is written."""

from __future__ import annotations

import tempfile

from pyhugetext import _words


class NoDirectory(Exception):
    """A sentence that says why there is none."""


def place() -> str:
    """A directory for it: in shared memory where nothing else that is temporary can be written, as in
    a container whose root is read only."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "/dev/shm"


def directory() -> tempfile.TemporaryDirectory[str]:
    """A new one, removed at the end of its `with`. NoDirectory where there can be none."""
    try:
        return tempfile.TemporaryDirectory(prefix="pyhugetext-", dir=place())
    except OSError as error:
        why = _words.sentence(error)
        raise NoDirectory(f"there is no temporary directory: {why}; TMPDIR can name one") from None
