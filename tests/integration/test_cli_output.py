"""What every command has in common: where its output goes, what a terminal shows, how it ends."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import pyhugetext
from pyhugetext.cli import text
from support.cli import Cli, assert_one_sentence, on_terminal
from support.store import require_huge_disk

# Tests have the same names in every process that runs some of them, so this stands for its PID.
OURS = "OURS"
# Of which each prints more than a line, in ways of its own.
COMMANDS = [
    ("store", "path"),
    ("store", "list"),
    ("status", OURS),
    ("status", OURS, "--json"),
    ("completion", "bash"),
    (),
]
# argparse prints these; unbuffered, some versions of it ignore errors.
HELP = [("--help",), ("--version",), ("bench", "--help")]
OUTPUTS = pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [*((one, "") for one in HELP + COMMANDS), *((one, "1") for one in COMMANDS)],
    ids=str,
)


def run_into(cli: Cli, output: int | None, *arguments: str, **env: str) -> tuple[int, str]:
    """With stdout to that descriptor, closed for None: exit status, and what is on stderr."""
    words = [str(os.getpid()) if word == OURS else word for word in arguments]
    process = subprocess.run(
        [sys.executable, "-m", "pyhugetext", *words],
        env=cli.environment(**env),
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=(lambda: os.close(1)) if output is None else None,
    )
    return process.returncode, process.stderr


@OUTPUTS
def test_output_on_a_full_disk_is_one_sentence(
    cli: Cli, arguments: tuple[str, ...], unbuffered: str
) -> None:
    with open("/dev/full", "w") as full:
        status, errors = run_into(cli, full.fileno(), *arguments, PYTHONUNBUFFERED=unbuffered)
    assert status == 1
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("pyhugetext")
    assert errors.endswith("No space left on device\n")


@OUTPUTS
def test_reader_that_has_seen_enough_is_no_complaint(
    cli: Cli, arguments: tuple[str, ...], unbuffered: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run_into(cli, writer, *arguments, PYTHONUNBUFFERED=unbuffered) == (1, "")
    finally:
        os.close(writer)


@pytest.mark.parametrize("arguments", HELP + COMMANDS, ids=" ".join)
def test_closed_output_is_one_sentence(cli: Cli, arguments: tuple[str, ...]) -> None:
    status, errors = run_into(cli, None, *arguments)
    assert (status, errors) == (1, "pyhugetext: the standard output is closed\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("status", "0"), 2),
        (("status", "4194303"), 1),
        (("store", "burn"), 2),
        (("completion", "bash"), 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_exit_status_is_right_where_stderr_takes_nothing(
    cli: Cli, arguments: tuple[str, ...], expected: int, unbuffered: str
) -> None:
    environ = cli.environment(PYTHONUNBUFFERED=unbuffered)
    for redirection in ("2>/dev/full", "2>&-"):
        command = f'"$@" >/dev/null {redirection}'
        words = ["sh", "-c", command, "sh", sys.executable, "-m", "pyhugetext", *arguments]
        assert subprocess.run(words, env=environ, check=False).returncode == expected


def test_interrupted_import_of_the_command_line_is_no_traceback(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt")
    result = cli("store", "path", PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("status",),
        ("doctor",),
        ("store", "list"),
        ("warm",),
        ("bench", "1"),
        ("report", "x.html"),
    ],
    ids=" ".join,
)
def test_without_the_native_part_the_sentence_says_so(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    package = Path(pyhugetext.__file__).parent
    shutil.copytree(package, tmp_path / "pyhugetext", ignore=shutil.ignore_patterns("*.so"))
    result = subprocess.run(
        [sys.executable, "-S", "-m", "pyhugetext", *arguments],
        cwd=tmp_path,
        env=Cli(tmp_path / "store").environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    name = " ".join(("pyhugetext", *arguments[:1]))
    assert_one_sentence(result, f"{name}: no native part: no wheel with one was found")


# The terminal


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[str]]:
    """What `warm` shows while the import of a module takes a while, each in surroundings of its own.
    All at once, since they sleep."""
    place = tmp_path_factory.mktemp("slow")
    require_huge_disk(place)
    (place / "slow.py").write_text("import time; time.sleep(2.5)")
    (place / "without").mkdir()
    (place / "without/rich.py").write_text("raise ImportError('not here')")

    def on(terminal: str, path: str = str(place)) -> str:
        store = place / f"{terminal} {len(path)}"
        return on_terminal(Cli(store), "warm", "slow", PYTHONPATH=path, TERM=terminal)

    def on_none() -> str:
        return Cli(place / "none")("warm", "slow", PYTHONPATH=str(place)).stderr

    with ThreadPoolExecutor() as pool:
        return {
            "without rich": pool.submit(on, "xterm", f"{place}/without:{place}"),
            "with rich": pool.submit(on, "xterm"),
            "dumb": pool.submit(on, "dumb"),
            "no terminal": pool.submit(on_none),
        }


def test_progress_is_a_line_without_rich(shown: dict[str, Future[str]]) -> None:
    text = shown["without rich"].result()
    assert "\rimporting slow (" in text
    assert text.endswith("\r\x1b[K")


def test_progress_is_a_bar_with_rich(shown: dict[str, Future[str]]) -> None:
    pytest.importorskip("rich", reason="rich is not installed")
    assert "importing slow" in shown["with rich"].result()


@pytest.mark.parametrize("where", ["dumb", "no terminal"])
def test_nothing_is_drawn_where_it_cannot_be(shown: dict[str, Future[str]], where: str) -> None:
    assert shown[where].result() == ""


def test_watching_on_a_terminal_that_cannot_redraw_prints_tables(cli: Cli) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pyhugetext", "status", str(os.getpid()), "--watch=0.1"],
        env=cli.environment(TERM="dumb"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while shown.count(b"coverable text") < 2:
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    os.close(ours)
    assert b"\x1b" not in shown


# Text


def test_sizes_and_ages_read_well() -> None:
    sizes = [0, 1023, 1024, 351_479_398, 5 << 30, 1 << 50]
    assert [text.size(size) for size in sizes] == [
        "0 B", "1023 B", "1.0 KiB", "335.2 MiB", "5.0 GiB", "1024.0 TiB",
    ]  # fmt: skip
    ages = [0.2, 59, 60, 7200, 3 * 86400 + 5]
    assert [text.age(age) for age in ages] == ["now", "59 s", "1 min", "2 h", "3 d"]


def test_tables_fit_the_terminal_and_survive_any_path() -> None:
    rows = [("1 B", "/" + "x" * 100 + "/name.so"), ("1023.0 KiB", "/evil\n\x1b[31m\udcff")]
    lines = text.table(("size", "object"), rows, "rp", 60)
    assert max(map(len, lines)) <= 60
    assert lines[1].endswith("name.so")
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)
