"""Which file a command starts, and whether the preload library comes into it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from collections.abc import Mapping
from typing import NamedTuple

from pyhugetext import _words
from pyhugetext._stats.kernel import fields_of
from pyhugetext.process import elf
from pyhugetext.programs import dynamic
from pyhugetext.programs.dynamic import Dynamic

_MOST_SCRIPTS = 5  # interpreters that are scripts themselves; as the kernel has it
_FIRST_LINE = 256  # bytes of a script that the kernel looks at
_SHELL = "/bin/sh"  # runs what is neither a program nor a script, as execvp(3) has it
_PYTHON = re.compile(r"python[23]?(\.[0-9]+)?t?d?")
_LOADER = re.compile(r"ld(-linux|-musl|64|\.so|-[0-9]).*")
_ASSIGNMENT = re.compile(r"\w+=")

# Numbers of ELF's header.
_CLASS_64, _LITTLE, _EXECUTABLE, _SHARED = 2, 1, 2, 3
_MACHINES = {
    3: "x86",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    21: "ppc64",
    22: "s390",
}


class NotStartable(Exception):
    """A command that cannot be started; `status` is a shell's exit status for that."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Program(NamedTuple):
    """What a command starts."""

    file: str  # the file of the command
    path: str  # the program that the kernel starts: the file, or the interpreter of a script
    python: bool  # it is a Python by its name
    why_not: str  # why the preload library does not come into it; empty where it does
    dynamic: Dynamic  # of the program


def find(name: str, environ: Mapping[str, str]) -> str:
    """The file of a command, as a shell finds it. NotStartable."""
    names = [name]
    if "/" not in name:
        directories = environ.get("PATH", os.defpath).split(os.pathsep)
        names = [os.path.join(directory or ".", name) for directory in directories] if name else []
    there = ""
    for path in names:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
        there = there or (path if os.path.lexists(path) else "")
    if not there:
        raise NotStartable(f"{name}: no such command", 127)
    what = "it is a directory" if os.path.isdir(there) else "it cannot be executed"
    if os.path.islink(there) and not os.path.exists(there):
        raise NotStartable(f"{there}: it is a link to nothing", 127)
    raise NotStartable(f"{there}: {what}", 126)


def look(file: str, environ: Mapping[str, str], library: str = "") -> Program:
    """What the kernel starts when it is told to start a file. `library` is the preload library, whose
    C library has to be the program's."""
    path, python = file, False
    try:
        for _ in range(_MOST_SCRIPTS):
            python = python or bool(_PYTHON.fullmatch(os.path.basename(path)))
            following = _interpreter(path, environ)
            if following is None:
                break
            path = following
        else:
            return Program(
                file, path, python, "its interpreters are scripts without end", Dynamic()
            )
        python = python or bool(_PYTHON.fullmatch(os.path.basename(os.path.realpath(path))))
        with open(path, "rb", opener=_no_wait) as opened:
            why_not, found = _judge(opened.fileno(), path, library)
    except NotStartable as error:
        return Program(file, path, python, str(error), Dynamic())
    except OSError as error:
        return Program(file, path, python, f"it cannot be read: {_words.reason(error)}", Dynamic())
    return Program(file, path, python, why_not, found)


def _no_wait(path: str, flags: int) -> int:
    """Opens without waiting for a FIFO's writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _interpreter(path: str, environ: Mapping[str, str]) -> str | None:
    """What runs a script; None of a program. OSError, NotStartable."""
    with open(path, "rb", opener=_no_wait) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotStartable("it is no regular file", 126)
        first = file.read(_FIRST_LINE)
    if first.startswith(b"\x7fELF"):
        return None
    if not first.startswith(b"#!"):
        if not os.access(path, os.X_OK):
            raise NotStartable("it is neither a program nor a library", 126)
        return _SHELL
    words = first[2:].partition(b"\n")[0].split()
    if not words:
        return _SHELL
    interpreter = os.fsdecode(words[0])
    if os.path.basename(interpreter) == "env":
        # It does nothing but start the first word that is neither an option nor a variable.
        for word in map(os.fsdecode, words[1:]):
            if not word.startswith("-") and not _ASSIGNMENT.match(word):
                return find(word, environ)
    return interpreter


def _judge(fd: int, path: str, library: str) -> tuple[str, Dynamic]:
    """Why the preload library does not come into a program, and what that asks for."""
    why_not = _foreign(fd)
    if why_not:
        return why_not, Dynamic()
    head = elf.head_of(fd)
    if head is None:
        return "its headers are those of no program", Dynamic()
    found = dynamic.read(fd, head)
    loader = _LOADER.match(os.path.basename(os.path.realpath(path)))
    alone = head.fixed or found.position_independent  # and no library, which names none either
    if alone and not found.interpreter and not loader:
        return "it is linked statically, and the dynamic linker has no part in it", found
    if _gains_rights(fd):
        reason = "it runs with more rights than its caller (set-user-ID or capabilities)"
        return (
            f"{reason}, and the dynamic linker takes no library from its caller's settings",
            found,
        )
    theirs, ours = _family(found), _family_of_file(library)
    if theirs and ours and theirs != ours:
        return f"its C library is {theirs}, and the preload library is made for {ours}", found
    return "", found


def _foreign(fd: int) -> str:
    """Why the kernel cannot start an ELF file together with a library of ours, by its first bytes."""
    raw = os.pread(fd, 20, 0)
    if len(raw) < 20 or not raw.startswith(b"\x7fELF"):
        return "it is no program"
    if raw[4] != _CLASS_64:
        return "it is a 32-bit program"
    number = struct.unpack("<H" if raw[5] == _LITTLE else ">H", raw[18:20])[0]
    machine = _MACHINES.get(number, f"machine {number}")
    here = os.uname().machine
    if raw[5] != _LITTLE or (here in _MACHINES.values() and machine != here):
        return f"it is made for another processor ({machine})"
    if struct.unpack("<H", raw[16:18])[0] not in (_EXECUTABLE, _SHARED):
        return "it is an object file, and no program"
    return ""


def _gains_rights(fd: int) -> bool:
    """Whether a program runs with other rights than its caller (AT_SECURE)."""
    status = os.fstat(fd)
    with contextlib.suppress(OSError):
        if os.fstatvfs(fd).f_flag & os.ST_NOSUID:
            return False
    if fields_of("/proc/self/status").get("NoNewPrivs", "0") == "1":
        return False
    if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
        return True
    # Without the group's right to execute it means something else.
    both = stat.S_ISGID | stat.S_IXGRP
    if status.st_mode & both == both and status.st_gid != os.getgid():
        return True
    with contextlib.suppress(OSError):
        return bool(os.getxattr(fd, "security.capability")) and os.getuid() != 0
    return False


def _family(found: Dynamic) -> str:
    """The C library that an object wants; empty where it does not say."""
    linker = os.path.basename(found.interpreter)
    if linker.startswith("ld-musl") or any("musl" in name for name in found.needed):
        return "musl"
    glibc = linker.startswith(("ld-linux", "ld64")) or "libc.so.6" in found.needed
    return "glibc" if glibc else ""


def _family_of_file(path: str) -> str:
    try:
        with open(path, "rb", opener=_no_wait) as file:
            head = elf.head_of(file.fileno())
            return _family(dynamic.read(file.fileno(), head)) if head is not None else ""
    except OSError:
        return ""
