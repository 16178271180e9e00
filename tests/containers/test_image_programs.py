"""pyhugetext image --program: a position-independent program that is no Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.common import HUGE, big_sum, tool
from support.image import Environment, aligned, alignments, environment, known
from support.preloaded import preload_library, programs

SUMS = f"sums {big_sum(3, 500)} {big_sum(4, 500)}\n"


@pytest.fixture
def env() -> Iterator[Environment]:
    with environment() as made:
        yield made


def region(env: Environment, program: Path) -> dict[str, object]:
    """What a start of a program comes to with the preload library."""
    report = env.place / "report.json"
    environ = env.cli.environment(
        PYHUGETEXT="", PYHUGETEXT_REPORT=str(report), PYHUGETEXT_BUILD="never",
        LD_PRELOAD=str(preload_library()),
    )  # fmt: skip
    command = [*env.cli.prefix, program]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, SUMS)
    regions = json.loads(report.read_text())["regions"]
    [found] = [one for one in regions if one["path"] == str(program)]
    return found


def test_program_is_prepared_used_at_each_start_and_put_back(
    env: Environment, tmp_path: Path
) -> None:
    program = Path(shutil.copy(programs() / "large-alone", env.place))
    before, _, mtime, mode = known(program)
    assert region(env, program)["backing"] != "store"

    told = env.json("--program", str(program))
    [one] = told["objects"]
    assert (one["alignment"], one["entry"], one["bias"]) == ("aligned", "built", 0)
    assert told["problems"] == []
    now = known(program)
    assert (now[0], now[2:]) == (aligned(before, tmp_path), (mtime, mode))
    assert max(alignments(program)) == HUGE
    for _ in range(4):
        found = region(env, program)
        assert (found["backing"], found["status"]) == ("store", "ok")
        assert found["mapped_bytes"] == found["coverable_bytes"]
    assert env.json("--program", str(program), "--check")["total"]["already"] == 1

    told = env.json("--program", str(program), "--undo")
    assert (told["total"]["undone"], told["total"]["removed"]) == (1, 1)
    assert known(program)[0] == before
    assert known(program)[2:] == (mtime, mode)
    [problem] = env.json("--program", str(program), "--check", status=1)["problems"]
    assert problem == f"{program} is not prepared: it is not aligned"
    assert not env.leftovers()


WAITS = """
#include <unistd.h>
__asm__(".text\\n.skip 3 << 20\\n");
__attribute__((noinline)) int waits(void) { return write(1, "here\\n", 5) + pause(); }
int main(void) { return waits() + 1; }
"""


def test_debugger_names_what_a_prepared_program_does_once_told_where_it_is(
    env: Environment,
) -> None:
    """gdb believes a position-independent program's place only where its headers in memory are the
    file's; docs/any-program.md says how to tell it."""
    gdb, source, program = tool("gdb"), env.place / "waits.c", env.place / "waits"
    source.write_text(WAITS)
    subprocess.run([tool("cc", "gcc"), "-O1", "-pie", "-fPIE", "-o", program, source], check=True)
    env.json("--program", str(program))
    environ = env.cli.environment(PYHUGETEXT="", LD_PRELOAD=str(preload_library()))
    command = [*env.cli.prefix, program]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"here\n"
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            assert re.search(r" r-xp 00000000 .*pyhugetext/v1/objects/\S+/waits$", maps, re.M)
            symbols = f"symbol-file -o 0x{maps.partition('-')[0]} {program}"
            attach = (gdb, "-nx", "-batch", "-p", str(process.pid), "-ex", symbols, "-ex", "bt")
            told = subprocess.run(attach, capture_output=True, text=True, check=False).stdout
        finally:
            process.kill()
    assert re.findall(r"^#\d+ .* in (waits|main) \(\)", told, re.M) == ["waits", "main"], told


def test_program_is_not_run_for_it(env: Environment) -> None:
    source, program = env.place / "mark.c", env.place / "mark"
    source.write_text(
        "#include <stdio.h>\n"
        "__attribute__((constructor)) static void mark(void) {\n"
        f'    fclose(fopen("{env.place}/ran", "w"));\n'
        '}\n__asm__(".text\\n.skip 6 << 20\\n");\nint main(void) { return 0; }\n'
    )
    subprocess.run([tool("cc", "gcc"), "-o", program, source], check=True)
    [one] = env.json("--program", str(program))["objects"]
    assert one["alignment"] == "aligned"
    assert not (env.place / "ran").exists()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("-static-pie",), "it is linked statically, and the dynamic linker has no part in it"),
        (("-shared", "-fPIC"), "it is no program that a dynamic linker loads"),
        (("-pie",), "it has less coverable text than PYHUGETEXT_MIN_TEXT"),
    ],
)
def test_what_would_run_by_itself_or_has_little_text_is_left_alone(
    env: Environment, flags: tuple[str, ...], why: str
) -> None:
    source, program = env.place / "other.c", env.place / "other"
    source.write_text("int main(void) { return 0; }\n")
    command = [tool("cc", "gcc"), "-o", program, source, *flags]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"the compiler cannot link with {' '.join(flags)}")
    before = known(program)
    [problem] = env.json("--program", str(program), status=1)["problems"]
    assert problem == f"{program} cannot be prepared: {why}"
    assert known(program) == before


def test_script_is_not_its_interpreter(env: Environment) -> None:
    script = env.place / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    [problem] = env.json("--program", str(script), status=1)["problems"]
    why = "it is a script, and /bin/sh is the program"
    assert problem == f"{script} cannot be prepared: {why}"


def test_program_with_rights_and_one_with_two_names_are_left(env: Environment) -> None:
    program = Path(shutil.copy(programs() / "large-alone", env.place))
    os.link(program, env.place / "other-name")
    [problem] = env.json("--program", str(program), status=1)["problems"]
    assert "it has 2 names" in problem
    (env.place / "other-name").unlink()
    program.chmod(0o4755)
    [problem] = env.json("--program", str(program), status=1)["problems"]
    assert "set-user-ID" in problem


def test_no_such_program_is_wrong_usage(env: Environment) -> None:
    done = env.image("--program", str(env.place / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such command" in done.stderr
