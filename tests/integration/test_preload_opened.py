"""Libraries that a preloaded program opens later, and what dlsym() still means to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.common import HUGE, big_sum, tool
from support.preloaded import SOURCES, Ended, Preloaded, programs

SUM = f"sum {big_sum(7, 500)}\n"

# What each case opens of libbig.so is on huge pages at its end.
OPENING = ("plain", "errors", "namespaces", "versions", "closing", "handler", "threads")


@pytest.fixture
def run(tmp_path: Path, huge_memfd: None) -> Preloaded:
    return Preloaded(tmp_path)


def both(run: Preloaded, *command: str | Path, preload: str = "", **env: str) -> Ended:
    """Runs a program of ours with the library, after it said the same without."""
    place = programs()
    words = (place / "program", *command, place)
    plain = run.plain(*words)
    assert plain.status not in (98, 99), plain
    if plain.status == 77:
        pytest.skip("not possible here")
    ended = run(*words, preload=preload, PYHUGETEXT_BACKING="memfd", **env)
    assert ended.said() == plain.said()
    return ended


@pytest.mark.parametrize("case", OPENING)
def test_opened_library_is_covered_and_the_program_says_the_same(run: Preloaded, case: str) -> None:
    region = both(run, case).region("libbig.so")
    assert region["backing"] == "memfd", region
    assert region["mapped_bytes"] >= region["coverable_bytes"] - HUGE > 0


@pytest.mark.parametrize("case", ["runpath", "next", "local"])
def test_names_mean_what_they_mean_to_the_caller(run: Preloaded, case: str) -> None:
    both(run, case)


def test_program_says_what_it_should(run: Preloaded) -> None:
    place = programs()
    assert run.plain(place / "program", "plain", place).said() == (3, SUM, "constructor\n")
    told = run.plain(place / "program", "next", place).stdout
    assert told == "value 105\nbehind this program 105\n"
    told = run.plain(place / "program", "local", place).stdout
    assert told == "seen from within 51\nseen from here 0\nof libc 1\n"
    told = run.plain(place / "program", "runpath", place).stdout
    assert told == "by the caller's RUNPATH 41\nnot by ours 1\n"


def test_filter_that_kills_for_swapping_kills_nobody_when_it_comes_later(run: Preloaded) -> None:
    ended = both(run, "filtered")
    assert ended.status == 4
    assert ended.region("libbig.so")["mapped_bytes"] == 0


def test_process_that_locked_itself_up_may_still_ask_for_functions(run: Preloaded) -> None:
    ended = both(run, "locked")
    assert (ended.status, ended.stdout) == (7, "locked\n")


def test_program_that_does_not_tell_debuggers_what_is_loaded(
    run: Preloaded, tmp_path: Path
) -> None:
    tool("ld.lld")
    program, place = tmp_path / "program", programs()
    behind = ("-Wl,--no-as-needed", f"-L{place}", "-lfirst", "-lsecond", f"-Wl,-rpath,{place}")
    command = [tool("clang", "gcc"), "-fuse-ld=lld", "-Wl,-z,rodynamic", "-w", "-o", program]
    subprocess.run([*command, SOURCES / "program.c", *behind, "-pthread"], check=True, stdout=2)
    for case in ("plain", "next"):
        words = (program, case, place)
        assert run(*words).said() == run.plain(*words).said()
        assert run.plain(*words).status in (0, 3)


def test_daemon_is_served_and_reports_too(run: Preloaded) -> None:
    ended = both(run, "daemon")
    covered = [
        report for report in ended.reports.values()
        if any(r["path"].endswith("libbig.so") and r["mapped_bytes"] for r in report["regions"])
    ]  # fmt: skip
    assert len(covered) == 1
    assert len(ended.reports) >= 2


def test_children_are_as_without(run: Preloaded) -> None:
    ended = both(run, "child")
    assert len(ended.reports) == 2
    for report in ended.reports.values():
        assert any(r["path"].endswith("libbig.so") and r["mapped_bytes"] for r in report["regions"])


def test_child_of_a_process_with_threads_waits_for_no_thread_that_it_has_not(
    run: Preloaded,
) -> None:
    ended = both(run, "listed")
    assert f"in the child {2 * 3 + 1}" in ended.stdout
    # What the child knows was known when it was forked.
    assert len(ended.reports) == 2
    # And what threads of the program's ask for is not held by them in a child.
    assert both(run, "forks").stdout == "wrong 0\n"


@pytest.mark.parametrize("other", ["liballocator.so", "libiterator.so"])
@pytest.mark.parametrize("first", [True, False])
def test_interposer_that_asks_dlsym_neither_recurses_nor_waits(
    run: Preloaded, other: str, first: bool
) -> None:
    beside = str(programs() / other)
    order = f"{beside}:{{library}}" if first else f"{{library}}:{beside}"
    for case in ("plain", "threads"):
        ended = both(run, case, preload=order)
        assert ended.region("libbig.so")["mapped_bytes"] > 0
