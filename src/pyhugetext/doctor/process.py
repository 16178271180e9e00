"""What is imposed on this process and all that it starts."""

from __future__ import annotations

import resource

from pyhugetext import _native
from pyhugetext._stats import sentences
from pyhugetext._stats.kernel import fields_of, text_of
from pyhugetext._words import size
from pyhugetext.doctor.check import INFO, LIMIT, OK, PROBLEM, UNKNOWN, Check

# Options of prctl(2).
_PR_GET_THP_DISABLE, _PR_GET_MDWE = 42, 66
_THP_EXCEPT_ADVISED, _MDWE_REFUSE = 2, 1

_MIB = 1 << 20
TIGHT = 128 * _MIB  # less than this left to a control group is told as a limit
ROOM_TO_BUILD = 16 * _MIB  # less is left alone: kRoomToBuild of the core
SMALL_FILE = 64 * _MIB  # the copy of an interpreter with its debugging symbols fits


def checks() -> list[Check]:
    """All of it, for this process as it is."""
    return [_thp(), _mdwe(), _seccomp(), _limits(), _cgroup()]


def _thp() -> Check:
    value = _native.ask_prctl(_PR_GET_THP_DISABLE)
    facts = {"disabled": None if value < 0 else bool(value & 1)}
    if value < 0:
        return Check("process", "thp_disable", UNKNOWN, "unknown: the kernel does not tell", facts)
    if not value:
        return Check("process", "thp_disable", OK, "huge pages are not disabled", facts)
    if value & _THP_EXCEPT_ADVISED:
        text = "huge pages are disabled where a program does not ask for them; pyhugetext asks"
        return Check("process", "thp_disable", INFO, text, facts)
    text = "huge pages are disabled for this process and what it starts (PR_SET_THP_DISABLE)"
    return Check("process", "thp_disable", PROBLEM, text, facts)


def _mdwe() -> Check:
    value = _native.ask_prctl(_PR_GET_MDWE)
    facts = {"enforced": None if value < 0 else bool(value & _MDWE_REFUSE)}
    if value < 0:
        text = "not known to this kernel (Linux 6.3 and later)"
        return Check("process", "mdwe", INFO, text, facts)
    if value & _MDWE_REFUSE:
        text = "memory cannot become executable (PR_SET_MDWE): thp and hugetlb are refused"
        return Check("process", "mdwe", LIMIT, text, facts)
    return Check("process", "mdwe", OK, "memory may become executable", facts)


def _seccomp() -> Check:
    mode = fields_of("/proc/self/status").get("Seccomp", "")
    facts = {"mode": int(mode) if mode.isdigit() else None}
    if mode == "2":
        text = "a filter decides about system calls (mode 2); what it refuses shows below"
        return Check("process", "seccomp", INFO, text, facts)
    if mode == "0":
        return Check("process", "seccomp", OK, "no filter", facts)
    text = f"mode {mode}" if mode else "unknown: /proc does not tell"
    return Check("process", "seccomp", INFO if mode else UNKNOWN, text, facts)


def _limits() -> Check:
    facts: dict[str, int | None] = {}
    said, state = [], OK
    addresses, data = _used()
    for name, which, words, enough in (
        (
            "address_space",
            resource.RLIMIT_AS,
            "of addresses (RLIMIT_AS)",
            addresses + ROOM_TO_BUILD,
        ),
        ("data", resource.RLIMIT_DATA, "of data (RLIMIT_DATA)", data + ROOM_TO_BUILD),
        ("file_size", resource.RLIMIT_FSIZE, "a file (RLIMIT_FSIZE)", SMALL_FILE),
    ):
        value = resource.getrlimit(which)[0]
        facts[name] = None if value == resource.RLIM_INFINITY else value
        if value != resource.RLIM_INFINITY:
            said.append(f"{size(value)} {words}")
            state = LIMIT if value < enough else state
    return Check("process", "limits", state, "; ".join(said) or "none that matter", facts)


def _used() -> tuple[int, int]:
    """Bytes of addresses and of data that this process has; 0 where proc_pid_statm(5) is not
    there."""
    pages = [int(word) for word in (text_of("/proc/self/statm") or "").split()]
    if not pages:
        return 0, 0
    return pages[0] * resource.getpagesize(), pages[5] * resource.getpagesize()


def _cgroup() -> Check:
    """The tightest limit on the way up from this process's group, as the core reads it before it
    copies."""
    room = _native.memory_room()
    _, call, number = room["known"]
    unreadable = sentences.status_name(room["known"]) == "memory_limit"
    seen = room["version"] or unreadable
    limit, free, used = room["limit"], room["free"], room["used"]
    facts = {
        "version": room["version"] if seen else None,
        "path": room["group"] or None,
        "memory_limit": limit,
        "memory_used": None if limit is None else used,
    }
    if not seen:
        return Check("process", "cgroup", UNKNOWN, "unknown: no memory controller is seen", facts)
    if unreadable:
        why = sentences.failed_call(call, number)
        text = f"the memory limit is not known, so nothing is copied: {why}"
        return Check("process", "cgroup", LIMIT, text, facts)
    version = f"cgroup v{room['version']}"
    if limit is None or free is None:
        return Check("process", "cgroup", OK, f"no memory limit ({version})", facts)
    text = f"{size(used)} in use, memory limit {size(limit)} ({version} {facts['path']})"
    return Check("process", "cgroup", LIMIT if free < TIGHT else OK, text, facts)
