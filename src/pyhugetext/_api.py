"""The public functions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from pyhugetext import _backing, _settings
from pyhugetext._stats.model import Stats, total

_SUBINTERPRETER = "the main interpreter of this process tells; others can from Python 3.12 on"

_in_subinterpreter = False
try:
    from pyhugetext import _boot

    _in_subinterpreter = not _boot.is_main_interpreter()
    # pybind11 takes the GIL by PyGILState_Ensure, which waits for ever in a sub-interpreter of
    # these versions.
    if sys.version_info < (3, 12) and _in_subinterpreter:
        raise ImportError(_SUBINTERPRETER)
    from pyhugetext import _native
except ImportError as error:
    _native = None  # type: ignore[assignment]
    _native_error: BaseException | None = error
else:
    _native_error = None

start_failure: BaseException | None = None  # what went wrong in the start-up hook

# What the last remap() asked for, where it said so; else the environment's.
_include: tuple[str, ...] | None = None
_exclude: tuple[str, ...] | None = None
_called = False
_problems: list[str] = []


def _record(problem: str) -> None:
    if problem not in _problems:
        _problems.append(problem)


def stats() -> Stats:
    """The state of this process now: a Stats, with a Region for each object with machine code.

    Sizes are bytes and times nanoseconds; how much is in 2 MiB pages is what /proc/self/smaps says
    at the call, see proc_pid_smaps(5). Never raises for what it finds: a missing native part, an
    unreadable /proc and a malformed setting are told in `reason` and `problems`.
    """
    return _stats_with()


def _stats_with(*now: str) -> Stats:
    """The statistics, with problems of this call that are none of the next."""
    settings = _settings.current()
    problems = (*settings.problems, *_problems, *now)
    if _native is None:
        return _without_native(problems)
    from pyhugetext._stats import collecting

    if start_failure is not None:
        problems = (*problems, f"the start-up hook failed: {start_failure!r}")
    return collecting.collect(
        off=settings.off and not _called,
        include=settings.include if _include is None else _include,
        exclude=settings.exclude if _exclude is None else _exclude,
        problems=problems,
        strict=settings.strict,
    )


def _busy(name: str) -> Stats:
    from pyhugetext._stats.sentences import SENTENCES

    return _stats_with(f"{name}() did nothing: {SENTENCES['busy']}")


def _unable(name: str) -> bool:
    """Whether the text of this process cannot be moved from here."""
    if _in_subinterpreter:
        _record(f"{name}() was called in a sub-interpreter; allowed: the main interpreter only")
    return _in_subinterpreter or _native is None


def _without_native(problems: tuple[str, ...]) -> Stats:
    from pyhugetext import _words

    reason = _SUBINTERPRETER if _in_subinterpreter else _words.no_native_part(_native_error)
    return total([], reason, 0, problems, _settings.current().strict)


def _patterns(name: str, value: str | Iterable[str]) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else tuple(value)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern or "\0" in pattern:
            raise ValueError(f"{name}: {pattern!r} is no pattern; allowed: a non-empty str, no NUL")
        try:
            os.fsencode(pattern)
        except UnicodeEncodeError:
            raise ValueError(
                f"{name}: {pattern!r} is no pattern; allowed: what a file name can hold"
            ) from None
    return patterns


def remap(
    *,
    backing: str | None = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
) -> Stats:
    """Moves the text of this process to 2 MiB pages, now and for libraries loaded later.

    `backing` is auto, file, store, shm, memfd, thp or hugetlb; with a named one, objects on another
    backing are put back first. `include` and `exclude` are fnmatch patterns on paths, one or
    several. What is left out comes from the environment. May be called any number of times, while
    other threads run the text, and overrides PYHUGETEXT=0. Libraries opened by ctypes or from C are
    covered at the next import of an extension, or by this call.

    Returns the statistics afterwards, as stats() does: what the kernel refuses is told there, with
    the call and its errno (mremap(2), madvise(2), memfd_create(2), mmap(2); the kernel's
    Documentation/admin-guide/mm/transhuge.rst). ValueError for an unknown backing or a bad pattern,
    with nothing changed. In a sub-interpreter nothing is done and `problems` says so.
    """
    global _include, _exclude
    if backing is not None and backing not in _backing.ALLOWED:
        raise ValueError(_backing.unknown("backing:", backing))
    wanted = None if include is None else _patterns("include", include)
    unwanted = None if exclude is None else _patterns("exclude", exclude)
    if _unable("remap"):
        return stats()
    _include, _exclude = wanted, unwanted
    return remap_with(
        **({} if backing is None else {"backing": _backing.NUMBERS[backing]}),
        **({} if wanted is None else {"include": _settings.encoded(wanted)}),
        **({} if unwanted is None else {"exclude": _settings.encoded(unwanted)}),
    )


def remap_with(**given: int | bytes) -> Stats:
    """The same with any part of the request in place of the settings', as the binding takes it."""
    global _called
    _called = True
    missing = _native.remap(**given)  # type: ignore[arg-type]
    if missing == _native.BUSY:
        return _busy("remap")
    if missing:
        _native.complete()
    _boot.watch()
    return stats()


def restore() -> Stats:
    """Puts the original mappings back and leaves libraries loaded later alone.

    A 2 MiB page that somebody changed since (a breakpoint) stays where it is, and its region says
    so. May be called any number of times, while other threads run the text. Returns the statistics
    afterwards, as stats() does, and raises nothing: what the kernel refuses (mmap(2), mremap(2)),
    and a call in a sub-interpreter, where nothing is done, are told there.
    """
    if _unable("restore"):
        return stats()
    # Told once: there is nothing wrong with the process.
    nothing = not any(region["mapped_bytes"] for region in _native.snapshot()["regions"])
    if not _native.restore():
        return _busy("restore")
    if nothing:
        return _stats_with("restore() was called with nothing remapped; remap() comes first")
    return stats()
