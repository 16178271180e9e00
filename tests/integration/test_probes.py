"""Probes of the kernel (uprobes, and with them perf probe, USDT and bpftrace) stay and keep counting;
where they do not count, there is a way to make them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from support.cli import started
from support.common import clean_environment
from support.layouts import PRELUDE, last_record, skip_unless_huge
from support.probed import BACKINGS, LIBRARY, check_left_small, probed_library

pytestmark = pytest.mark.alone  # who sets or removes a probe stops all processors
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="uprobes need root")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probed_library(tmp_path_factory.mktemp("probed"))


@contextmanager
def tracefs(tmp_path: Path) -> Iterator[Path]:
    """Where uprobe_events is, mounted for the test if it is nowhere yet."""
    for place in (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")):
        with suppress(OSError):
            if (place / "uprobe_events").exists():
                yield place
                return
    place = tmp_path / "tracefs"
    place.mkdir()
    mount = ["mount", "-t", "tracefs", "nodev", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no tracefs, and none can be mounted")
    try:
        if not (place / "uprobe_events").exists():
            pytest.skip("this kernel has no uprobe events")
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def uprobe(place: Path, file: Path, function: str) -> Iterator[Callable[[], int]]:
    """A uprobe at a function of a file; gives what reads the number of hits."""
    with file.open("rb") as stream:
        elf = ELFFile(stream)
        [symbol] = elf.get_section_by_name(".dynsym").get_symbol_by_name(function)
        [offset] = elf.address_offsets(symbol["st_value"])
    name = f"pyhugetext_{os.getpid()}"
    events = place / "uprobe_events"

    def write(target: Path, text: str) -> None:
        # Appending, or all other probes go; and without the seek that open("a") begins with.
        descriptor = os.open(target, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def hits() -> int:
        for line in (place / "uprobe_profile").read_text().splitlines():
            words = line.split()
            if words[-2] == name:
                return int(words[-1])
        return 0

    try:
        write(events, f"p:{name}/{name} {file}:{offset:#x}\n")
    except OSError as error:
        pytest.skip(f"no uprobe can be set: {error}")
    try:
        write(place / "events" / name / "enable", "1")
        try:
            yield hits
        finally:
            write(place / "events" / name / "enable", "0")
    finally:
        write(events, f"-:{name}/{name}\n")


@needs_root
@pytest.mark.parametrize("backing", BACKINGS)
def test_uprobe_set_before_activation_keeps_counting(python, library, tmp_path, backing):
    skip_unless_huge(backing)
    code = (
        PRELUDE
        + LIBRARY
        + """
import pyhugetext
activated = h.region(pyhugetext.stats(), path)
call(10)
restored = h.region(pyhugetext.restore(), path)
call(10)
h.report([target, activated, restored])
"""
    )
    # Preloaded, it is there when the start-up hook runs.
    env = {"PYHUGETEXT_BACKING": backing, "LD_PRELOAD": str(library)}
    with tracefs(tmp_path) as place, uprobe(place, library, "f_5") as hits:
        target, activated, restored = last_record(python(code, str(library), env=env))
        assert hits() == 20
    check_left_small(activated, target)
    assert restored["mapped_bytes"] == 0


# Says where it is, and waits until told to go on.
WITH_PAUSES = (
    PRELUDE
    + LIBRARY
    + """
import pyhugetext
def told():
    print("ready", flush=True)
    assert sys.stdin.readline() == "on\\n"
backing = h.region(pyhugetext.stats(), path)["backing"]
told()
call(10)
told()
restored = h.region(pyhugetext.restore(), path)
call(10)
h.report([backing, restored["mapped_bytes"]])
"""
)


@contextmanager
def program(library: Path, tmp_path: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A program that runs from huge pages and calls the library's function ten times when it is
    told to, and ten times after restore() when it is told again."""
    # Preloaded, the library is there when the start-up hook runs.
    environ = clean_environment(
        LD_PRELOAD=str(library), XDG_CACHE_HOME=str(tmp_path / "cache"), **settings
    )
    command = (sys.executable, "-c", WITH_PAUSES, str(library))
    with started(command, env=environ, stdin=subprocess.PIPE) as process:
        yield process


def wait(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    assert process.stdout.readline() == "ready\n"


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("on\n")
    process.stdin.flush()


def hits_of(library: Path, tmp_path: Path, **settings: str) -> tuple[int, int, str, int]:
    """How often a probe was hit that was set after activation: before restore(), and in all; then
    the backing that the library had, and what is mapped of it in the end."""
    with program(library, tmp_path, **settings) as process:
        wait(process)
        with tracefs(tmp_path) as place, uprobe(place, library, "f_5") as hits:
            go_on(process)
            wait(process)
            before = hits()
            go_on(process)
            got, mapped = json.loads(process.communicate()[0])
            return before, hits(), got, mapped


@needs_root
@pytest.mark.parametrize("backing", ["store", *BACKINGS])
def test_uprobe_set_after_activation_counts_after_restore(library, tmp_path, backing):
    skip_unless_huge(backing)
    before, after, got, mapped = hits_of(library, tmp_path, PYHUGETEXT_BACKING=backing)
    assert before == 0
    if got != backing:
        pytest.skip(f"the library is not on {backing} here but on {got}")
    assert mapped == 0
    assert after == 10


@needs_root
def test_uprobe_set_after_activation_counts_in_an_excluded_object(library, tmp_path):
    settings = {"PYHUGETEXT_BACKING": "memfd", "PYHUGETEXT_EXCLUDE": f"*/{library.name}"}
    before, after, got, _ = hits_of(library, tmp_path, **settings)
    assert (before, after, got) == (10, 20, "none")
