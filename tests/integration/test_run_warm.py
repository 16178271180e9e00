"""Programs that are no Python: their store prepared, and looked at while and before they run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli, Library, assert_one_sentence, status_of
from support.common import HUGE, tool
from support.sample_program import Sample

ON = {"PYHUGETEXT": "1"}


@pytest.fixture
def sample(tmp_path: Path, compile_library: Library) -> Sample:
    return Sample(tmp_path, compile_library)


@contextmanager
def running(cli: Cli, *command: str | Path, **env: str) -> Iterator[int]:
    """A command under `pyhugetext run` that has said its first line."""
    words = [sys.executable, "-m", "pyhugetext", "run", "--", *map(str, command)]
    environ = cli.environment(**{**ON, "PYHUGETEXT_BUILD": "never", **env})
    with subprocess.Popen(
        words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline().strip().isdigit()
            yield process.pid
        finally:
            process.stdin.close()
            process.wait()
    assert process.returncode == 0


def region_of(process: dict[str, Any], path: Path) -> dict[str, Any]:
    (region,) = (region for region in process["regions"] if region["path"] == str(path))
    return dict(region)


def huge_in_smaps(pid: int, store: Path) -> int:
    """What the kernel holds of a store's text in huge pages."""
    total, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(store) in line
        elif ours and line.startswith("FilePmdMapped:"):
            total += int(line.split()[1]) << 10
    return total


def test_file_and_its_libraries_are_prepared_and_used(disk: Cli, sample: Sample) -> None:
    program = sample.program("-no-pie")
    document = disk.json("warm", str(program))
    assert status_of(document, program) == status_of(document, sample.library) == "built"
    assert {one["path"] for one in document["objects"]} >= {str(program), str(sample.library)}
    assert sys.executable not in {one["path"] for one in document["objects"]}  # no business of it
    assert all(entry["durable"] for entry in disk.entries())
    again = disk.json("warm", str(program))
    assert status_of(again, program) == status_of(again, sample.library) == "present"

    with running(disk, program, "wait") as pid:
        (process,) = disk.json("status", str(pid))["processes"]
        huge = huge_in_smaps(pid, disk.store)
        everything = disk.json("status")["processes"]
        page = disk("report", "--pid", str(pid), "-")
        table = disk("status", str(pid)).stdout
    assert (process["python"], process["preloaded"], process["active"]) == (False, True, True)
    for path in (program, sample.library):
        region = region_of(process, path)
        assert region["backing"] == "store"
        assert region["mapped_bytes"] == region["coverable_bytes"] > HUGE
        assert region["private_bytes"] == 0
    assert process["huge_bytes"] == huge > 0
    assert pid in [one["pid"] for one in everything]
    assert program.name in page.stdout
    assert "note:" not in table
    assert program.name in table


def test_position_independent_program_is_refused_and_its_libraries_are_not(
    disk: Cli, sample: Sample
) -> None:
    program = sample.program("-pie", "-fPIE")
    document = disk.json("warm", str(program), status=1)
    assert status_of(document, program) == "refused"
    assert status_of(document, sample.library) == "built"
    (problem,) = document["problems"]
    assert "position-independent" in problem
    assert str(program) in problem
    assert str(program) not in [entry["original"] for entry in disk.entries()]


def test_what_would_not_be_used_is_refused(disk: Cli, tmp_path: Path) -> None:
    small = tmp_path / "small.c"
    small.write_text("int main(void) { return 0; }\n")
    program = tmp_path / "small"
    subprocess.run([tool("cc", "gcc", "clang"), "-o", str(program), str(small)], check=True)
    for path, words in (
        (str(program), "less text"),
        (str(small), "neither a program nor a library"),
        (str(tmp_path / "none"), "no such file"),
        (str(tmp_path), "it is no file"),
    ):
        result = disk("warm", path)
        assert result.returncode == 1
        assert_one_sentence(result, path, words)
    assert disk.entries() == []


def test_library_alone(disk: Cli, sample: Sample) -> None:
    assert status_of(disk.json("warm", str(sample.opened)), sample.opened) == "built"


def test_names_without_a_slash_are_modules(cli: Cli) -> None:
    result = cli("warm", "libsample.so-1")
    assert result.returncode == 2
    assert_one_sentence(result, "is no module's name (the name of a file has a / in it)")


