"""What is told once, and what two languages have to say alike."""

from __future__ import annotations

import math
import re

import pytest

from pyhugetext import _backing, _boot, _native, _settings
from pyhugetext._units import HUGE, PAGE
from pyhugetext.doctor.process import ROOM_TO_BUILD
from pyhugetext.process import files
from support.common import ROOT
from support.facts import NATIVE, VARIABLES, strings

PACKAGE = ROOT / "src" / "pyhugetext"


def test_backings_are_those_of_the_core():
    assert _native.BACKINGS[: len(_backing.NAMES)] == _backing.NAMES[: len(_native.BACKINGS)]
    for name in _backing.ALLOWED:
        asked = _boot.settings([f"PYHUGETEXT_BACKING={name}".encode()])
        assert asked["backing"] == _backing.NUMBERS[name]
    assert set(_backing.LABELS) == set(_backing.NAMES) - {"auto"}


def test_private_backings_are_those_of_the_core():
    told = " ".join(path.read_text() for path in NATIVE.rglob("*.h"))
    found = re.search(r"bool is_private\(Backing \w+\) {(.*?)}", told, re.DOTALL)
    assert found
    assert set(re.findall(r"Backing::(\w+)", found[1])) == _backing.PRIVATE
    assert set(_backing.LADDER) == _backing.PRIVATE | _backing.SHARED
    assert not _backing.PRIVATE & _backing.SHARED


@pytest.mark.parametrize("name", _settings.BUILDING)
def test_ways_of_building_are_those_of_the_core(name):
    asked = _boot.settings([f"PYHUGETEXT_BUILD={name}".encode()])
    assert _settings.BUILDING[asked["building"]] == name


def test_settings_are_those_of_the_core():
    unlimited = _boot.settings([b"PYHUGETEXT_PRIVATE_LIMIT=unlimited"])
    assert unlimited["private_limit"] == _settings.NO_LIMIT
    assert set(_settings.Settings.__slots__) == set(_boot.settings([])) - {"debug"}
    assert strings("settings.h", "kVariables") == tuple(sorted(VARIABLES))


def test_the_path_of_the_systems_store_is_told_once():
    files = (*PACKAGE.rglob("*.py"), *NATIVE.rglob("*.h"), *NATIVE.rglob("*.cpp"))
    told = [file.name for file in files if '"/var/cache/pyhugetext"' in file.read_text()]
    assert told == ["settings.h"]


def test_without_a_native_part_nothing_is_asked_for(monkeypatch):
    monkeypatch.setattr(_settings, "_boot", None)
    found = _settings.Settings()
    assert (found.off, found.backing, found.building) == (False, "auto", "never")
    assert (found.store, found.include, found.problems) == (None, (), ())


def test_pages_are_those_of_the_core():
    told = " ".join(path.read_text() for path in NATIVE.rglob("*.h"))
    assert f"kPageSize = {PAGE};" in told
    found = re.search(r"kHugeSize = ([^;]+);", told)
    assert found
    assert math.prod(int(factor) for factor in re.findall(r"\d+", found[1])) == HUGE


def test_numbers_of_the_core_are_said_again_as_they_are():
    told = " ".join(path.read_text() for end in ("h", "cpp") for path in NATIVE.rglob(f"*.{end}"))
    room = re.search(r"kRoomToBuild = (\d+)ul << (\d+);", told)
    assert room
    assert int(room[1]) << int(room[2]) == ROOM_TO_BUILD
    ways = re.search(r"enum class Way : u8 {(.*?)};", told, re.DOTALL)
    assert ways
    names = re.findall(r"^\s*(\w+),", ways[1], re.MULTILINE)
    assert [names[files._LINK], names[files._INSIDE], names[files._CACHED]] == [
        *("link", "inside", "cached")
    ]


# What only one file may hold.
ONCE = {
    "the size of a huge page": (r"\b2 << 20\b|\b2097152\b|\b1 << 21\b", "_units.py"),
    "a file system's magic number": (r"0x01021994|0x794C7630|0xEF53", "doctor/storage.py"),
    "the names of errors": (r"errorcode", "_words.py"),
    "perf_event_open": (r"open_counter\(|perf_event_attr", "measure/counters.py"),
    "a program in a string": (r'"-c"', "children/runner.py"),
    "reading program headers": (r"_native\.read_head\(|\bPT_LOAD\b.* = ", "process/elf.py"),
    "the list of backings": (r'"shm", "memfd", "thp", "hugetlb"', "_backing.py"),
}


@pytest.mark.parametrize("fact", ONCE)
def test_fact_is_told_once(fact):
    pattern, home = ONCE[fact]
    told = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(pattern, path.read_text())
    }
    assert told == {home}


# The same of the native part: where it may be, which is nowhere for what the kernel's headers have.
NATIVE_ONCE = {
    "the sign of an errno": (r"-E[A-Z]{3,}\b|<u16>\(-", {"kernel/error_or.h"}),
    "a number of the kernel's": (
        r"#define (?:__NR|HWCAP2|MADV|MAP|MFD|MREMAP|PAGE|PR|PROT|RESOLVE|STATX)_",
        {"kernel/uapi.h"},
    ),
    "a file system's magic number": (r"(?i)0x(?:0?1021994|794c7630|0*27e0eb|63677270)\b", set()),
    "the type of a file": (r"\b01[024]0000\b|\b0*40000\b|\b0170000\b", set()),
}


@pytest.mark.parametrize("fact", NATIVE_ONCE)
def test_fact_of_the_kernel_is_told_once(fact):
    pattern, homes = NATIVE_ONCE[fact]
    files = [path for path in NATIVE.rglob("*") if path.suffix in (".cpp", ".h")]
    told = {
        path.relative_to(NATIVE).as_posix()
        for path in files
        if re.search(pattern, path.read_text())
    }
    assert told == homes
