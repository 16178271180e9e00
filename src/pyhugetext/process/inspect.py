"""The statistics of another process, read from /proc; it is neither stopped nor changed.

What is coverable is planned by the core, as that process itself planned it, from its mappings and
the program headers of the files. Two things only that process knows: the time it took, and why the
better backings were not taken (`elapsed_ns` is 0 and `fallbacks` are empty).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pyhugetext import _backing, _native
from pyhugetext._stats import sentences, smaps
from pyhugetext._stats.collecting import Mappings, joined, not_loaded, region_of
from pyhugetext._stats.model import Region, Stats, total
from pyhugetext._stats.smaps import Mapping
from pyhugetext._units import HUGE, down, up
from pyhugetext.process.files import Files, device_numbers
from pyhugetext.process.objects import Object, Rest, backing_of, find
from pyhugetext.process.proc import Gone, NotInspectable, Process, State

if TYPE_CHECKING:
    from pyhugetext._native import RawRegion

_TRIES = 4
_PAUSE = 0.002  # seconds; an execve(2) takes less
# Who knows the rest: a Python, any other program.
_ASK = "pyhugetext.stats() in that process says why"
_ASK_REPORT = "with PYHUGETEXT_REPORT it says why when it ends"
_BOOT = re.compile(r"/pyhugetext/_boot[^/]*\.so")
PRELOAD_LIBRARY = "libpyhugetext_preload.so"
_PRELOAD = re.compile(rf"/{re.escape(PRELOAD_LIBRARY)}( \(deleted\))?\Z")
_PYTHON = re.compile(
    r"/(python[23]?(\.[0-9]+)?t?d?"  # an interpreter
    r"|libpython[0-9.]+[a-z]*\.so[0-9.]*"
    r"|[^/]+\.(cpython-[0-9]+[^/]*|abi3)\.so)( \(deleted\))?\Z"  # an extension module
)
_CHANGED = "its mappings changed while they were read: the figures may not fit together"


class Look(NamedTuple):
    """What was seen of a process at one time."""

    state: State
    mappings: Mappings
    planned: list[tuple[Object, RawRegion]]
    rests: list[Rest]
    problems: list[str]


def inspect(pid: int) -> Stats:
    """The same statistics as `pyhugetext.stats()` gives in the process `pid`, now.

    Needs the right to read it (one's own processes; all for root; PTRACE_MODE_READ of ptrace(2)),
    and not that it runs Python. Raises NotInspectable, with a sentence that says why.
    """
    with Process(pid) as process:
        return examine(process)[0]


def examine(process: Process) -> tuple[Stats, bool, bool]:
    """What inspect() says of an open process, whether it runs Python, and whether the preload library
    is in it."""
    look = look_at(process)
    return _stats(look), runs_python(look.mappings.all), is_preloaded(look.mappings.all)


class Held(NamedTuple):
    """What the executable file text of a process, wherever it is mapped from now, takes of the
    memory: in all, as its share of pages that several processes map (PSS), and for it alone."""

    resident: int
    share: int
    private: int


def examine_closely(process: Process) -> tuple[Stats, bool, Held]:
    """As examine(), with whether the package is loaded there, and what the text takes."""
    look = look_at(process)
    text = [
        m
        for m in look.mappings.all
        if "x" in m.permissions and not m.retired and (m.inode or backing_of(m))
    ]
    held = Held(*(sum(getattr(m, n) for m in text) for n in ("resident", "share", "private")))
    return _stats(look), is_loaded(look.mappings.all), held


def is_loaded(mappings: Iterable[Mapping]) -> bool:
    """Whether the start-up hook of this package, or its preload library, is in a process, whatever
    it did."""
    found = list(mappings)
    return is_preloaded(found) or any(_BOOT.search(mapping.path) for mapping in found)


def look_at(process: Process) -> Look:
    """What is in an open process now. Reads again where the process ran another program or loaded a library in the meantime."""
    for left in reversed(range(_TRIES)):
        before = process.state()
        try:
            mappings = process.mappings()
            if not before.start_code:  # in the middle of execve(2)
                raise Gone(f"process {process.pid} starts another program just now")
            files = Files(process)
            try:
                objects, rests = find(mappings, files)
            finally:
                files.close()
            found = Mappings(mappings)
            planned = [(one, _plan(one, found, before)) for one in objects]
            after = process.mappings("maps")
        except Gone:
            if not left:
                raise
            time.sleep(_PAUSE)
            continue
        if process.state()[3:] != before[3:]:
            continue
        problems = [] if _text(mappings) == _text(after) else [_CHANGED]
        if not problems or not left:
            return Look(before, found, planned, rests, problems)
    raise NotInspectable(f"process {process.pid} keeps starting other programs")


def _text(mappings: list[Mapping]) -> list[tuple[int, int, int, str]]:
    return [(m.start, m.end, m.inode, m.device) for m in mappings if "x" in m.permissions]


def _plan(one: Object, mappings: Mappings, state: State) -> RawRegion:
    major, minor = device_numbers(one.key.device)
    swapped = {mapping.start for mapping in one.swapped}
    raw = _native.plan_elsewhere(
        one.bias,
        one.head.headers,
        _is_main(one, state),
        major,
        minor,
        one.key.inode,
        _backing.NUMBERS[one.backing],
        one.head.build_id,
        [
            (m.start, m.end, m.offset, m.inode, *device_numbers(m.device), m.permissions, s)
            for m in mappings.within(down(one.low, HUGE), up(one.high, HUGE))
            for s in (m.start in swapped,)
        ],
    )
    raw["path"] = one.key.path
    return raw


def _is_main(one: Object, state: State) -> bool:
    return one.low <= state.start_code < one.high


def _stats(look: Look) -> Stats:
    ask = _ask(look.mappings.all)

    def reason(raw: RawRegion, swapped: int, resident: int, huge: int) -> str | None:
        return _reason(raw, swapped, resident, huge, ask)

    regions = [
        region_of(raw, look.mappings, reason)
        for one, raw in sorted(look.planned, key=lambda pair: not _is_main(pair[0], look.state))
        if raw["text_bytes"]
    ]
    regions += [_rest(rest) for rest in look.rests]
    return total(regions, _why_inactive(look), 0, look.problems)


def _ask(mappings: Iterable[Mapping]) -> str:
    """How to hear of what only that process knows."""
    return _ASK if runs_python(mappings) else _ASK_REPORT


def _reason(raw: RawRegion, swapped: int, resident: int, huge: int, ask: str = _ASK) -> str | None:
    if not raw["coverable_bytes"]:
        return sentences.SENTENCES["too_small"]
    if not swapped:
        return f"on small pages; {ask}"
    parts = []
    left = [start for start, _end, page_swapped, _ in raw["pages"] if not page_swapped]
    if left:
        more = f" and {len(left) - 1} more left as they were" if left[1:] else " left as it was"
        parts.append(f"2 MiB at {left[0]:#x}{more}; {ask}")
    return joined(parts, resident, huge)


def _rest(rest: Rest) -> Region:
    """A region for what has no readable headers: the figures of maps and smaps, as they are."""
    if not rest.reason:
        return not_loaded(rest.mappings[0])
    swapped = sum(m.end - m.start for m in rest.swapped)
    huge = min(sum(m.huge for m in rest.swapped), swapped)
    resident = min(sum(m.resident for m in rest.swapped), swapped)
    private = sum(
        m.private if rest.backing in _backing.PRIVATE else m.anonymous for m in rest.swapped
    )
    counted = "; what is swapped counts as text" if swapped else "; what is coverable is not known"
    mappings = sorted((*rest.mappings, *rest.swapped))
    text = sum(m.end - m.start for m in mappings)
    return not_loaded(mappings[0])._replace(
        path=rest.key.path,
        start=(rest.swapped or mappings)[0].start,
        end=(rest.swapped or mappings)[-1].end,
        text_bytes=text,
        coverable_bytes=swapped,
        mapped_bytes=swapped,
        swapped_bytes=swapped,
        huge_bytes=huge,
        small_bytes=max(resident - huge, 0),
        private_bytes=private,
        backing=rest.backing,
        status="partial" if swapped else "small",
        reason=rest.reason + counted,
        replaced=smaps.is_replaced(rest.key.path),
    )


def _why_inactive(look: Look) -> str:
    if any(one.swapped for one, _ in look.planned) or any(rest.swapped for rest in look.rests):
        return "what was swapped is not in 2 MiB pages (yet)"
    if is_loaded(look.mappings.all):
        return f"nothing was swapped; {_ask(look.mappings.all)}"
    return (
        "pyhugetext is not loaded in it (not installed for that Python, or PYHUGETEXT=0)"
        if runs_python(look.mappings.all)
        else "it does not run Python, and the preload library is not in it"
    )


def runs_python(mappings: Iterable[Mapping]) -> bool:
    """Whether mappings look like those of a CPython process, by the names of the files: the
    interpreter's, libpython's, or an extension module's."""
    return any(_PYTHON.search(m.path) for m in mappings if "x" in m.permissions)


def is_preloaded(mappings: Iterable[Mapping]) -> bool:
    """Whether the preload library is in a process, by its name."""
    return any(_PRELOAD.search(m.path) for m in mappings if "x" in m.permissions)


def is_ours(mappings: Iterable[Mapping]) -> bool:
    """Whether a process has text from a store, or that was made for it, whatever it runs."""
    return any(backing_of(mapping) for mapping in mappings)
