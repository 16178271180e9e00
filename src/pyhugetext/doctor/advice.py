"""What to do about it: only what helps here, with the command where there is one."""

from __future__ import annotations

from typing import NamedTuple

from pyhugetext._settings import Settings
from pyhugetext._stats import sentences
from pyhugetext.doctor.check import LIMIT, PROBLEM, Check
from pyhugetext.doctor.rungs import Ladder
from pyhugetext.doctor.start import Start
from pyhugetext.doctor.storage import Storage
from pyhugetext.process import linker
from pyhugetext.store import places


class Advice(NamedTuple):
    """One recommendation; the command is empty where there is none to give."""

    text: str
    command: str = ""


def collect(
    checks: dict[str, Check],
    stores: list[Storage],
    started: Start,
    ladder: Ladder,
    settings: Settings,
    works: bool,
    backing: str,
) -> list[Advice]:
    """The recommendations, the most pressing first; empty where nothing is to be done."""
    user = next(store for store in stores if store.kind == "user")
    out = _about_start(started, settings)
    if checks["thp_disable"].state == PROBLEM:
        text = "a parent process has disabled huge pages for all it starts "
        text += "(prctl(PR_SET_THP_DISABLE)): start Python from elsewhere, or take that call away"
        out.append(Advice(text))
    if backing not in ("file", "store"):
        out += _about_store(checks, user, settings, backing)
    if backing == "store" and started.waits:
        text = "the first start of a program makes its entries in the store and takes longer; "
        out.append(Advice(f"{text}make them ahead", "pyhugetext warm --all-installed"))
    elif user.remembered and user.remembered != checks["large_folios"].facts["verdict"]:
        out += _about_verdict(checks, user)
    out += _about_addresses(started, out)
    out += _about_small(started)
    out += _about_limits(checks, works, backing)
    out += _about_gain(checks, works)
    return out


def _about_start(started: Start, settings: Settings) -> list[Advice]:
    out = [Advice(f"correct the setting: {problem}") for problem in settings.problems]
    if started.off:
        out.append(Advice("PYHUGETEXT turns it off: take the variable away", "unset PYHUGETEXT"))
    if not started.started and not started.files:
        out.append(
            Advice(
                "the start-up hook is not installed for this interpreter: install the package "
                "again, or call it from a sitecustomize.py",
                "python -m pip install --force-reinstall pyhugetext",
            )
        )
    return out


def _about_store(
    checks: dict[str, Check], user: Storage, settings: Settings, backing: str
) -> list[Advice]:
    """No store on disk is in use: what would make one."""
    verdict = checks["large_folios"].facts["verdict"]
    if user.path is None:
        text = "nothing says where the store is: set HOME, or name a directory"
        return [Advice(text, "export PYHUGETEXT_STORE=/directory/of/yours")]
    if not user.trusted:
        path, writable, _ = (user.reason or "").partition(" is writable by others")
        text = f"the store is not trusted: {user.reason}"
        return [Advice(text, f"chmod go-w {path}" if writable else "")]
    if not user.writable:
        text = f"the store cannot be written ({user.reason}): name another directory"
        return [Advice(text, "export PYHUGETEXT_STORE=/directory/of/yours")]
    if user.free is not None and user.free < 0:
        return [Advice("the store has no room: free some space", "pyhugetext store prune")]
    if verdict == places.NEVER:
        text = "a store on a file system with large folios (xfs since Linux 6.1, ext4 since 6.18) "
        text += "needs no memory of its own"
        return [Advice(text, "export PYHUGETEXT_STORE=/directory/on/such")]
    if verdict == places.EVICTED:
        text = "this file system gives huge pages to files it reads back: fill the store ahead"
        return [Advice(text, "pyhugetext warm --all-installed")]
    if user.file_system == "overlayfs" and settings.building == "auto":
        return [_about_container()]
    if settings.building == "never":
        text = "PYHUGETEXT_BUILD=never leaves the store as it is: fill it ahead"
        return [Advice(text, "pyhugetext warm --all-installed")]
    if backing == "shm":
        text = "shared memory is used because it has the entries and the disk has none: make those"
        return [Advice(text, "pyhugetext warm --all-installed")]
    if checks["limits"].state == LIMIT:
        text = "limits of this process keep it from building entries: fill the store without them"
        return [Advice(text, "pyhugetext warm --all-installed")]
    return []


