"""What `pyhugetext image` does to one object after the other, and what it found."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pyhugetext import _backing, _words
from pyhugetext.cli import installed
from pyhugetext.image import alignment, record, rewriting, rights, trial
from pyhugetext.image.alignment import Asked, Patch
from pyhugetext.image.record import Records
from pyhugetext.image.rights import Left

# What became of the alignment of an object: changed now; asked for 2 MiB before; needs none, since its
# address is its own; stays as it is, for a reason; put back; there was nothing to put back.
ALIGNED, ALREADY, FIXED, LEFT, UNDONE, OWN = "aligned", "already", "fixed", "left", "undone", "own"

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class Object:
    """An object of the environment. Sizes in bytes."""

    path: str
    program: bool = False  # the interpreter
    named: bool = False  # a program that somebody named, and no Python
    alignment: str = LEFT
    bias: int = 0  # its load bias modulo 2 MiB, where it comes aligned
    ours: bool = False  # align() may have had it so: no linker makes that
    reason: str = ""  # why it is left
    failed: bool = False  # and that was no decision: no room, no rights
    remark: str = ""  # about its RECORD
    remark_failed: bool = False  # that should have followed, and could not
    # Built, promoted, present, refused; found or missing where nothing is made; None where none was
    # tried.
    entry: str | None = None
    entry_reason: str = ""
    entry_failed: bool = False
    size: int = 0  # of the copy
    written: int = 0
    backing: str | None = None  # in the process that imported; None where it was not loaded there
    huge: int = 0
    private: int = 0
    use_reason: str = ""

    @property
    def prepared(self) -> bool:
        """Whether a container can use an entry of it."""
        return self.alignment in (ALIGNED, ALREADY, FIXED) and self.entry != "refused"

    @property
    def used(self) -> bool | None:
        """Whether the process that imported ran it from what all share; None where it had it not."""
        return None if self.backing is None else self.backing in _backing.SHARED


def align(one: Object, records: Records) -> None:
    """Has an object ask for 2 MiB, where it does not yet and where it may be changed."""
    _each(one, lambda opened: _align(opened, records))


def put_back(one: Object, records: Records) -> None:
    """Has an object ask for what it asked for before align()."""
    _each(one, lambda opened: _put_back(opened, records))


def look(one: Object) -> None:
    """What an object asks for, without changing anything."""
    _each(one, _look)


def judge(one: Object, stats: dict[str, Any] | None) -> None:
    """How a process that imported ran it."""
    for region in (stats or {}).get("regions", ()):
        if os.path.realpath(region["path"]) == one.path:
            one.backing, one.use_reason = region["backing"], region["reason"] or ""
            one.huge, one.private = region["huge_bytes"], region["private_bytes"]


def judge_entry(one: Object) -> None:
    """Whether that process found an entry, where it needed one."""
    if one.prepared and one.backing not in (None, "file"):
        one.entry = "found" if one.used else "missing"


def file_size(one: Object) -> int:
    """Of an object's file; 0 where it is gone."""
    try:
        return os.stat(one.path).st_size
    except OSError:
        return 0


class _Opened:
    """An object's file, in its directory."""

    def __init__(self, one: Object, directory: int, name: str, fd: int) -> None:
        self.one, self.directory, self.name, self.fd = one, directory, name, fd
        head = installed.read_head(fd)
        if head is None:
            raise Left("it is no ELF file of this machine any more")
        self.asked: Asked = alignment.ask(fd, head)
        one.bias = self.asked.bias

    def change(self, patch: Patch, trial_too: bool) -> None:
        """Replaces it. Left, OSError."""
        rights.check_owner(os.fstat(self.fd))
        rights.check_place(self.directory)
        rights.check_signatures(self.fd)
        where = os.path.dirname(self.one.path)

        def check(name: str) -> None:
            if trial_too:
                tried = os.path.join(where, name)
                if self.one.named:
                    trial.load_program(tried)
                else:
                    trial.run(tried) if self.one.program else trial.load(tried)

        rewriting.change(self.directory, self.name, self.fd, patch, check)

    def follow(self, records: Records, change: Patch) -> None:
        """Has its RECORD follow a change that is in the file as it is now."""
        fd = os.open(self.name, _READ, dir_fd=self.directory)
        try:
            before, after = record.digests(fd, change.reverse), record.digests(fd)
            self.one.remark = records.follow(self.one.path, before, after)
        except record.Behind as error:
            self.one.remark, self.one.remark_failed = str(error), True
        finally:
            os.close(fd)


def _each(one: Object, do: Callable[[_Opened], None]) -> None:
    """Does something with the opened file of an object; what is in the way of it is told there."""
    try:
        with rewriting.directory_of(one.path) as (directory, name):
            fd = os.open(name, _READ, dir_fd=directory)
            try:
                do(_Opened(one, directory, name, fd))
            finally:
                os.close(fd)
    except Left as left:
        one.alignment, one.reason, one.failed = LEFT, str(left), left.failed
    except OSError as error:
        one.alignment, one.reason, one.failed = LEFT, _words.reason(error), True


def sweep(paths: Iterable[str]) -> None:
    """Removes what killed runs left in some directories, where that is possible."""
    for path in paths:
        place = os.path.join(path, "")
        with contextlib.suppress(OSError), rewriting.directory_of(place) as (fd, _):
            rewriting.sweep(fd)


def _look(opened: _Opened) -> None:
    states = {alignment.ALIGNED: ALREADY, alignment.FIXED: FIXED}
    opened.one.alignment = states.get(opened.asked.state, LEFT)
    opened.one.ours = opened.asked.state == alignment.ALIGNED and opened.asked.patch is not None
    opened.one.reason = opened.asked.reason
    if opened.asked.state == alignment.CAN:
        opened.one.reason = "it is not aligned"


def _align(opened: _Opened, records: Records) -> None:
    _look(opened)
    asked = opened.asked
    if asked.state == alignment.CAN:
        assert asked.patch is not None
        opened.change(asked.patch, trial_too=True)
        opened.one.alignment, opened.one.reason = ALIGNED, ""
        opened.follow(records, asked.patch)
    elif asked.state == alignment.ALIGNED and asked.patch is not None:
        # A run that was killed may have come to the file and not to its RECORD.
        opened.follow(records, asked.patch.reverse)


def _put_back(opened: _Opened, records: Records) -> None:
    patch = opened.asked.patch
    if opened.asked.state == alignment.CAN and patch is not None:
        opened.one.alignment = OWN
        opened.follow(records, patch.reverse)
    elif opened.asked.state == alignment.ALIGNED and patch is not None:
        opened.change(patch, trial_too=False)
        opened.one.alignment = UNDONE
        opened.follow(records, patch)
    else:
        opened.one.alignment = OWN
