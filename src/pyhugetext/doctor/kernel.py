"""The kernel and its settings for huge pages; see Documentation/admin-guide/mm/transhuge.rst."""

from __future__ import annotations

import os
import platform

from pyhugetext._stats.kernel import Kernel, number_of
from pyhugetext._units import HUGE, PAGE
from pyhugetext.doctor.check import INFO, LIMIT, OK, PROBLEM, UNKNOWN, Check

_KHUGEPAGED = "/sys/kernel/mm/transparent_hugepage/khugepaged/"


def checks(kernel: Kernel) -> list[Check]:
    """All of it, from what the kernel tells now."""
    return [_release(kernel), _thp(kernel), _khugepaged(), _pool(kernel), _maps(kernel)]


def _release(kernel: Kernel) -> Check:
    page = os.sysconf("SC_PAGESIZE")
    machine = platform.machine()
    facts = {
        "release": kernel.release,
        "machine": machine,
        "page_bytes": page,
        "huge_page_bytes": kernel.huge_page_bytes,
    }
    text = f"Linux {kernel.release}, {machine}, pages of {page // 1024} KiB"
    if kernel.huge_page_bytes:
        text += f" and {kernel.huge_page_bytes >> 20} MiB"
    wrong = page != PAGE or kernel.huge_page_bytes not in (None, HUGE)
    if wrong:
        text += ": pages of 4 KiB and 2 MiB are needed"
    return Check("kernel", "release", PROBLEM if wrong else OK, text, facts)


def _thp(kernel: Kernel) -> Check:
    facts = {
        "enabled": kernel.thp_enabled,
        "defrag": kernel.thp_defrag,
        "shmem_enabled": kernel.shmem_enabled,
    }
    if kernel.thp_enabled is None:
        return Check("kernel", "thp", UNKNOWN, "unknown: /sys does not tell", facts)
    text = (
        f"{kernel.thp_enabled} (defrag {kernel.thp_defrag or 'unknown'}, "
        f"shared memory {kernel.shmem_enabled or 'unknown'})"
    )
    state = OK
    if kernel.thp_enabled == "never":
        state = LIMIT
        text += ": only files of a store, and what is collapsed on request, may get them"
    return Check("kernel", "thp", state, text, facts)


def _khugepaged() -> Check:
    facts = {
        name: number_of(_KHUGEPAGED + name)
        for name in ("defrag", "pages_to_scan", "scan_sleep_millisecs")
    }
    if facts["scan_sleep_millisecs"] is None:
        return Check("kernel", "khugepaged", UNKNOWN, "unknown: /sys does not tell", facts)
    text = (
        f"looks at {facts['pages_to_scan']} pages every {facts['scan_sleep_millisecs']} ms; "
        "nothing here waits for it"
    )
    return Check("kernel", "khugepaged", INFO, text, facts)


def _pool(kernel: Kernel) -> Check:
    facts = {"total": kernel.hugetlb_total, "free": kernel.hugetlb_free}
    if kernel.hugetlb_total is None:
        return Check("kernel", "hugetlb_pool", UNKNOWN, "unknown: /sys does not tell", facts)
    text = (
        f"{kernel.hugetlb_free} of {kernel.hugetlb_total} reserved 2 MiB pages free"
        if kernel.hugetlb_total
        else "no 2 MiB page reserved"
    )
    return Check("kernel", "hugetlb_pool", INFO, f"{text}; used only when asked for", facts)


def _maps(kernel: Kernel) -> Check:
    limit = kernel.max_map_count
    facts = {"max_map_count": limit}
    if limit is None:
        return Check("kernel", "max_map_count", UNKNOWN, "unknown: /proc does not tell", facts)
    state = LIMIT if limit < 8192 else OK
    return Check("kernel", "max_map_count", state, f"{limit} mappings a process", facts)
