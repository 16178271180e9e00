"""What a program or a library named by its file would have on huge pages, without running it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from pyhugetext import _words
from pyhugetext._settings import Settings
from pyhugetext._units import HUGE
from pyhugetext.cli import installed
from pyhugetext.programs import libraries, looking
from pyhugetext.programs.looking import Program


class Object(NamedTuple):
    """An object of a program. Sizes in bytes."""

    path: str  # the real one, as the kernel tells it
    program: bool  # not loaded by the dynamic linker but by the kernel
    text: int
    coverable: int  # where `bias` is None that of one place of many
    bias: int | None  # load bias modulo 2 MiB; None: another one at each start
    excluded: bool  # by the settings, or too small for them
    error: str = ""  # why nothing is known of it


def of(program: Program, environ: Mapping[str, str], settings: Settings) -> list[Object]:
    """A program and the libraries that it has from its start on; or a library and those."""
    paths = (os.path.realpath(program.path), *libraries.of(program.path, environ).paths)
    started = bool(program.dynamic.position_independent)
    return [_look(path, started and not number, settings) for number, path in enumerate(paths)]


def _look(path: str, position_independent: bool, settings: Settings) -> Object:
    none = Object(path, position_independent, 0, 0, None, False)
    try:
        with open(path, "rb", opener=installed.no_wait) as file:
            fd = file.fileno()
            head = installed.read_head(fd)
            if head is None:
                return none._replace(error="it is no ELF object of this machine")
            text = sum(load.end - load.start for load in head.loads if load.executable)
            bias = installed.bias_of(head, head.loads[0].offset)
            coverable = installed.coverable(head, fd, os.fstat(fd).st_size, bias)
            if position_independent:
                # The kernel goes by what its segments ask for, whatever the file system.
                aligned = max(load.align for load in head.loads) >= HUGE
            else:
                aligned = head.fixed or installed.comes_aligned(head, fd)
    except (OSError, ValueError) as error:
        return none._replace(error=_words.reason(error))
    excluded = not fits(path, settings) or coverable < settings.min_text
    program = position_independent or head.fixed
    return Object(path, program, text, coverable, bias if aligned else None, excluded)


def fits(path: str, settings: Settings) -> bool:
    """Whether the settings' patterns let an object be moved."""
    if any(fnmatchcase(path, pattern) for pattern in settings.exclude):
        return False
    return not settings.include or any(fnmatchcase(path, p) for p in settings.include)


def is_moved_by_kernel(path: str) -> bool:
    """Whether it is a program whose address is another one at each start."""
    program = looking.look(path, {})
    return program.path == path and program.dynamic.position_independent
