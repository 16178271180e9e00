"""The rooms of the Python half: what a file may touch is seen from its folder, and a test holds it.

The sentence at the top of a room's `__init__.py` says the same in words.
"""

from __future__ import annotations

import ast
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.common import ROOT
from support.rooms import Reference, broken_arrows, circles, circular

PACKAGE = ROOT / "src" / "pyhugetext"

# What one knows without asking anybody: names, sizes, words.
FACTS = ("pyhugetext._backing", "pyhugetext._units", "pyhugetext._words")
BINDING = ("pyhugetext._boot", "pyhugetext._native")

# The first that fits a module is its room.
ROOMS = (
    *((name, "binding") for name in BINDING),
    *((name, "facts") for name in FACTS),
    ("pyhugetext._settings", "settings"),
    ("pyhugetext._stats", "_stats"),
    ("pyhugetext._api", "public functions"),
    ("pyhugetext.__main__", "command line"),
    ("pyhugetext.cli.main", "command line"),
    ("pyhugetext.cli.commands", "commands"),
    ("pyhugetext.cli.reporting", "reporting"),
    ("pyhugetext.cli", "cli"),
    *(
        (f"pyhugetext.{n}", n)
        for n in ("process", "programs", "store", "children", "image", "measure", "doctor")
    ),
    ("pyhugetext.metrics", "metrics"),
    ("pyhugetext", "public functions"),
)

_WORDS = ("binding", "facts", "settings", "_stats")
_READING = (*_WORDS, "process", "programs", "store")
_ABOVE = (*_READING, "public functions", "children", "measure")
TABLE = {
    "binding": (),
    "facts": (),
    "settings": ("binding", "facts"),
    "_stats": ("binding", "facts"),
    "process": ("binding", "facts", "_stats"),
    "programs": ("binding", "facts", "_stats", "process"),
    "store": ("binding", "facts", "settings"),
    "public functions": _WORDS,
    "metrics": ("public functions", "_stats"),
    "children": (*_READING, "public functions"),
    "image": ("binding", "facts", "process", "children"),
    "measure": (*_WORDS, "programs", "public functions", "children"),
    "doctor": _ABOVE,
    "cli": (*_ABOVE, "image", "doctor"),
    "reporting": (*_ABOVE, "doctor", "cli"),
    "commands": (*_ABOVE, "image", "doctor", "cli", "reporting"),
    "command line": (*_ABOVE, "cli", "commands"),
}

# What may be imported by what a start, or `import pyhugetext`, brings in; by function, "" for what
# is imported with the module. All else is imported when somebody asks for it.
_QUICK = {"errno", "os", "sys", "collections.abc", "__future__"}
AT_START = {
    "pyhugetext": {"": set(), "_start": {"os", "pyhugetext._boot"}},
    "pyhugetext._settings": {"": {"os", *BINDING, *FACTS}},
    "pyhugetext._api": {"": {*_QUICK, *BINDING, *FACTS, "pyhugetext._settings", "_stats"}},
    **{name: {"": _QUICK} for name in FACTS},
}


class Import(NamedTuple):
    """An import statement's one name."""

    line: int
    target: str  # the module that it brings in
    function: str  # in which it stands; "" where in none
    types: bool  # for type checkers only


