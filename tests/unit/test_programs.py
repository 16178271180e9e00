"""Programs as files: the libraries that they need, and what kind they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyhugetext.programs import libraries, looking, preload
from support.common import tool

LISTED = re.compile(r"=> (/.*) \(0x[0-9a-f]+\)$", re.M)


def linked(program: str, **env: str) -> set[str]:
    """What the dynamic linker itself would load."""
    linker = looking.look(program, os.environ).dynamic.interpreter
    done = subprocess.run(
        [linker, "--list", os.path.realpath(program)],
        env={**os.environ, **env}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {os.path.realpath(path) for path in LISTED.findall(done.stdout)}


@pytest.mark.parametrize("name", ["bash", "git", "gdb", "perl", "node", "java", "clang", "python3"])
def test_libraries_are_those_of_the_dynamic_linker(name: str) -> None:
    program = looking.look(tool(name), os.environ)
    if program.why_not or "ld-linux" not in program.dynamic.interpreter:
        pytest.skip(f"{name} is not loaded by glibc's linker here")
    found = libraries.of(program.path, os.environ)
    linker = os.path.realpath(program.dynamic.interpreter)
    assert set(found.paths) == linked(program.path) - {linker}
    assert found.missing == ()


def library(directory: Path, name: str, *options: str) -> Path:
    directory.mkdir(exist_ok=True, parents=True)
    source = directory / f"{name}.c"
    source.write_text(f"int {name}(void) {{ return 0; }}\n")
    path = directory / f"lib{name}.so"
    subprocess.run(
        [tool("cc", "gcc", "clang"), "-shared", "-fPIC", "-Wl,--no-as-needed", "-o", str(path),
         str(source), *options],
        check=True,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("tag", ["--enable-new-dtags", "--disable-new-dtags"])
def test_run_paths_and_origin(tmp_path: Path, tag: str) -> None:
    inner = library(tmp_path / "inner", "inner")
    # The linker resolves it by a path of this library alone, or of what needs it.
    outer = library(
        tmp_path / "outer",
        "outer",
        f"-Wl,{tag},-rpath,$ORIGIN/../inner",
        f"-L{inner.parent}",
        "-linner",
    )
    main = tmp_path / "main.c"
    main.write_text("int outer(void); int main(void) { return outer(); }\n")
    program = tmp_path / "main"
    subprocess.run(
        [tool("cc", "gcc", "clang"), "-o", str(program), str(main), f"-L{outer.parent}", "-louter",
         f"-Wl,{tag},-rpath,$ORIGIN/outer", f"-Wl,-rpath-link,{inner.parent}"],
        check=True,
    )  # fmt: skip
    found = libraries.of(str(program), {})
    assert {str(inner), str(outer)} <= set(found.paths)
    assert found.missing == ()
    outer.unlink()
    assert libraries.of(str(program), {}).missing == ("libouter.so",)
    elsewhere = library(tmp_path / "elsewhere", "outer")
    given = libraries.of(str(program), {"LD_LIBRARY_PATH": str(elsewhere.parent)})
    assert str(elsewhere) in given.paths


def test_broken_files_have_no_libraries(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    image = Path(os.path.realpath(sys.executable)).read_bytes()[:8192]
    for cut in (0, 3, 16, 63, 64, 100, 500, 4096, len(image)):
        broken.write_bytes(image[:cut])
        libraries.of(str(broken), {})
        looking.look(str(broken), {})
    os.mkfifo(tmp_path / "fifo")
    assert looking.look(str(tmp_path / "fifo"), {}).why_not


def test_scripts_are_followed(tmp_path: Path) -> None:
    def script(name: str, line: str) -> str:
        path = tmp_path / name
        path.write_text(f"{line}\n")
        path.chmod(0o755)
        return str(path)

    shell = tool("sh")
    environ = {"PATH": os.path.dirname(shell)}
    assert looking.look(script("a", f"#! {shell} -e"), environ).path == shell
    assert looking.look(script("b", "#!/usr/bin/env -S A=b sh -e"), environ).path == shell
    assert looking.look(script("c", "exit 3"), environ).path == "/bin/sh"
    python = looking.look(script("d", f"#!{sys.executable} -I"), environ)
    assert python.python
    assert looking.look(script("e", f"#!{tmp_path}/e"), environ).why_not
    assert looking.look(script("f", "#!/usr/bin/env no-such-command"), environ).why_not
    data = tmp_path / "data"
    data.write_text("no program")
    assert looking.look(str(data), environ).why_not == "it is neither a program nor a library"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "/p/libpyhugetext_preload.so"),
        ("a.so b.so", "/p/libpyhugetext_preload.so:a.so:b.so"),
        ("a.so:/q/libpyhugetext_preload.so", "/p/libpyhugetext_preload.so:a.so"),
        (":: :", "/p/libpyhugetext_preload.so"),
    ],
)
def test_preload_list(before: str, after: str) -> None:
    assert preload.joined(before, "/p/libpyhugetext_preload.so") == after
