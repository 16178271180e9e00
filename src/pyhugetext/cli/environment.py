"""What an environment has of large objects: the interpreter, its library, what is installed, and what
these load of the system's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from pyhugetext._settings import Settings
from pyhugetext.cli import installed
from pyhugetext.image import alignment, trial
from pyhugetext.image.record import Records
from pyhugetext.image.trial import Imported

# Of the standard library, what brings large libraries of the system's with it.
_STANDARD = ("ssl", "sqlite3", "lzma", "ctypes")
# What puts all others at their addresses is not touched.
_C_LIBRARY = re.compile(r"ld-(linux|musl|\d).*|libc\.so.*|libc-\d.*")


class Found(NamedTuple):
    """The objects of an environment: by path, whether it is a program; the modules to import."""

    objects: dict[str, bool]
    modules: list[str]
    records: Records


def find(settings: Settings) -> Found:
    """The objects that can be found without loading any, and what is to be imported to see them."""
    roots = installed.roots()
    records = Records(roots)
    objects: dict[str, bool] = {}
    modules: set[str] = set()
    for item in installed.shared_objects(roots, settings.min_text):
        path = os.path.realpath(item.path)
        if not _is_wanted(path, settings):
            continue
        objects[path] = False
        modules.update(_modules(item.path, roots, records))
    return Found(objects, [*_STANDARD, *sorted(modules)], records)


def named(names: Iterable[str], settings: Settings) -> dict[str, str]:
    """Programs, by path, and why one cannot be prepared; empty where it can. NotStartable, Missing."""
    from pyhugetext.programs import looking, preload

    library = preload.path()
    programs = {}
    for name in names:
        program = looking.look(looking.find(name, os.environ), os.environ, library)
        path = os.path.realpath(program.file)
        why = program.why_not
        if program.path != program.file:
            why = f"it is a script, and {program.path} is the program"
        elif not why and (not program.dynamic.interpreter or _is_c_library(path)):
            why = "it is no program that a dynamic linker loads"
        if not why and not _is_large(path, settings):
            why = "it has less coverable text than PYHUGETEXT_MIN_TEXT"
        programs[path] = why
    return programs


def look(found: Found, settings: Settings, label: Callable[[str], None]) -> Imported:
    """Imports the modules, and adds the program and the libraries that are loaded then."""
    label("importing what is installed")
    imported = _import(found, {"PYHUGETEXT": "0"}, remap=False)
    program = os.path.realpath("/proc/self/exe")
    for path in (program, *imported.files):
        path = os.path.realpath(path)
        if path in found.objects or _is_c_library(path):
            continue
        if path.startswith("/") and _is_wanted(path, settings) and _is_large(path, settings):
            found.objects[path] = path == program
    return imported


def prepared(found: Found) -> Imported:
    """Imports the modules in a process that uses what is prepared, and builds nothing."""
    return _import(found, {"PYHUGETEXT_BUILD": "never"}, remap=True)


def _import(found: Found, settings: dict[str, str], remap: bool) -> Imported:
    kept = ("STORE", "BACKING", "MIN_TEXT", "INCLUDE", "EXCLUDE", "PRIVATE_LIMIT")
    environ = trial.environment(*(f"PYHUGETEXT_{name}" for name in kept))
    # Bytecode that an installer did not make is not this command's to put into a layer.
    environ.update(settings, PYTHONDONTWRITEBYTECODE="1")
    imported = trial.import_all(found.modules, environ, remap)
    # A python may be without these.
    failures = {k: v for k, v in imported.failures.items() if k not in _STANDARD}
    return imported._replace(failures=failures)


def _is_wanted(path: str, settings: Settings) -> bool:
    def fits(patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in patterns)

    return not fits(settings.exclude) and (not settings.include or fits(settings.include))


def _is_c_library(path: str) -> bool:
    return _C_LIBRARY.fullmatch(os.path.basename(path)) is not None


def _is_large(path: str, settings: Settings) -> bool:
    try:
        with open(path, "rb") as file:
            fd = file.fileno()
            head = installed.read_head(fd)
            if head is None:
                return False
            bias = alignment.ask(fd, head).bias
            size = os.fstat(fd).st_size
            return installed.coverable(head, fd, size, bias) >= max(settings.min_text, 1)
    except OSError:
        return False


def _modules(path: str, roots: list[str], records: Records) -> Iterable[str]:
    """What is imported to have an installed object loaded: the package that it lies in, or those of
    the distribution that brought it (`pillow.libs`)."""
    for root in roots:
        if not path.startswith(root + "/"):
            continue
        top, _, rest = path[len(root) + 1 :].partition("/")
        name = top if rest else top.partition(".")[0]
        if name.isidentifier():
            return (name,)
        distribution = records.of(os.path.realpath(path))
        if distribution is not None:
            return distribution.modules
        name = name.partition(".")[0]
        return (name,) if name.isidentifier() else ()
    return ()
