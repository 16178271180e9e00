"""pyhugetext run: the command as it would be without, and what is said where it is not covered."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import AS_STRANGER, Cli, assert_one_sentence, need_root, public_directory
from support.common import clean_environment, tool

ON = {"PYHUGETEXT": "1"}
LIBRARY = "libpyhugetext_preload.so"


def run(cli: Cli, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return cli("run", *arguments, **{**ON, **env})


def library(cli: Cli) -> str:
    result = cli("preload-path")
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.rstrip("\n")


@pytest.mark.quick
def test_path_of_the_library(cli: Cli) -> None:
    path = Path(library(cli))
    assert path.is_absolute()
    assert path.name == LIBRARY
    assert path.read_bytes().startswith(b"\x7fELF")


@pytest.mark.quick
@pytest.mark.parametrize("status", [0, 1, 7, 126, 255])
def test_exit_status_is_the_commands(cli: Cli, status: int) -> None:
    result = run(cli, "--", "sh", "-c", f"exit {status}")
    assert (result.returncode, result.stdout, result.stderr) == (status, "", "")


def test_signals_are_the_commands(cli: Cli) -> None:
    assert run(cli, "--", "sh", "-c", "kill -9 $$").returncode == -signal.SIGKILL
    # What Python ignores for itself is not handed on.
    shown = run(cli, "--", "sh", "-c", "grep SigIgn /proc/self/status").stdout
    plain = subprocess.run(
        ["sh", "-c", "grep SigIgn /proc/self/status"], capture_output=True, text=True, check=True
    ).stdout
    assert shown == plain


def test_input_environment_and_process_are_the_commands(cli: Cli) -> None:
    environ = {"PATH": os.environ["PATH"], "PYHUGETEXT_STORE": str(cli.store), "A": "b c"}
    # No locale: Python would set one for itself.
    process = subprocess.run(
        [sys.executable, "-m", "pyhugetext", "run", "--", "sh", "-c", "cat; env | sort"],
        input="given\n", env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    given, *rest = process.stdout.splitlines()
    assert given == "given"
    found = dict(line.split("=", 1) for line in rest if "=" in line)
    for name in ("PWD", "OLDPWD", "SHLVL", "_"):
        found.pop(name, None)
    assert found == {**environ, "LD_PRELOAD": library(cli)}


@pytest.mark.quick
def test_library_stands_first_and_once(cli: Cli) -> None:
    path = library(cli)
    shown = ["--", "sh", "-c", "echo $LD_PRELOAD"]
    with_other = run(cli, *shown, LD_PRELOAD="libm.so.6").stdout.rstrip("\n")
    assert with_other == f"{path}:libm.so.6"
    again = run(cli, *shown, LD_PRELOAD=f"libm.so.6 {path}").stdout.rstrip("\n")
    assert again == with_other


@pytest.mark.quick
def test_what_cannot_be_started_has_the_status_of_a_shell(cli: Cli, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("exit 3\n")
    for name, status, words in (
        ("there-is-no-such-command", 127, "no such command"),
        (str(tmp_path / "none"), 127, "no such command"),
        (str(plain), 126, "cannot be executed"),
        (str(tmp_path), 126, "directory"),
    ):
        result = run(cli, "--", name)
        assert result.returncode == status, result.stderr
        assert_one_sentence(result, name, words)
    # What has no first line that names an interpreter is the shell's.
    plain.chmod(0o755)
    assert run(cli, "--", str(plain)).returncode == 3
    broken = tmp_path / "broken"
    broken.write_text("#!/there/is/none\n")
    broken.chmod(0o755)
    assert run(cli, "--", str(broken)).returncode == 126


@pytest.mark.quick
def test_closed_output_is_the_commands(cli: Cli) -> None:
    words = [sys.executable, "-m", "pyhugetext", "run", "--", "sh", "-c", "exit 5"]
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *words]
    assert subprocess.run(command, env=cli.environment(**ON), check=False).returncode == 5


@pytest.mark.quick
def test_wrong_usage(cli: Cli) -> None:
    for arguments in ((), ("--",), ("--backing", "best", "--", "true"), ("true",)):
        assert run(cli, *arguments).returncode == 2


def test_options_become_settings_and_the_report_is_written(cli: Cli, tmp_path: Path) -> None:
    cat = tool("cat")
    report = tmp_path / "report-%p.json"
    result = run(
        cli, "--backing", "memfd", "--include", "*/one*", "--include", "*/two", "--exclude", "*x*",
        "--report", str(report), "--", cat, "/proc/self/environ",
    )  # fmt: skip
    environ = dict(entry.split("=", 1) for entry in result.stdout.split("\0") if entry)
    assert environ["PYHUGETEXT_BACKING"] == "memfd"
    assert environ["PYHUGETEXT_INCLUDE"] == "*/one*:*/two"
    assert environ["PYHUGETEXT_EXCLUDE"] == "*x*"
    (written,) = tmp_path.glob("report-*.json")
    told = json.loads(written.read_text())
    assert f"report-{told['pid']}.json" == written.name
    assert told["command"] == os.path.realpath(cat)
    assert told["settings_problems"] == []


def not_covered(cli: Cli, *command: str) -> str:
    """Runs what is not covered, and returns what is said about it."""
    result = run(cli, "--", *command)
    assert result.returncode == 0, result.stderr
    assert_one_sentence(result, "will not be covered: ")
    return result.stderr


def build(source: Path, *options: str) -> str:
    source.write_text("int main(void) { return 0; }\n")
    program = source.with_suffix("")
    done = subprocess.run(
        [tool("cc", "gcc", "clang"), *options, "-o", str(program), str(source)],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"the compiler cannot link with {' '.join(options)} here")
    return str(program)


def test_static_program_is_run_and_said_not_to_be_covered(cli: Cli, tmp_path: Path) -> None:
    program = build(tmp_path / "static.c", "-static")
    assert "linked statically" in not_covered(cli, program)
    independent = build(tmp_path / "independent.c", "-static-pie", "-fPIE")
    assert "linked statically" in not_covered(cli, independent)
    script = tmp_path / "script"
    script.write_text(f"#!{program}\n")
    script.chmod(0o755)
    assert f"{script} is run by {program}" in not_covered(cli, str(script))


def test_program_of_musl_is_told(cli: Cli, tmp_path: Path) -> None:
    tool("patchelf")
    program = build(tmp_path / "other.c")
    linker = subprocess.run(
        ["patchelf", "--print-interpreter", program], capture_output=True, text=True, check=True
    ).stdout.strip()
    if "ld-linux" not in linker:
        pytest.skip("this machine's C library is not glibc")
    # No musl is needed to see which one is asked for.
    musl = tmp_path / "ld-musl-x86_64.so.1"
    shutil.copy(linker, musl)
    subprocess.run(["patchelf", "--set-interpreter", str(musl), program], check=True)
    said = not_covered(cli, program)
    assert "musl" in said
    assert "glibc" in said


def test_program_of_another_kind_is_told(cli: Cli, tmp_path: Path) -> None:
    program = Path(build(tmp_path / "kind.c"))
    image = bytearray(program.read_bytes())
    for name, at, value, words in (
        ("narrow", 4, b"\x01", "32-bit"),
        ("foreign", 18, b"\xf3\x00", "another processor (riscv)"),
    ):
        other = tmp_path / name
        other.write_bytes(bytes([*image[:at], *value, *image[at + len(value) :]]))
        other.chmod(0o755)
        result = run(cli, "--", str(other))
        assert words in result.stderr


def test_program_with_more_rights_is_told(cli: Cli) -> None:
    need_root()
    with public_directory() as directory:
        program = Path(build(directory / "rights.c"))
        program.chmod(0o755 | stat.S_ISUID)
        # Root's own: no more rights than it has.
        assert run(cli, "--", str(program)).stderr == ""
        code = (
            "from pyhugetext.programs import looking; import os; "
            f"print(looking.look({str(program)!r}, os.environ).why_not)"
        )
        setpriv = [tool("setpriv"), *AS_STRANGER[1:]]
        done = subprocess.run(
            [*setpriv, sys.executable, "-c", code],
            env=clean_environment(PYHUGETEXT="0"), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip("an ordinary user cannot run this interpreter")
        assert "more rights than its caller" in done.stdout


def test_opt_out_binds(cli: Cli) -> None:
    result = run(cli, "--", "true", PYHUGETEXT="0")
    assert result.returncode == 0
    assert_one_sentence(result, "turns it off")


def test_python_runs_one_engine(cli: Cli, tmp_path: Path) -> None:
    code = "import json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"
    result = run(cli, "--", sys.executable, "-c", code)
    assert (result.returncode, result.stderr) == (0, "")
    stats = json.loads(result.stdout)
    assert stats["active"], stats["reason"]
    main = max(stats["regions"], key=lambda region: region["coverable_bytes"])
    assert main["mapped_bytes"] > 0


def test_warm_first(disk: Cli, tmp_path: Path) -> None:
    cli = disk
    report = tmp_path / "report.json"
    arguments = ("--warm", "--report", str(report), "--", sys.executable, "-S", "-c", "pass")
    result = run(cli, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert any(entry["durable"] for entry in cli.entries())


@pytest.mark.quick
def test_shells_complete_the_commands(cli: Cli) -> None:
    script = cli("completion", "bash").stdout
    assert re.search(r"value='[^']*\bpreload-path [^']*\brun\b", script)
    assert "--report) value='files'" in script
    assert re.search(r"warm\)\n.* --'\n(.*\n)*? *\*\) value='files'", script)
