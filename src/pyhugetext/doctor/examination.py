"""All of it in order, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pyhugetext._settings import Settings
from pyhugetext._stats.kernel import read as read_kernel
from pyhugetext.doctor import (
    advice,
    kernel,
    machine,
    pagewalk,
    process,
    rungs,
    start,
    storage,
    trials,
)
from pyhugetext.doctor.check import LIMIT, OK, PROBLEM, Check


class Examination(NamedTuple):
    """What `pyhugetext doctor` tells."""

    works: bool  # a new python runs from huge pages, or would but for PYHUGETEXT=0
    reason: str | None  # why not
    backing: str  # what it runs from; none
    checks: list[Check]
    stores: list[storage.Storage]
    ladder: rungs.Ladder
    advice: list[advice.Advice]


def examine(settings: Settings, tell: Callable[[str], None]) -> Examination:
    """Looks and tries; takes one to two seconds. `tell` hears what is being done."""
    tell("looking at the kernel, the process and the machine")
    checks = [*kernel.checks(read_kernel()), *process.checks()]
    checks += machine.checks()
    guest = next(check.facts["guest"] for check in checks if check.name == "hypervisor")
    tell("timing page walks")
    checks.append(pagewalk.check(guest))
    tell("trying what the kernel does")
    stores = storage.stores(settings)
    checks += trials.checks(stores)
    tell("starting a new python")
    started = start.look(settings)
    checks.append(_settings_check(settings))
    checks += start.checks(started)
    tell("trying the backings")
    ladder = rungs.try_all(settings, stores, started.takes)
    works, reason, backing = _conclude(started, ladder)
    if not works:
        # What stands in the way of everything, rather than what follows from it.
        before = [c.text for c in checks if c.state == PROBLEM and c.group in ("kernel", "process")]
        reason = before[0] if before else reason
    told = {check.name: check for check in checks}
    advised = advice.collect(told, stores, started, ladder, settings, works, backing)
    return Examination(works, reason, backing, checks, stores, ladder, advised)


def _settings_check(settings: Settings) -> Check:
    facts = {"problems": list(settings.problems)}
    if settings.problems:
        return Check("start", "settings", LIMIT, "; ".join(settings.problems), facts)
    return Check("start", "settings", OK, "all PYHUGETEXT_ variables are well-formed", facts)


def _conclude(started: start.Start, ladder: rungs.Ladder) -> tuple[bool, str | None, str]:
    if started.error:
        return False, started.error, "none"
    if not started.started:
        what = "does not run" if started.files else "is not installed for this interpreter"
        return False, f"the start-up hook {what}", "none"
    stats = started.stats
    if stats and stats["active"] and (started.takes or not ladder.wanted_active):
        return True, None, stats["backing"]
    if ladder.wanted_active:
        return True, None, ladder.auto if ladder.wanted == "auto" else ladder.wanted
    # Of the trial rather than of the child, which was not allowed to build anything.
    reason = ladder.wanted_reason or ladder.error or (stats or {}).get("reason")
    return False, reason, "none"
