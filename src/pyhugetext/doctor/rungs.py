"""The rungs of the ladder, each tried in a child on the interpreter's own text.

The child's stores are temporary: they lie beside or in the user's, on the same file systems, and
go when it ends. So the whole way is tried, an entry built and mapped, and the user's stores stay
as they are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any, NamedTuple

from pyhugetext import _words
from pyhugetext._backing import LADDER
from pyhugetext._settings import Settings
from pyhugetext.children import runner
from pyhugetext.doctor.check import CHILD_SECONDS
from pyhugetext.doctor.storage import Storage, nearest

_PREFIX = ".pyhugetext-doctor-"


class Rung(NamedTuple):
    """One backing, tried. Sizes in bytes."""

    backing: str
    works: bool
    taken: bool  # by `auto`
    reason: str | None  # why it does not work, or is not what auto takes
    huge_bytes: int
    private_bytes: int


class Ladder(NamedTuple):
    """What was tried. `wanted` is what PYHUGETEXT_BACKING asks for, tried the same way."""

    rungs: list[Rung]
    auto: str  # the backing, "none" where there is none
    wanted: str
    wanted_active: bool
    wanted_reason: str | None
    error: str | None


def try_all(settings: Settings, stores: list[Storage], present: str | None) -> Ladder:
    """Tries every rung, and `auto`, with stores that are removed again. `present` is the rung that
    a new python was seen to take, where no entry was missing for a better one."""
    user = next(store for store in stores if store.kind == "user")
    shm = next(store for store in stores if store.kind == "shm")
    unfit: dict[str, str] = {}
    places: list[str] = []
    disk = _make(user, unfit, places)
    memory = _make(shm, unfit, places)
    spec = {"store": disk, "shm": memory, "rungs": ["", "auto", *LADDER], "remove": places}
    # Started by the call and not by the hook, with the settings of the environment.
    environ = runner.environment(PYHUGETEXT="0", PYHUGETEXT_DEBUG=None)
    try:
        told = runner.ask("pyhugetext.children.rungs", spec, environ, CHILD_SECONDS).told
        error = told["error"]
    except runner.Unanswered as failed:
        told, error = {}, f"a new python {failed}{failed.line}"
    finally:
        for path in places:
            shutil.rmtree(path, ignore_errors=True)
    for temporary, store in ((disk, user), (memory, shm)):
        if temporary and store.path:
            told = _renamed(told, temporary, store.path)
    wanted = settings.backing
    return _conclude(told, unfit, wanted, present if wanted == "auto" else None, error)


def _make(store: Storage, unfit: dict[str, str], places: list[str]) -> str | None:
    """A directory for a temporary store where the user's is or would be; None, and the reason in
    `unfit`, where there can be none."""
    name = "store" if store.kind == "user" else store.kind
    if store.path is None or not store.trusted or not store.writable:
        unfit[name] = store.reason or "it cannot be written"
        return None
    above = os.path.dirname(store.path) if store.kind == "shm" else nearest(store.path)
    _sweep(above)
    path = os.path.join(above, f"{_PREFIX}{os.getpid()}")
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        unfit[name] = _words.sentence(error, coded=True)
        return None
    places.append(path)
    return path


def _sweep(directory: str) -> None:
    """Removes what a doctor left that was killed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            pid = name[len(_PREFIX) :] if name.startswith(_PREFIX) else ""
            path = os.path.join(directory, name)
            own = pid.isdigit() and os.lstat(path).st_uid == os.geteuid()
            if own and (int(pid) == os.getpid() or not os.path.isdir(f"/proc/{pid}")):
                shutil.rmtree(path, ignore_errors=True)


def _renamed(told: Any, old: str, new: str) -> Any:
    """What the child told, with the store's name in place of the temporary one's."""
    if isinstance(told, dict):
        return {key: _renamed(value, old, new) for key, value in told.items()}
    if isinstance(told, list):
        return [_renamed(value, old, new) for value in told]
    return told.replace(old, new) if isinstance(told, str) else told


def _conclude(
    told: dict[str, Any],
    unfit: dict[str, str],
    wanted: str,
    present: str | None,
    error: str | None,
) -> Ladder:
    auto = told.get("auto", {})
    taken = present or (auto.get("backing", "none") if auto.get("active") else "none")
    rungs = []
    for name in LADDER:
        found = told.get(name, {})
        works = bool(found.get("active")) or name == present
        reason = None if works else _reason(name, found, unfit) or error or "not tried"
        if works and name != taken:
            better = taken in LADDER and LADDER.index(taken) < LADDER.index(name)
            reason = f"{taken} is better" if better else _held_back(name, auto)
        if name == "hugetlb" and works:
            reason = "used only when asked for"
        rungs.append(
            Rung(name, works, name == taken, reason, found.get("huge_bytes", 0),
                 found.get("private_bytes", 0))
        )  # fmt: skip
    asked = told.get("", {})
    return Ladder(
        rungs,
        taken,
        wanted,
        bool(asked.get("active")),
        None if asked.get("active") else error or _reason(wanted, asked, unfit),
        error,
    )


def _reason(name: str, found: dict[str, Any], unfit: dict[str, str]) -> str | None:
    """Why a rung does not work: what stands in the way first, not what follows from it."""
    if name in unfit:
        return unfit[name]
    if found.get("build"):
        return "; ".join(found["build"])
    reason: str | None = found.get("reason")
    return reason


def _held_back(name: str, auto: dict[str, Any]) -> str:
    """Why auto does not take a rung that works when it is asked for."""
    if name == "file" and auto.get("backing") == "store":
        return "an entry of the store is found first"
    said = [text for text in auto.get("fallbacks", ()) if text.startswith(f"{name}: ")]
    built = auto.get("build", ())
    return "; ".join([*built, *(text.partition(": ")[2] for text in said)]) or "not taken by auto"
