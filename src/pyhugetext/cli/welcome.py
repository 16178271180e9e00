"""What `pyhugetext` says when nothing is asked of it: what runs from huge pages in this very process,
what this machine can do, and what to try next."""

from __future__ import annotations

import platform
import shutil
import sys
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import pyhugetext
from pyhugetext import _settings
from pyhugetext._backing import PRIVATE, SHARED
from pyhugetext._stats.model import Region, Stats, by_coverable, name_of
from pyhugetext.cli import coverage, text
from pyhugetext.cli.outcome import OK

_WIDE = 96  # columns that a sentence may take
_NAMED = 6  # objects of a process of ours: the interpreter, seldom more

# What each rung means for somebody who has never heard of it.
_RUNGS = {
    "file": "the kernel keeps the original files in 2 MiB pages; nothing is copied",
    "store": "one copy on disk, in 2 MiB pages, serves all processes; none of them pays memory for it",
    "shm": "one copy in shared memory serves all processes of a user",
    "memfd": "each process keeps a copy of its own, which its forked children share",
    "thp": "each process keeps a copy of its own, which its forked children share",
    "hugetlb": "each process takes pages of the pool that the administrator reserved",
}
# What a later start has more of.
_LATER = ("absent", "no_entry", "no_store", "promised")


class Advice(NamedTuple):
    """A command to try, and what for. It is in words of the shell."""

    command: str
    purpose: str


def greet() -> int:
    """Prints it and returns the exit status. ImportError where there is no native part."""
    from pyhugetext import _native  # noqa: F401

    coverage.Screen().lines(lines(pyhugetext.stats(), _spelled, text.width_of(sys.stdout)))
    return OK


def _spelled(command: str) -> str:
    """A command of ours as this user can type it."""
    name = "pyhugetext" if shutil.which("pyhugetext") else "python -m pyhugetext"
    return f"{name} {command}".rstrip()


def lines(stats: Stats, spelled: Callable[[str], str], width: int | None) -> list[str]:
    """All of it; `spelled` makes a command line of a command of ours."""
    python = f"Python {platform.python_version()}"
    out = [
        f"pyhugetext {pyhugetext.__version__}, {python}, Linux {stats.kernel.release}",
        "",
        "machine code of this process:",
        *_table(stats, width),
        "",
        "what this machine can do:",
        *textwrap.wrap(
            text.printable(_machine(stats)),
            min(width or _WIDE, _WIDE),
            initial_indent="  ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        ),
        "",
        "next:",
    ]
    advice = _advice(stats, spelled)
    longest = max(len(one.command) for one in advice)
    return [*out, *(f"  {one.command:{longest}}   {one.purpose}" for one in advice)]


def _table(stats: Stats, width: int | None) -> list[str]:
    shown, small = by_coverable(stats.regions)
    shown.sort(key=lambda region: -region.coverable_bytes)
    rows = [(name_of(region), *_shares(region, width)) for region in shown[:_NAMED]]
    if shown[_NAMED:]:
        rest = sum(region.coverable_bytes for region in shown[_NAMED:])
        rows.append((f"({len(shown) - _NAMED} more)", text.size(rest), "", ""))
    if small:
        size = text.size(sum(region.text_bytes for region in small))
        number = text.count(len(small), "small library", "small libraries")
        rows.append((f"({number})", size, "none", ""))
    header = ("object", "code", "on huge pages", "")
    return [f"  {line}" for line in text.table(header, rows, "prrl", width and width - 2)]


def _shares(region: Region, width: int | None) -> tuple[str, str, str]:
    share = coverage.bar(
        region.coverable_bytes,
        region.mapped_bytes,
        region.swapped_bytes,
        region.huge_bytes,
        20 if width is None or width >= _WIDE else 8,
        region.small_bytes,
    )
    now = region.mapped_bytes * region.huge_bytes // max(region.swapped_bytes, 1)
    return text.size(region.text_bytes), text.size(min(now, region.mapped_bytes)), share


def _machine(stats: Stats) -> str:
    if not stats.active:
        return f"nothing of this process runs from huge pages: {stats.reason}"
    names = [name for name in stats.backing.split("+") if name in _RUNGS]
    said = "; ".join(f"{name}: {_RUNGS[name]}" for name in names)
    if _later(stats):
        return f"{said}. The copies are made bit by bit as programs start, and are not whole yet"
    if not SHARED.intersection(names):
        better = [
            why for region in stats.regions for why in region.fallbacks if names[0] not in why
        ]
        if better:
            said += f". Nothing that processes share was to be had ({'; '.join(better[:3])})"
    return said


def _later(stats: Stats) -> bool:
    """Whether a later start has more, because a copy is still to be made."""
    if PRIVATE.intersection(stats.backing.split("+")):
        return False
    from pyhugetext._stats.sentences import SENTENCES

    told = [region.reason or "" for region in stats.regions]
    told += [why for region in stats.regions for why in region.fallbacks]
    return any(SENTENCES[name] in why for why in told for name in _LATER)


def _advice(stats: Stats, spelled: Callable[[str], str]) -> list[Advice]:
    out = []
    if not stats.active:
        if _settings.current().off:
            out.append(Advice("unset PYHUGETEXT", "turns it on again"))
        out.append(
            Advice(spelled("doctor"), "tries what this machine can do, and says what to mend")
        )
    elif _later(stats):
        out.append(Advice(spelled("warm --all-installed"), "makes all copies now"))
    out += [
        Advice(spelled("status"), "the same of your Python processes that run now"),
        Advice(spelled("bench 'sum(range(999))'"), "whether this runs faster"),
    ]
    if stats.active:
        out.append(Advice(spelled("doctor"), "what this machine can do, in full"))
        out.append(Advice("PYHUGETEXT=0 python ...", "runs a program without it"))
    return [*out, Advice(spelled("--help"), "all commands")]