def _about_container() -> Advice:
    why = linker.why_not_honoured()
    if why:
        text = f"no image can be prepared here: {why}; a store on a volume serves the interpreter alone"
        return Advice(text, "export PYHUGETEXT_STORE=/directory/on/a/volume")
    text = (
        "on overlayfs nothing is built at a start, and libraries have other addresses in each process: "
        "prepare the image, in its Dockerfile; a store on a volume serves only what is aligned"
    )
    return Advice(text, _IMAGE)


def _about_addresses(started: Start, given: list[Advice]) -> list[Advice]:
    """What no store can serve, since each process has it elsewhere."""
    stats = started.stats or {}
    waits = sentences.SENTENCES["elsewhere"]
    told = [
        text
        for region in stats.get("regions", ())
        for text in (region["reason"] or "", *region["fallbacks"])
    ]
    if not any(waits in text for text in told) or any(one.command == _IMAGE for one in given):
        return []
    text = "some objects have another address in each process, so that no store can serve them"
    why = linker.why_not_honoured()
    if why:
        return [Advice(f"{text}; nothing helps here, for {why}")]
    return [Advice(f"{text}: have them aligned", _IMAGE.partition(" ")[2])]


_IMAGE = "RUN pyhugetext image"


def _about_small(started: Start) -> list[Advice]:
    """What was huge in the store did not stay so."""
    stats = started.stats or {}
    waits = sentences.SENTENCES["small_copy"]
    left = any(waits in (region["reason"] or "") for region in stats.get("regions", ()))
    if not left and not stats.get("small_bytes"):
        return []
    text = (
        "a part of the store's text is cached in small pages: other programs have used the memory, "
        "or the store was copied and is not on disk yet; mend it, and call pyhugetext.remap() in "
        "processes that have run since before"
    )
    return [Advice(text, "pyhugetext store heal")]


def _about_verdict(checks: dict[str, Check], user: Storage) -> list[Advice]:
    """What the store remembers of its file system is not what was found now."""
    if checks["large_folios"].facts["verdict"] != places.WRITTEN:
        return []
    text = (
        f"the store remembers that its file system gives huge pages {_WHEN[user.remembered or '']}"
        ", but it gives them to new files now: make the store anew"
    )
    return [Advice(text, "pyhugetext store clear")]


_WHEN = {
    places.EVICTED: "only when it reads files back",
    places.COLLAPSED: "only when it is asked to",
    places.NEVER: "never",
}


def _about_limits(checks: dict[str, Check], works: bool, backing: str) -> list[Advice]:
    out = []
    if not works and checks["thp"].facts["enabled"] == "never":
        text = "transparent huge pages are switched off on this machine: allow them on request"
        switch = "/sys/kernel/mm/transparent_hugepage/enabled"
        out.append(Advice(text, f"echo madvise | sudo tee {switch}"))
    if checks["cgroup"].state == LIMIT and backing in ("shm", "memfd", "thp"):
        text = f"little memory is left to the control group, and copies on {backing} count there"
        out.append(Advice(text, "export PYHUGETEXT_PRIVATE_LIMIT=8M PYHUGETEXT_SHM_LIMIT=64M"))
    if checks["max_map_count"].state == LIMIT:
        text = "vm.max_map_count is low: objects are left alone when it is near"
        out.append(Advice(text, "sudo sysctl vm.max_map_count=65530"))
    return out


def _about_gain(checks: dict[str, Check], works: bool) -> list[Advice]:
    out = []
    measure = "pyhugetext bench -s SETUP STMT"
    if works and checks["itlb_multihit"].state == LIMIT:
        text = "the host may split huge pages of code (iTLB multihit): measure the gain here"
        out.append(Advice(text, measure))
    elif works and checks["page_walk"].state == LIMIT:
        text = "huge pages save only a part of each page walk here: measure the gain"
        out.append(Advice(text, measure))
    perf = checks["perf"]
    if perf.facts["error"] in ("EACCES", "EPERM") and (perf.facts["paranoid"] or 0) > 2:
        text = "perf is forbidden to ordinary users: allow it if you want to count iTLB misses"
        out.append(Advice(text, "sudo sysctl kernel.perf_event_paranoid=2"))
    return out
