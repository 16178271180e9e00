"""What the dynamic linker does with libraries that ask for an alignment."""

from __future__ import annotations

import os

_GLIBC = (2, 35)  # the first that looks at p_align


def why_not_honoured() -> str:
    """Why the C library of this process does not look at p_align; empty where it does."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        name = ""
    kind, _, version = name.partition(" ")
    numbers = version.split(".")[:2]
    if kind != "glibc" or not all(number.isdecimal() for number in numbers):
        return "this C library is not glibc, and puts libraries where the kernel likes"
    if tuple(map(int, numbers)) < _GLIBC:
        return f"{name} does not align libraries; 2.35 is the first that does"
    return ""
