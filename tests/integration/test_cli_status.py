"""pyhugetext status: what it shows, how it watches, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.cli import coverage
from pyhugetext.cli.commands import status
from support.cli import (
    AS_STRANGER,
    Cli,
    assert_one_sentence,
    make_library,
    need_for_others,
    need_root,
    need_tool,
    started,
)
from support.inspecting import FIGURES, Target, figures, running
from support.layouts import skip_unless_huge

LOAD = "import ctypes, sys; library = ctypes.CDLL(sys.argv[1])"


@pytest.fixture
def target(compile_library: Callable[..., Path]) -> Iterator[Target]:
    """A process with a library on huge pages."""
    skip_unless_huge("memfd")
    library = make_library(compile_library)
    env = {"PYHUGETEXT_BACKING": "memfd"}
    with running(LOAD, str(library), **env) as found:
        found.ask("import pyhugetext; pyhugetext.remap()")
        yield found


def test_json_is_what_the_process_says_of_itself(cli: Cli, target: Target) -> None:
    document = cli.json("status", str(target.pid))
    (process,) = document["processes"]
    own = target.ask()
    assert figures(process) == figures(own)
    assert process["kernel"] == own["kernel"]
    assert (process["pid"], process["uid"], process["python"]) == (target.pid, os.geteuid(), True)
    assert "ctypes" in process["command"]
    assert document["unreadable"] == []
    assert document["total"]["processes"] == 1
    for name in FIGURES[:5]:
        assert document["total"][name] == own[name]
    assert abs(document["time"] - time.time()) < 600


def test_keys_are_those_of_the_manual(cli: Cli, target: Target) -> None:
    manual = status.MANUAL.partition("keys of --json:")[2].partition("examples:")[0]
    documented = set(re.findall(r"[a-z_]+", manual))
    document = cli.json("status", str(target.pid))
    (process,) = document["processes"]
    keys = {*document, *process, *process["kernel"], *process["regions"][0], *document["total"]}
    assert keys - documented == set()


def test_table_has_a_bar_for_each_object(cli: Cli, target: Target) -> None:
    result = cli("status", str(target.pid))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"process {target.pid} (user ")
    header = next(line for line in lines if line.startswith("object"))
    assert header.split()[1:] == [
        *("text", "coverable", "mapped", "huge", "private", "backing", "coverage")
    ]
    (mine,) = [line for line in lines if line.startswith("libf.so")]
    assert mine.endswith("#" * 20 + " 100 %")
    assert " memfd " in mine
    (total,) = [line for line in lines if line.startswith("total")]
    assert re.search(r"[#=-]{20} +\d+ %$", total)
    assert lines[-1] == coverage.LEGEND
    # Aligned, and without a control character.
    assert len({line.index(" memfd ") for line in lines if " memfd " in line}) == 1
    assert "\x1b" not in result.stdout


def test_without_arguments_my_python_processes_are_shown(cli: Cli, target: Target) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        document = cli.json("status")
        sleeper.kill()
    pids = [process["pid"] for process in document["processes"]]
    assert target.pid in pids
    assert os.getpid() in pids  # pytest
    assert sleeper.pid not in pids
    assert {process["uid"] for process in document["processes"]} == {os.geteuid()}
    result = cli("status")
    assert f"process {target.pid} (user " in result.stdout


def test_all_has_a_line_for_each_process(cli: Cli, target: Target) -> None:
    result = cli("status", "--all")
    assert result.returncode == 0, result.stderr
    header, *lines = result.stdout.splitlines()
    assert header.split()[:3] == ["pid", "user", "command"]
    (mine,) = [line for line in lines if line.split()[0] == str(target.pid)]
    assert " memfd " in mine
    assert re.search(r"[#=-]{20} +\d+ %$", mine)
    assert any(re.match(r"\d+ process(es)?: .* coverable, ", line) for line in lines)
    document = cli.json("status", "--all")
    assert target.pid in [process["pid"] for process in document["processes"]]
    others = [one for one in document["processes"] if not (one["python"] or one["preloaded"])]
    assert all(process["backing"] != "none" for process in others)


def test_all_tells_what_could_not_be_read(cli: Cli, target: Target) -> None:
    need_root()
    need_tool("setpriv")
    need_for_others(os.path.realpath(sys.executable))
    cli.prefix = AS_STRANGER
    result = cli("status", "--all")
    assert result.returncode == 0, result.stderr
    assert re.search(
        r"^not read: \d+ process(es)? \(another user's; root may read it\)$", result.stdout, re.M
    )
    unreadable = cli.json("status", "--all")["unreadable"]
    (mine,) = [one for one in unreadable if one["pid"] == target.pid]
    assert "belongs to user 0" in mine["reason"]
    # Without --all those of others are not asked for.
    assert "another user's" not in cli("status").stdout


def test_program_that_is_not_python_has_a_note(cli: Cli) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        time.sleep(0.1)
        result = cli("status", str(sleeper.pid))
        (process,) = cli.json("status", str(sleeper.pid))["processes"]
        sleeper.kill()
    assert result.returncode == 0
    assert "note: it does not run Python" in result.stdout
    assert process["python"] is False
    assert process["text_bytes"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0"], ["'0' is no process id"]),
        (["-1"], ["'-1' is no process id"]),
        (["abc"], ["'abc' is no process id"]),
        (["9" * 40], ["is no process id"]),
        (["\N{ARABIC-INDIC DIGIT ONE}"], ["is no process id"]),
        (["1", ""], ["'' is no process id"]),
        (["--all", "1"], ["not both"]),
        (["--watch", "0", "1"], ["--watch", "seconds"]),
        (["1", "--watch", "soon"], ["--watch", "'soon'"]),
        (["1", "--watch", "nan"], ["--watch", "'nan'"]),
        (["--watch", "12345"], ["process ids go before it"]),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], words: list[str]) -> None:
    result = cli("status", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert_one_sentence(result, *words)


def test_process_that_cannot_be_shown(cli: Cli, target: Target) -> None:
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    result = cli("status", str(zombie.pid))
    assert result.returncode == 1
    assert_one_sentence(result, "zombie")
    zombie.wait()
    result = cli("status", str(zombie.pid))
    assert result.returncode == 1
    assert_one_sentence(result, f"there is no process {zombie.pid}")
    # The others are shown all the same.
    result = cli("status", str(zombie.pid), str(target.pid))
    assert result.returncode == 1
    assert_one_sentence(result, f"there is no process {zombie.pid}")
    assert f"process {target.pid} (user " in result.stdout
    document = cli.json("status", str(zombie.pid), str(target.pid), status=1)
    assert [one["pid"] for one in document["unreadable"]] == [zombie.pid]
    assert [one["pid"] for one in document["processes"]] == [target.pid]


def test_kernel_thread(cli: Cli) -> None:
    stat = Path("/proc/2/stat")
    if not stat.exists() or "(kthreadd)" not in stat.read_text():
        pytest.skip("no kernel thread is to be seen here")
    result = cli("status", "2")
    assert result.returncode == 1
    assert_one_sentence(result, "process 2 (kthreadd)")


def test_names_cannot_drive_the_terminal(cli: Cli, compile_library: Callable[..., Path]) -> None:
    evil = "\x1b[2J\r\n\N{RIGHT-TO-LEFT OVERRIDE}"
    library = compile_library("int f(void) { return 1; }", name="libevil\x1b[31m\r.so")
    with running(LOAD, str(library), evil, PYHUGETEXT="0") as target:
        for arguments in ([str(target.pid)], ["--all"]):
            output = cli("status", *arguments).stdout
            assert "\\x1b" in output
            for character in ("\x1b", "\r", "\N{RIGHT-TO-LEFT OVERRIDE}"):
                assert character not in output
        (process,) = cli.json("status", str(target.pid))["processes"]
        assert evil.splitlines()[0] in process["command"]


def watching(
    cli: Cli, *arguments: str, **options: Any
) -> AbstractContextManager[subprocess.Popen[str]]:
    """`status` while it watches, a process that ends with the block."""
    command = (sys.executable, "-m", "pyhugetext", "status", *arguments)
    env = cli.environment(**options.pop("env", {}))
    return started(command, env=env, stderr=subprocess.PIPE, **options)


def test_watch_prints_a_json_document_a_line(cli: Cli, target: Target) -> None:
    with watching(cli, "--json", str(target.pid), "--watch", "0.1") as process:
        assert process.stdout
        assert process.stderr
        documents = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == ""
    times = [document["time"] for document in documents]
    assert times == sorted(times)
    assert all(d["processes"][0]["pid"] == target.pid for d in documents)


def test_watch_separates_tables_by_an_empty_line(cli: Cli, target: Target) -> None:
    with watching(cli, str(target.pid), "--watch=0.1") as process:
        assert process.stdout
        lines: list[str] = []
        while lines.count(coverage.LEGEND) < 3:
            lines.append(process.stdout.readline().rstrip("\n"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    first = lines.index(coverage.LEGEND)
    assert lines[first + 1] == ""
    assert lines[first + 2] == lines[0]


def test_watch_ends_with_the_process(cli: Cli) -> None:
    with (
        running(PYHUGETEXT="0") as target,
        watching(cli, "--json", str(target.pid), "--watch=0.1") as process,
    ):
        assert process.stdout
        assert process.stderr
        assert json.loads(process.stdout.readline())["total"]["processes"] == 1
        target.process.kill()
        target.process.wait()
        *_, last = process.stdout.read().splitlines() or [""]
        assert process.wait(30) == 0
        assert re.search(f"process {target.pid}( is gone)?", process.stderr.read())
        assert not last or json.loads(last)["total"]["processes"] == 1


def test_watch_of_what_is_not_there_fails(cli: Cli) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    result = cli("status", str(gone.pid), "--watch")
    assert result.returncode == 1
    assert_one_sentence(result, f"there is no process {gone.pid}")


def test_reader_who_has_seen_enough(cli: Cli, target: Target) -> None:
    with watching(cli, "--json", str(target.pid), "--watch=0.1") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == ""
        process.stdout = None


def on_terminal(cli: Cli, columns: int, *arguments: str, until: str, **env: str) -> str:
    """What is written to a terminal until a text was seen three times, then Ctrl-C."""
    import fcntl
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **env}
    output = b""
    with watching(cli, *arguments, stdout=side, stdin=side, env=env) as process:
        os.close(side)
        deadline = time.monotonic() + 60
        while output.count(until.encode()) < 3 and time.monotonic() < deadline:
            ready, _, _ = select.select([main], [], [], 1)
            if ready:
                try:
                    output += os.read(main, 65536)
                except OSError:
                    break
            elif process.poll() is not None:
                break
        process.send_signal(signal.SIGINT)
        # Emptied, lest the command waits for its reader.
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            if select.select([main], [], [], 0.1)[0]:
                try:
                    output += os.read(main, 65536)
                except OSError:
                    break
        assert process.wait(30) == 130
        assert process.stderr
        assert process.stderr.read() == ""
    os.close(main)
    return output.decode()


WITHOUT_RICH = """
    import sys
    class Hidden:
        def find_spec(self, name, *rest):
            if name == "rich" or name.startswith("rich."):
                raise ImportError(name)
    sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.parametrize("rich", [True, False])
