"""Whether the start-up hook runs in a new python, and what comes of it there."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyhugetext import _backing, _settings
from pyhugetext._words import size
from pyhugetext.children import runner
from pyhugetext.doctor.check import CHILD_SECONDS, INFO, OK, PROBLEM, Check


class Start(NamedTuple):
    """How new processes start. `stats` is what stats() says there, with nothing built."""

    installed: bool  # a .pth or .start file lies where site looks
    started: bool  # the hook ran, or would but for PYHUGETEXT=0
    off: bool  # PYHUGETEXT says so
    files: list[str]
    stats: dict[str, Any] | None
    error: str | None

    @property
    def interpreter(self) -> dict[str, Any] | None:
        """The region with the most coverable text: the interpreter's."""
        regions = self.stats["regions"] if self.stats else []
        return max(regions, key=lambda r: int(r["coverable_bytes"]), default=None)

    @property
    def waits(self) -> bool:
        """Whether a better rung was not taken because the entry is still to be built."""
        region = self.interpreter
        words = [*region["fallbacks"], region["reason"] or ""] if region else []
        return any("the store has no entry" in text or "there is no store" in text
                   for text in words)  # fmt: skip

    @property
    def takes(self) -> str | None:
        """The rung the interpreter is on, where it would not build an entry for a better one."""
        region = self.interpreter
        if region is None or not region["huge_bytes"]:
            return None
        backing: str = region["backing"]
        # Nothing is built for what a shared copy serves already.
        return backing if backing in _backing.SHARED or not self.waits else None


def look(settings: _settings.Settings) -> Start:
    """Starts a new python as it is configured here, but for building and PYHUGETEXT=0."""
    changes: dict[str, str | None] = {"PYHUGETEXT_BUILD": "never"}
    if settings.off:
        changes["PYHUGETEXT"] = None
    environ = runner.environment(**changes)
    try:
        told = runner.ask("pyhugetext.children.start", None, environ, CHILD_SECONDS).told
    except runner.Unanswered as error:
        return Start(False, False, settings.off, [], None, f"a new python {error}{error.line}")
    return Start(
        bool(told["files"]),
        bool(told.get("started")),
        settings.off,
        told["files"],
        told.get("stats"),
        told["error"],
    )


def checks(found: Start) -> list[Check]:
    """What it says of the hook and of the process it started."""
    return [_switch(found), _hook(found), _process(found)]


def _switch(found: Start) -> Check:
    facts = {"off": found.off}
    if found.off:
        text = "turned off by PYHUGETEXT; what follows is what would be without it"
        return Check("start", "switch", INFO, text, facts)
    return Check("start", "switch", OK, "on", facts)


def _hook(found: Start) -> Check:
    facts = {"files": found.files, "started": found.started}
    if found.error:
        return Check("start", "hook", PROBLEM, found.error, facts)
    if found.started:
        text = found.files[0] if found.files else "started by something else (sitecustomize)"
        return Check("start", "hook", OK, text, facts)
    if found.files:
        text = f"{found.files[0]} is there, but does not start it"
        reason = (found.stats or {}).get("reason")
        return Check("start", "hook", PROBLEM, f"{text}: {reason}" if reason else text, facts)
    text = "no pyhugetext.pth where site looks: nothing starts by itself"
    return Check("start", "hook", PROBLEM, text, facts)


def _process(found: Start) -> Check:
    stats = found.stats
    if not stats:
        return Check("start", "process", PROBLEM, "unknown: no new python could be asked", {})
    facts = {
        key: stats[key]
        for key in ("active", "reason", "backing", "coverable_bytes", "mapped_bytes", "huge_bytes",
                    "small_bytes", "private_bytes", "elapsed_ns")
    }  # fmt: skip
    if stats["active"]:
        share = stats["mapped_bytes"] * 100 // max(stats["coverable_bytes"], 1)
        text = (
            f"active on {stats['backing']}: {size(stats['huge_bytes'])} in 2 MiB pages, {share} % "
            f"of the coverable text, {size(stats['private_bytes'])} private, "
            f"{stats['elapsed_ns'] / 1e6:.1f} ms"
        )
        if stats["small_bytes"]:
            text += f"; {size(stats['small_bytes'])} of what was moved are in use in small pages"
        return Check("start", "process", OK, text, facts)
    state = INFO if found.waits else PROBLEM
    return Check("start", "process", state, f"not active: {stats['reason']}", facts)