def modules(package: Path) -> dict[str, Path]:
    """The modules of a package by name, stubs of native ones included."""
    found = {}
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """All of a module, those inside functions and for type checkers included."""

    def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        if node.level:
            raise AssertionError(f"{path}:{node.lineno}: imports are written in full here")
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in known else str(node.module)

    def walk(node: ast.AST, function: str, types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                for target in targets(child):
                    yield Import(child.lineno, target, function, types)
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from walk(child, function or child.name, types)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                yield from walk(ast.Module(child.body, []), function, True)
                yield from walk(ast.Module(child.orelse, []), function, types)
            else:
                yield from walk(child, function, types)

    yield from walk(ast.parse(path.read_text()), "", False)


def room_of(module: str) -> str:
    return next(r for name, r in ROOMS if module == name or module.startswith(f"{name}."))


def broken(package: Path = PACKAGE) -> list[str]:
    """A sentence for each broken rule."""
    known = modules(package)
    out: list[str] = []
    references = []
    for name, path in known.items():
        file = f"src/{path.relative_to(package.parent)}"
        found = list(imports(path, known))
        references += [
            Reference(file, one.line, name, one.target)
            for one in found
            if one.target.partition(".")[0] == package.name
        ]
        out += [f"{file}:{sentence}" for sentence in _at_start(name, found)]
        if path.name == "__init__.py" and path.parent != package:
            out += [f"{file}:{sentence}" for sentence in _door(path, found)]
    out += broken_arrows(references, room_of, TABLE)
    out += circles(references)
    out += [
        f"{one.place}: {one.target} is another command; what two of them share lies above them"
        for one in references
        if room_of(one.source) == room_of(one.target) == "commands" and one.source != one.target
    ]
    return out


def _at_start(name: str, found: list[Import]) -> Iterator[str]:
    for one in found:
        allowed = AT_START.get(name, {}).get(one.function)
        if allowed is None or one.types or one.target in allowed:
            continue
        if one.target.startswith("pyhugetext.") and room_of(one.target) in allowed:
            continue
        words = ", ".join(sorted(allowed)) or "nothing"
        yield f"{one.line}: imports {one.target}; what a start brings in may import here: {words}"


def _door(path: Path, found: list[Import]) -> Iterator[str]:
    """What is wrong with the `__init__.py` of a room."""
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
    if " may touch " not in first:
        yield "1: does not say what the room may touch; its first sentence has to"
    for one in found:
        yield f"{one.line}: imports {one.target}; the door of a room imports nothing"


def test_every_module_keeps_to_its_room():
    assert broken() == []


def test_arrows_of_the_table_lead_down():
    assert circular(TABLE) == []


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        (
            "_settings.py",
            "from pyhugetext.cli import text",
            "{}: pyhugetext.cli.text is in the room cli; the room settings may touch: "
            "binding, facts",
        ),
        (
            "process/proc.py",
            "def f():\n    import pyhugetext",
            "{}: pyhugetext is in the room public functions; the room process may touch: "
            "binding, facts, _stats",
        ),
        (
            "store/places.py",
            "from pyhugetext.store import upkeep",
            "{}, src/pyhugetext/store/upkeep.py:10: the circle pyhugetext.store.places -> "
            "pyhugetext.store.upkeep -> pyhugetext.store.places; none is allowed",
        ),
        (
            "_api.py",
            "import pyhugetext",
            "src/pyhugetext/__init__.py:10, {}: the circle pyhugetext -> pyhugetext._api -> "
            "pyhugetext; none is allowed",
        ),
        (
            "__init__.py",
            "import dataclasses",
            "{}: imports dataclasses; what a start brings in may import here: nothing",
        ),
        (
            "__init__.py",
            "def _start():\n    import typing",
            "{}: imports typing; what a start brings in may import here: os, pyhugetext._boot",
        ),
        (
            "_backing.py",
            "import asyncio",
            "{}: imports asyncio; what a start brings in may import here: "
            "__future__, collections.abc, errno, os, sys",
        ),
        (
            "doctor/__init__.py",
            "from pyhugetext.doctor import check",
            "{}: imports pyhugetext.doctor.check; the door of a room imports nothing",
        ),
        (
            "cli/commands/doctor.py",
            "from pyhugetext.cli.commands import warm",
            "{}: pyhugetext.cli.commands.warm is another command; what two of them share lies "
            "above them",
        ),
    ],
)
def test_broken_rule_is_told_with_file_line_and_rule(tmp_path, file, line, sentence):
    copy = tmp_path / "pyhugetext"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    text = (copy / file).read_text()
    (copy / file).write_text(f"{text}{line}\n")
    at = text.count("\n") + line.count("\n") + 1
    assert sentence.format(f"src/pyhugetext/{file}:{at}") in broken(copy)


def test_room_that_does_not_say_what_it_may_touch_is_told(tmp_path):
    copy = tmp_path / "pyhugetext"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (copy / "store" / "__init__.py").write_text('"""Stores."""\n')
    sentence = "does not say what the room may touch; its first sentence has to"
    assert broken(copy) == [f"src/pyhugetext/store/__init__.py:1: {sentence}"]


def test_no_room_takes_the_place_of_a_public_function():
    # Importing a submodule sets the attribute of its name on the package.
    public = set(importlib.import_module("pyhugetext").__all__)
    assert not public & {name.partition(".")[2] for name in modules(PACKAGE)}


def test_no_file_is_longer_than_400_lines():
    longer = {
        name: len(path.read_text().splitlines())
        for name, path in modules(PACKAGE).items()
        if len(path.read_text().splitlines()) > 400
    }
    assert longer == {}


def test_import_of_the_package_brings_in_nothing_else(python):
    code = """
        import json, os, sys
        before = set(sys.modules)
        import pyhugetext
        first = sorted(set(sys.modules) - before)
        import pyhugetext._settings
        print(json.dumps([first, sorted(set(sys.modules) - before)]))
    """
    first, second = json.loads(python(code).stdout)
    assert set(first) <= {"pyhugetext"}
    assert set(second) <= {
        *("pyhugetext", "pyhugetext._backing", "pyhugetext._boot", "pyhugetext._settings")
    }