def test_terminal_is_drawn_anew_in_place(
    cli: Cli, target: Target, tmp_path: Path, rich: bool
) -> None:
    env = {}
    if rich:
        pytest.importorskip("rich")
    else:
        (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(WITHOUT_RICH))
        env["PYTHONPATH"] = str(tmp_path)
    arguments = (str(target.pid), "--watch=0.1")
    seen = on_terminal(cli, 120, *arguments, until="Ctrl-C ends it", **env)
    assert seen.count("\x1b[H") >= 3
    assert seen.count("\x1b[2J") == 1
    assert ("\x1b[32m####" in seen) == rich
    plain = on_terminal(cli, 120, *arguments, until="Ctrl-C ends it", NO_COLOR="1", **env)
    assert "\x1b[32m" not in plain
    assert "####" in plain


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_narrow_terminal(cli: Cli, target: Target, columns: int) -> None:
    arguments = (str(target.pid), "--watch=0.1")
    seen = on_terminal(cli, columns, *arguments, until="\x1b[J")
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", seen).replace("\r", "")
    assert all(len(line) <= columns for line in text.split("\n"))
    assert "libf.so" in text
    if columns >= 80:
        assert re.search("libf.so .* memfd .*###.* 100 %", text)


def test_bar_shows_what_is_huge_now_and_what_will_be() -> None:
    assert coverage.bar(0, 0, 0, 0, 10) == ""
    assert coverage.bar(100, 0, 0, 0, 10) == "-" * 10 + "   0 %"
    assert coverage.bar(100, 100, 200, 200, 10) == "#" * 10 + " 100 %"
    assert coverage.bar(100, 100, 200, 100, 10) == "#" * 5 + "=" * 5 + " 100 %"
    assert coverage.bar(1000, 999, 1000, 1000, 10) == "#" * 10 + "  99 %"
    assert coverage.bar(100, 50, 50, 0, 0) == "50 %"
    assert coverage.bar(100, 100, 200, 100, 10, 20) == "#" * 5 + "~" + "=" * 4 + "  90 %"
    assert coverage.bar(100, 100, 200, 199, 10, 1) == "#" * 9 + "~ 100 %"
    assert coverage.bar(100, 100, 200, 0, 10, 200) == "~" * 10 + "   0 %"


def test_manual_is_complete(cli: Cli) -> None:
    result = cli("status", "--help")
    assert result.returncode == 0
    for part in ("columns", "keys of --json:", "examples:", "exit status:", "--watch", "--all"):
        assert part in result.stdout
