"""pyhugetext completion, in the shells it is for."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cli import Cli, need_tool

pytestmark = pytest.mark.quick

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = ""

    def type(self, keys: str) -> None:
        self.seen = ""
        os.write(self.fd, keys.encode())

    def expect(self, word: str) -> None:
        """Reads until the word is on the screen."""
        end = time.monotonic() + 30
        while word not in self.seen:
            assert time.monotonic() < end, f"no {word!r} in {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
                self.seen = _ESCAPES.sub("", self.seen)


@contextmanager
def terminal(directory: Path, *command: str) -> Iterator[Terminal]:
    """A shell at a prompt `ready>` in the directory."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(directory)
        environ = {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": str(directory)}
        os.execvpe(command[0], command, {**environ, "PS1": "ready>", "COLUMNS": "400"})
    try:
        shell = Terminal(fd)
        shell.expect("ready>")
        yield shell
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
}


@pytest.mark.parametrize("name", list(SHELLS))
def test_keys_are_completed(cli: Cli, tmp_path: Path, name: str) -> None:
    need_tool(name)
    script = tmp_path / "script"
    script.write_text(cli("completion", name).stdout)
    (tmp_path / "measured-by-me.json").write_text("")
    with terminal(tmp_path, *SHELLS[name]) as shell:
        shell.type(f"source {shlex.quote(str(script))}; echo do''ne\n")
        shell.expect("done")
        for typed, completed in (
            ("pyhugetext comp\t", "completion "),
            ("pyhugetext store --js\t", "--json "),
            ("pyhugetext store ver\t", "verify "),
            ("pyhugetext report --be\t", "--bench"),
            ("pyhugetext report --bench meas\t", "measured-by-me.json"),
            ("pyhugetext report meas\t", "measured-by-me.json"),
        ):
            shell.type(typed)
            shell.expect(completed)
            shell.type("\x15echo ne''xt\n")  # clear the line
            shell.expect("next")


def test_bash_answers_what_is_asked(cli: Cli, tmp_path: Path) -> None:
    need_tool("bash")
    script = tmp_path / "script"
    script.write_text(cli("completion", "bash").stdout)

    def complete(*words: str) -> list[str]:
        code = (
            f"source {shlex.quote(str(script))}; COMP_WORDS=({' '.join(map(shlex.quote, words))}); "
            f"COMP_CWORD={len(words) - 1}; _pyhugetext; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        result = subprocess.run(
            ["bash", "--norc", "-c", code], capture_output=True, text=True, check=True
        )
        assert result.stderr == ""
        return result.stdout.split()

    assert {"report", "store", "warm", "status", "completion"} <= set(complete("pyhugetext", ""))
    assert complete("pyhugetext", "rep") == ["report"]
    assert set(complete("pyhugetext", "--")) == {"--help", "--version"}
    assert "--import" in complete("pyhugetext", "report", "--")
    assert complete("pyhugetext", "report", "") == []  # files, by the shell itself
    assert str(os.getpid()) in complete("pyhugetext", "report", "--pid", "")
    assert str(os.getpid()) in complete("pyhugetext", "status", "")
    assert complete("pyhugetext", "store", "--json", "l") == ["list"]
    assert complete("pyhugetext", "completion", "") == ["bash", "zsh", "fish"]
    assert "bash" in complete("pyhugetext", "warm", "--", "bas")
    assert "--" in complete("pyhugetext", "warm", "--")


def test_fish_answers_what_is_asked(cli: Cli, tmp_path: Path) -> None:
    need_tool("fish")
    script = tmp_path / "script"
    script.write_text(cli("completion", "fish").stdout)
    (tmp_path / "measured-by-me.json").write_text("")

    def complete(line: str) -> list[str]:
        code = f"source {shlex.quote(str(script))}; complete -C {shlex.quote(line)}"
        result = subprocess.run(
            ["fish", "--no-config", "-c", code],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "dumb"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stderr == ""
        return [one.split("\t")[0] for one in result.stdout.splitlines()]

    assert {"report", "store", "warm", "status"} <= set(complete("pyhugetext "))
    assert complete("pyhugetext rep") == ["report"]
    assert "--import" in complete("pyhugetext report --")
    assert "measured-by-me.json" in complete("pyhugetext report --bench meas")
    assert "measured-by-me.json" in complete("pyhugetext report meas")
    assert str(os.getpid()) in complete("pyhugetext report --pid ")
    assert complete("pyhugetext store l") == ["list"]
    assert set(complete("pyhugetext completion ")) == {"bash", "zsh", "fish"}


@pytest.mark.parametrize("arguments", [(), ("tcsh",), ("bash", "zsh")])
def test_an_unknown_shell_is_wrong_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli("completion", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
