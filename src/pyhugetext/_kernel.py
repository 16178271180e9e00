"""The settings of the kernel that decide about huge pages."""

from __future__ import annotations

import os
from dataclasses import dataclass

_THP = "/sys/kernel/mm/transparent_hugepage/"
_POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/"


@dataclass(frozen=True)
class Kernel:
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


def _text(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def _choice(path: str) -> str | None:
    text = _text(path)
    if text is None:
        return None
    for word in text.split():
        if word.startswith("["):
            return word.strip("[]")
    return text


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def read() -> Kernel:
    """Reads the settings now."""
    return Kernel(
        release=os.uname().release,
        thp_enabled=_choice(_THP + "enabled"),
        thp_defrag=_choice(_THP + "defrag"),
        shmem_enabled=_choice(_THP + "shmem_enabled"),
        huge_page_bytes=_number(_THP + "hpage_pmd_size"),
        hugetlb_total=_number(_POOL + "nr_hugepages"),
        hugetlb_free=_number(_POOL + "free_hugepages"),
        max_map_count=_number("/proc/sys/vm/max_map_count"),
    )