def test_command_is_prepared_with_what_it_opens(disk: Cli, sample: Sample) -> None:
    program = sample.program("-no-pie")
    words = ("warm", "--json", "--", str(program), "wait", str(sample.opened))
    result = subprocess.run(
        [sys.executable, "-m", "pyhugetext", *words], env=disk.environment(),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    for path in (program, sample.library, sample.opened):
        assert status_of(document, path) == "built"
    with running(disk, program, "wait", sample.opened) as pid:
        (process,) = disk.json("status", str(pid))["processes"]
    for path in (program, sample.library, sample.opened):
        region = region_of(process, path)
        assert (region["backing"], region["private_bytes"]) == ("store", 0)
        assert region["mapped_bytes"] == region["coverable_bytes"] > HUGE


def test_command_that_is_a_position_independent_program(disk: Cli, sample: Sample) -> None:
    program = sample.program("-pie", "-fPIE")
    document = disk.json("warm", "--", str(program), status=1)
    assert status_of(document, program) == "refused"
    assert status_of(document, sample.library) == "built"
    assert "position-independent" in document["problems"][0]
    # So it is with what the command itself starts.
    document = disk.json("warm", "--", "sh", "-c", str(program), status=1)
    assert status_of(document, program) == "refused"
    assert [p for p in document["problems"] if str(program) in p and "position-independent" in p]


def test_doctor_says_what_a_program_would_get(disk: Cli, sample: Sample) -> None:
    program = sample.program("-no-pie")

    def notes(*command: str, status: int = 0, **env: str) -> dict[str, tuple[str, str]]:
        told = disk.json("doctor", "--", *command, status=status, **{**ON, **env})
        assert told["covered"] is (status == 0)
        return {one["path"]: (one["backing"], one["note"]) for one in told["objects"]}

    for path in (program, sample.library):
        backing, note = notes(str(program))[str(path)]
        assert backing == "store"
        assert "warm" in note
    assert disk.json("warm", str(program))["total"]["built"] >= 2
    for path in (program, sample.library):
        assert notes(str(program))[str(path)] == ("store", "its copy is there")
    assert disk("doctor", "--", str(program), **ON).stdout.startswith(f"{program} would have ")
    # A backing that needs none of the stores, for what comes to another address.
    independent = str(sample.program("-pie", "-fPIE"))
    memory = {"PYHUGETEXT_BACKING": "auto"}
    backing, note = notes(independent, **memory)[independent]
    assert backing in ("memfd", "thp", "none")
    assert "another address" in note
    backing, note = notes(independent, **memory, PYHUGETEXT_PRIVATE_LIMIT="1M")[independent]
    assert backing == "none"
    assert "PYHUGETEXT_PRIVATE_LIMIT" in note or "no backing" in note
    assert notes("true", status=1)
    assert "off" in disk("doctor", "--", str(program), PYHUGETEXT="0").stdout
    missing = disk("doctor", "--", "there-is-no-such-command")
    assert missing.returncode == 1
    assert_one_sentence(missing, "no such command")


def test_prediction_is_what_a_program_gets(disk: Cli, sample: Sample, tmp_path: Path) -> None:
    for options in (("-no-pie",), ("-pie", "-fPIE")):
        program = sample.program(*options)
        told = disk.json("doctor", "--", str(program), PYHUGETEXT_BACKING="auto", **ON)
        predicted = {one["path"]: one["backing"] for one in told["objects"]}
        report = tmp_path / "report.json"
        disk("run", "--report", str(report), "--", str(program), PYHUGETEXT_BACKING="auto", **ON)
        found = {one["path"]: one["backing"] for one in json.loads(report.read_text())["regions"]}
        for path in (str(program), str(sample.library)):
            assert found[path] == predicted[path]


def test_bench_of_a_program(disk: Cli, sample: Sample) -> None:
    program = sample.program("-no-pie")
    found = disk.json("bench", "--seconds", "0.01", "--", str(program), **ON)
    assert found["kind"] == "command"
    assert found["text"]["command"] == str(program)
    assert found["text"]["backing"] == "store"
    assert found["text"]["mapped_bytes"] == found["text"]["coverable_bytes"] > 3 * HUGE
    assert 0.1 < found["effect"]["median"] < 10


def test_status_knows_of_no_others(cli: Cli) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        pids = [one["pid"] for one in cli.json("status")["processes"]]
        (process,) = cli.json("status", str(sleeper.pid))["processes"]
        sleeper.kill()
    assert sleeper.pid not in pids
    assert os.getpid() in pids
    assert (process["python"], process["preloaded"]) == (False, False)
