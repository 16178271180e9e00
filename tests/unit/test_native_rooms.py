"""What a room of src/native may include: its README.md says so, and so do the folders themselves."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from support.common import ROOT

NATIVE = ROOT / "src/native"
CORE = {"kernel", "words", "elf", "limits", "store", "text", "process", "builder"}

# What is needed to compile, and nothing at run time.
FREESTANDING = re.compile(r"(asm|linux)/[\w.]+|std(def|int)\.h|elf\.h|fcntl\.h|new")
PYTHON = re.compile(r"Python\.h|pybind11/.*")


def rooms(native: Path) -> list[str]:
    return sorted(path.name for path in native.iterdir() if path.is_dir())


def allowed(native: Path) -> dict[str, set[str]]:
    """For each room, the rooms that its README.md lets it include."""
    out = {}
    for room in rooms(native):
        first, _, last = (native / room / "README.md").read_text().strip().partition("\n\n")
        assert first.endswith("."), f"{room}/README.md: what may it touch?"
        assert last.startswith("Includes: "), f"{room}/README.md: which rooms does it include?"
        out[room] = set(re.findall(r"`(\w+)`", last))
    return out


def breaches(native: Path) -> list[str]:
    """Each include against a rule, as a sentence with file, line and rule."""
    may = allowed(native)
    found = []
    for room in may:
        for path in sorted((native / room).iterdir()):
            if path.suffix not in (".h", ".cpp"):
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                here = f"{room}/{path.name}:{number}"
                if match := re.match(r'#include "([^"]+)"', line):
                    other, _, name = match[1].rpartition("/")
                    if not other:
                        found.append(f"{here}: {name} is included without its room")
                    elif other != room and other not in may[room]:
                        rule = ", ".join(sorted(may[room])) or "nothing"
                        found.append(f"{here}: {room} includes {other}; it may include {rule}")
                    if name == "sys_write.h" and room not in ("kernel", "builder", "preload"):
                        found.append(f"{here}: {room} writes; only builder and preload may")
                elif match := re.match(r"#include <([^>]+)>", line):
                    if PYTHON.fullmatch(match[1]) and room != "module":
                        found.append(
                            f"{here}: {room} includes {match[1]}; only module knows Python"
                        )
                    elif path.name == "uapi.h":
                        pass  # numbers, of whatever header has them
                    elif room in CORE and not FREESTANDING.fullmatch(match[1]):
                        found.append(f"{here}: {room} includes {match[1]}, of the C library")
                elif room in ("elf", "words") and re.search(r"\bsys::[a-z]\w*\(", line):
                    found.append(f"{here}: {room} makes a system call; it may not")
    return found


def circle(may: dict[str, set[str]]) -> list[str]:
    """Rooms that nothing can be built below: each includes another one of them."""
    left = dict(may)
    while ready := [room for room, others in left.items() if not others & set(left)]:
        for room in ready:
            del left[room]
    return sorted(left)


def test_each_room_includes_what_it_may() -> None:
    assert breaches(NATIVE) == []


def test_rooms_know_each_other_in_one_direction_only() -> None:
    may = allowed(NATIVE)
    assert set().union(*may.values()) <= set(may), "a room that is not there"
    assert circle(may) == []


def test_no_room_allows_more_than_it_takes() -> None:
    for room, others in allowed(NATIVE).items():
        text = "".join(path.read_text() for path in sorted((NATIVE / room).glob("*.[hc]*")))
        direct = set(re.findall(r'#include "(\w+)/', text))
        # What is below what it includes comes with it.
        reached = direct.union(*(allowed(NATIVE)[other] for other in direct - {room}))
        assert others <= reached, f"{room}/README.md allows {sorted(others - reached)}"


@pytest.mark.parametrize(
    ("name", "line", "sentence"),
    [
        (
            "elf/plan.cpp",
            '#include "text/swap.h"',
            "elf includes text; it may include kernel, words",
        ),
        ("text/swap.cpp", "#include <stdlib.h>", "text includes stdlib.h, of the C library"),
        (
            "engine/lock.cpp",
            "#include <Python.h>",
            "engine includes Python.h; only module knows Python",
        ),
        (
            "store/store.cpp",
            '#include "kernel/sys_write.h"',
            "store writes; only builder and preload may",
        ),
        ("elf/plan.cpp", "long n = sys::now();", "elf makes a system call; it may not"),
        ("words/status.h", '#include "types.h"', "types.h is included without its room"),
    ],
)
def test_breach_is_told_with_file_line_and_rule(
    tmp_path: Path, name: str, line: str, sentence: str
) -> None:
    native = tmp_path / "native"
    shutil.copytree(NATIVE, native)
    path = native / name
    path.write_text(f"{line}\n{path.read_text()}")
    assert breaches(native) == [f"{name}:1: {sentence}"]


def test_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", [".cpp", ".h"])
def test_files_stay_small(suffix: str) -> None:
    for path in NATIVE.rglob(f"*{suffix}"):
        assert len(path.read_text().splitlines()) <= 400, path
