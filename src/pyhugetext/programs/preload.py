"""The preload library: where it is, and the environment that brings it into a program."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping

from pyhugetext.process.inspect import PRELOAD_LIBRARY

_SEPARATORS = re.compile("[: ]")  # of LD_PRELOAD; see ld.so(8)


class Missing(Exception):
    """There is no preload library that can be used; the text says why."""


def path() -> str:
    """The library's file. Missing."""
    # Beside the native part, which is elsewhere than the sources in an editable installation.
    found = importlib.util.find_spec("pyhugetext._boot")
    beside = found.origin if found is not None else None
    if beside is None:
        raise Missing("this installation of pyhugetext has no native part, so no preload library")
    library = os.path.join(os.path.dirname(os.path.abspath(beside)), PRELOAD_LIBRARY)
    if not os.path.isfile(library):
        raise Missing(f"this installation of pyhugetext has no {PRELOAD_LIBRARY}")
    if _SEPARATORS.search(library):
        why = "LD_PRELOAD separates names by spaces and colons"
        raise Missing(f"{library}: no program can be told to load it, for {why}")
    return library


def joined(before: str, library: str) -> str:
    """The value of LD_PRELOAD with the library before what is there, and there once."""
    others = [
        name for name in _SEPARATORS.split(before) if os.path.basename(name) != PRELOAD_LIBRARY
    ]
    return ":".join([library, *filter(None, others)])


def environment(environ: Mapping[str, str], library: str) -> dict[str, str]:
    """An environment with the library in it."""
    return {**environ, "LD_PRELOAD": joined(environ.get("LD_PRELOAD", ""), library)}
