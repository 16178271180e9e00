"""What stands before the compiler when several tests build the same sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.common import TESTS

# Counts its calls and fails where the source says so; the output names what it was made from.
COMPILER = """#!/bin/sh
echo called >> "$(dirname "$0")/calls"
while [ "$1" != -o ]; do shift; done
grep -q broken "$4" && exit 3
cat "$4" > "$2"
"""


class Compiler:
    def __init__(self, place: Path) -> None:
        self._place = place
        self._path = place / "c++"
        self._path.write_text(COMPILER)
        self._path.chmod(0o755)

    def sources(self, name: str, text: str = "int f();", header: str = "") -> Path:
        native = self._place / name / "src/native/core"
        native.mkdir(parents=True)
        (native / "f.cpp").write_text(text)
        (native / "f.h").write_text(header)
        return native / "f.cpp"

    def __call__(self, source: Path, target: str = "f.o", *options: str) -> int:
        launcher = (sys.executable, "-IS", TESTS / "support/compile_once.py")
        depends = ("-MD", "-MT", target, "-MF", f"{target}.d")
        command = [*launcher, self._path, *options, *depends, "-o", target, "-c", source]
        environ = {"COMPILE_ONCE": str(self._place), "PATH": "/usr/bin:/bin", "PYHUGETEXT": "0"}
        return subprocess.run(command, cwd=self._place, env=environ, check=False).returncode

    @property
    def calls(self) -> int:
        return len((self._place / "calls").read_text().split())


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path)


def test_same_sources_elsewhere_are_compiled_once(compiler: Compiler, tmp_path: Path) -> None:
    assert compiler(compiler.sources("one"), "one.o") == 0
    assert compiler(compiler.sources("two"), "two.o") == 0
    assert compiler.calls == 1
    assert (tmp_path / "one.o").read_text() == (tmp_path / "two.o").read_text() == "int f();"
    assert (tmp_path / "two.o.d").read_text() == "two.o:\n"


@pytest.mark.parametrize("other", [{"text": "int g();"}, {"header": "int g();"}], ids=str)
def test_other_sources_are_compiled(compiler: Compiler, other: dict[str, str]) -> None:
    compiler(compiler.sources("one"))
    compiler(compiler.sources("two", **other))
    assert compiler.calls == 2


def test_header_that_is_missing_is_another_source(compiler: Compiler) -> None:
    compiler(compiler.sources("one"))
    source = compiler.sources("two")
    source.with_name("f.h").unlink()
    compiler(source)
    assert compiler.calls == 2


def test_place_of_the_language_s_option_makes_no_difference(compiler: Compiler) -> None:
    source = compiler.sources("one")
    compiler(source, "f.o", "-O1", "-std=c++20", "-fPIC")
    compiler(source, "f.o", "-O1", "-fPIC", "-std=c++20")
    assert compiler.calls == 1
    compiler(source, "f.o", "-O1", "-fPIC", "-std=c++17")
    assert compiler.calls == 2


def test_name_of_the_place_it_is_built_in_makes_no_difference(compiler: Compiler) -> None:
    """Of which nothing is in an object that is made from elsewhere: each interpreter has one."""
    source = compiler.sources("one")
    for place in ("build/cp311", "build/cp312"):
        compiler(source, "f.o", f"-ffile-prefix-map=/{place}=build")
    assert compiler.calls == 1


def test_other_options_are_another_object(compiler: Compiler) -> None:
    source = compiler.sources("one")
    compiler(source, "f.o", "-O1")
    compiler(source, "f.o", "-O2")
    assert compiler.calls == 2


def test_failure_is_passed_on_and_not_kept(compiler: Compiler) -> None:
    source = compiler.sources("one", "broken")
    assert compiler(source) == compiler(source) == 3
    assert compiler.calls == 2


def test_what_cmake_asks_the_compiler_is_always_asked(compiler: Compiler) -> None:
    source = compiler.sources("one")
    for _ in range(2):
        assert compiler(source, "cmTC_12345.o") == 0
    assert compiler.calls == 2
