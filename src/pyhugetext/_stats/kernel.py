"""The settings of the kernel that decide about huge pages, and reading its small files."""

from __future__ import annotations

import os
from typing import NamedTuple

_THP = "/sys/kernel/mm/transparent_hugepage/"
_POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/"


class Kernel(NamedTuple):
    """What matters of the running kernel. Texts are the chosen word, None where it has no such
    setting; see Documentation/admin-guide/mm/transhuge.rst and hugetlbpage.rst."""

    release: str
    thp_enabled: str | None  # always, madvise, never
    thp_defrag: str | None
    shmem_enabled: str | None
    huge_page_bytes: int | None
    hugetlb_total: int | None  # 2 MiB pages in the reserved pool
    hugetlb_free: int | None
    max_map_count: int | None


def text_of(path: str) -> str | None:
    """A small file of the kernel's without its last line end; None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def number_of(path: str) -> int | None:
    """The decimal number in a small file; None where there is none."""
    text = text_of(path) or ""
    digits = text[1:] if text.startswith("-") else text
    return int(text) if digits.isascii() and digits.isdigit() else None


def fields_of(path: str) -> dict[str, str]:
    """The lines `Name: value` of a file like /proc/self/status, the first of each name; empty where
    it cannot be read."""
    out: dict[str, str] = {}
    for line in (text_of(path) or "").splitlines():
        name, separator, value = line.partition(":")
        if separator:
            out.setdefault(name.strip(), value.strip())
    return out


def _choice(path: str) -> str | None:
    text = text_of(path)
    for word in (text or "").split():
        if word.startswith("["):
            return word.strip("[]")
    return text


def read() -> Kernel:
    """Reads the settings now."""
    return Kernel(
        release=os.uname().release if hasattr(os, "uname") else "",  # Windows has none
        thp_enabled=_choice(_THP + "enabled"),
        thp_defrag=_choice(_THP + "defrag"),
        shmem_enabled=_choice(_THP + "shmem_enabled"),
        huge_page_bytes=number_of(_THP + "hpage_pmd_size"),
        hugetlb_total=number_of(_POOL + "nr_hugepages"),
        hugetlb_free=number_of(_POOL + "free_hugepages"),
        max_map_count=number_of("/proc/sys/vm/max_map_count"),
    )
