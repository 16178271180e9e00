"""Programs without Python: what of their text is on huge pages, from which backing, and what is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support.common import HUGE, ROOT, big_sum, tool
from support.layouts import hugetlb_pool
from support.preloaded import NAME, Ended, Preloaded, preload_library, programs
from support.store import require_huge_disk

SUMS = f"sums {big_sum(3, 500)} {big_sum(4, 500)}\n"
LARGE = ("large", "large-fixed", "whole/large")


@pytest.fixture
def run(tmp_path: Path) -> Preloaded:
    return Preloaded(tmp_path)


def executable(ended: Ended) -> list[tuple[int, int, str]]:
    """Start, end and path of each mapping that the program had of executable file text."""
    found = re.findall(r"^(\w+)-(\w+) r-xp \w+ \S+ [1-9]\d* +(/.*)$", ended.stderr, re.MULTILINE)
    return [(int(start, 16), int(end, 16), path) for start, end, path in found]


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_program_and_its_libraries_are_covered_from_the_constructor(
    run: Preloaded, huge_memfd: None, name: str, backing: str
) -> None:
    ended = run(programs() / name, PYHUGETEXT_BACKING=backing)
    assert (ended.status, ended.stdout) == (5, SUMS)
    for region in (ended.region("libbig.so"), ended.region(os.path.basename(name))):
        assert region["backing"] == backing, region
        assert region["mapped_bytes"] == region["coverable_bytes"] > HUGE
    if name.startswith("whole"):
        for region in (ended.region("libbig.so"), ended.region("large")):
            assert region["mapped_bytes"] == region["text_bytes"], region


@pytest.mark.parametrize("name", LARGE)
def test_every_executable_mapping_that_is_large_enough_is_swapped_but_the_own(
    run: Preloaded, huge_memfd: None, name: str
) -> None:
    ended = run(programs() / name, PYHUGETEXT_BACKING="memfd", PYHUGETEXT_MIN_TEXT="0")
    found = executable(ended)
    assert any(path.endswith(f"/{NAME}") for _, _, path in found)
    for start, end, path in found:
        whole = -(-start // HUGE) * HUGE + HUGE <= end
        assert not whole or "pyhugetext" in path, (hex(start), hex(end), path)
        if path.startswith("/memfd:pyhugetext"):
            assert start % HUGE == end % HUGE == 0
    assert ended.region(NAME)["mapped_bytes"] == 0


def test_text_comes_from_the_store_at_the_second_start(run: Preloaded) -> None:
    require_huge_disk(run.place)
    program = programs() / "large-fixed"
    run(program, PYHUGETEXT_BACKING="store", PYHUGETEXT_BUILD="always")
    ended = run(program, PYHUGETEXT_BUILD="never")
    region = ended.region("large-fixed")
    assert (ended.status, ended.stdout, region["backing"]) == (5, SUMS, "store")
    assert region["mapped_bytes"] == region["coverable_bytes"]
    assert str(run.store) in ended.stderr


@pytest.mark.alone
def test_pool_of_huge_pages_serves_who_asks_for_it(run: Preloaded) -> None:
    with hugetlb_pool(64):
        ended = run(programs() / "whole/large", PYHUGETEXT_BACKING="hugetlb")
    assert (ended.status, ended.stdout) == (5, SUMS)
    for name in ("large", "libbig.so"):
        region = ended.region(name)
        assert region["backing"] == "hugetlb", region
        assert region["mapped_bytes"] == region["text_bytes"]


def test_constructor_is_the_last_of_those_at_the_start(run: Preloaded) -> None:
    place = programs()
    ended = run(place / "program", "next", place, PYHUGETEXT_DEBUG="1")
    lines = ended.stderr.splitlines()
    assert lines[0] == "constructor"
    assert len(lines) > 1
    assert all(line.startswith("pyhugetext: ") for line in lines[1:])


def test_nothing_is_said_and_nothing_left_but_the_store(run: Preloaded) -> None:
    place = programs()
    plain = run.plain(
        "/bin/sh", "-c", "echo $PPID >&2; cat /proc/self/maps | wc -l; ls /proc/self/fd"
    )
    ended = run("/bin/sh", "-c", "echo $PPID >&2; cat /proc/self/maps | wc -l; ls /proc/self/fd")
    assert ended.status == plain.status == 0
    assert ended.stdout.splitlines()[1:] == plain.stdout.splitlines()[1:]
    assert run(place / "program", "plain", place).stderr == "constructor\n"


@pytest.mark.parametrize("value", ["0", "off"])
def test_turned_off_it_does_nothing_and_says_so_where_it_is_asked(
    run: Preloaded, value: str
) -> None:
    place = programs()
    ended = run(place / "large", PYHUGETEXT=value)
    assert (ended.status, ended.stdout) == (5, SUMS)
    assert not ended.report["active"]
    assert ended.report["reason"] == "turned off by PYHUGETEXT=0"
    quiet = run(place / "large", PYHUGETEXT=value, PYHUGETEXT_REPORT="")
    assert not quiet.reports
    told = run("/bin/true", PYHUGETEXT=value, PYHUGETEXT_DEBUG="1").stderr
    assert told == "pyhugetext: not active: turned off by PYHUGETEXT=0\n"


def test_turned_off_no_call_is_made_by_it(run: Preloaded, tmp_path: Path) -> None:
    tool("strace")
    log = tmp_path / "log"
    preload = ("-E", f"LD_PRELOAD={preload_library()}")

    def calls(*options: str) -> int:
        command = ("strace", "-f", "-o", str(log), *options, "/bin/true")
        assert run.plain(*command, PYHUGETEXT="0").status == 0
        return log.read_text().count("\n")

    empty = tmp_path / "libempty.so"
    subprocess.run([tool("cc"), "-shared", "-x", "c", "/dev/null", "-o", empty], check=True)
    # As many as for a library with nothing in it, and none for its own mappings.
    assert calls(*preload) <= calls("-E", f"LD_PRELOAD={empty}") + 1


def test_report_says_what_was_done_in_json(run: Preloaded) -> None:
    ended = run(programs() / "large", PYHUGETEXT_BACKING="memfd")
    report = ended.report
    [pid] = ended.reports
    assert report["pid"] == pid
    assert report["command"] == str(programs() / "large")
    version = re.search(r'__version__ = "(.*)"', (ROOT / "src/pyhugetext/__init__.py").read_text())
    assert version
    assert report["version"] == version[1]
    assert (report["active"], report["reason"], report["settings_problems"]) == (True, "", [])
    assert report["elapsed_ns"] > 0
    keys = {"path", "low", "high", "text_bytes", "coverable_bytes", "mapped_bytes"}
    for region in report["regions"]:
        assert set(region) == keys | {"backing", "status", "reason"}
        assert (region["reason"] == "") == (region["status"] == "ok")


def test_report_names_a_path_that_is_no_text(run: Preloaded, tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b'/a"b\\\n\xff\xc3\xa9'
    os.mkdir(place)
    program = os.path.join(place, b"true")
    with open("/bin/true", "rb") as file, open(program, "wb") as copy:
        copy.write(file.read())
    os.chmod(program, 0o755)
    ended = run(os.fsdecode(program))
    assert os.fsencode(ended.report["command"]) == program


def test_report_goes_into_no_file_of_others_and_through_no_link(
    run: Preloaded, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(victim)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    os.link(victim, tmp_path / "second")
    for place in (link, fifo, tmp_path / "second", tmp_path / "none/there", tmp_path):
        assert run("/bin/true", PYHUGETEXT_REPORT=str(place)).said() == (0, "", "")
    assert victim.read_text() == "mine"
    wrong = run("/bin/true", PYHUGETEXT_REPORT="relative", PYHUGETEXT_DEBUG="1").stderr
    assert "setting: PYHUGETEXT_REPORT='relative' is no absolute path" in wrong


def test_program_that_is_killed_ends_as_without(run: Preloaded) -> None:
    for ended in (run, run.plain):
        result = ended("/bin/sh", "-c", "kill -9 $$")  # type: ignore[operator]
        assert result.status == -signal.SIGKILL


def test_start_makes_no_private_copy_that_nobody_asked_for(
    run: Preloaded, huge_memfd: None
) -> None:
    """A position-independent executable can be served by no store; a program may be started often."""
    env = {"PYHUGETEXT_BUILD_TIME": ""}
    region = run(programs() / "large", **env).region("large")
    assert (region["mapped_bytes"], region["status"]) == (0, "no_time"), region
    region = run(programs() / "large", PYHUGETEXT_BACKING="memfd", **env).region("large")
    assert region["mapped_bytes"] > 0
