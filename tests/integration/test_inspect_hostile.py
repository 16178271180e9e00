"""Processes made to mislead, block or crash whoever looks at them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyhugetext.process import inspect
from pyhugetext.process.cells import of as cells_of
from support.cli import (
    AS_STRANGER,
    Library,
    make_library,
    need_for_others,
    need_root,
    need_tool,
    public_directory,
)
from support.common import HUGE, TESTS, clean_environment
from support.inspecting import BY_NAME_IF_TOLD, Target, running
from support.layouts import skip_unless_huge

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")
MACHINE = {"x86_64": 62, "aarch64": 183}[os.uname().machine]

MAP = """
import mmap
kept = []
def put(path, protection=5):
    with open(path, "rb") as file:
        kept.append(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, protection))
def drop():
    while kept:
        kept.pop().close()
"""


def elf(
    programs: list[tuple[int, ...]], *, count: int | None = None, at: int = 64, kind: int = 3
) -> bytes:
    """An ELF file that says what it is told to say."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    number = len(programs) if count is None else count
    sizes = (64, PROGRAM.size, number, 64, 0, 0)
    head = HEADER.pack(ident, kind, MACHINE, 1, 0, at, 0, 0, *sizes)
    return head + b"".join(PROGRAM.pack(*program) for program in programs)


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with running(MAP, PYHUGETEXT="0") as found:
        yield found


def look_at(target: Target, path: Path, data: bytes) -> inspect.Stats:
    """Maps the file there, executable, and looks."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    target.ask(f"drop(); put({str(path)!r})")
    began = time.monotonic()
    stats = inspect.inspect(target.pid)
    assert time.monotonic() - began < 20
    cells_of(target.pid)
    for region in stats.regions:
        assert 0 <= region.mapped_bytes <= region.coverable_bytes <= region.text_bytes
        assert region.huge_bytes <= region.swapped_bytes
    return stats


numbers = st.one_of(
    st.integers(0, 1 << 16),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, 1, 4096, HUGE, 1 << 32, 1 << 47, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096]),
)
programs = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 1, 2, 4, 6]), st.integers(0, 7), *([numbers] * 5), st.just(4096)
    ),
    max_size=6,
)


@given(
    programs=programs,
    count=st.none() | st.integers(0, 65535),
    at=st.just(64) | numbers,
    kind=st.sampled_from([2, 3]),
    padding=st.integers(0, 3 * 4096),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_headers_that_say_anything(
    target: Target,
    tmp_path: Path,
    programs: list[tuple[int, ...]],
    count: int | None,
    at: int,
    kind: int,
    padding: int,
) -> None:
    data = elf(programs, count=count, at=at, kind=kind) + bytes(padding)
    stats = look_at(target, tmp_path / "odd.so", data)
    told = sum(r.text_bytes for r in stats.regions if r.path.endswith("odd.so"))
    # At most what is mapped.
    assert told <= -(-len(data) // 4096) * 4096


PF_R, PF_W, PF_X = 4, 2, 1
LYING = {
    "an object of the whole address space": elf([(1, 5, 0, 0, 0, 4096, 1 << 47, 4096)]),
    "one of 64 GiB": elf([(1, 5, 0, 0, 0, 4096, 1 << 36, 4096)]),
    "sums that wrap": elf([(1, 5, 0, (1 << 64) - 4096, 0, 4096, 1 << 63, 4096)]),
    "notes without end": elf([(1, 5, 0, 0, 0, 4096, 4096, 0), (4, 4, 0, 0, 0, 1 << 62, 0, 4)]),
    "headers behind the end": elf([], count=9, at=1 << 62),
    "more headers than execve takes": elf([(1, 5, 0, 0, 0, 4096, 4096, 0)] * 2000),
    "a thousand segments": elf([(1, 5, 0, i * 4096, 0, 4096, 4096, 0) for i in range(1170)]),
}


@pytest.mark.parametrize("lie", LYING)
def test_headers_that_would_keep_a_reader_busy(target: Target, tmp_path: Path, lie: str) -> None:
    stats = look_at(target, tmp_path / "lie.so", LYING[lie] + bytes(8192))
    (region,) = [r for r in stats.regions if r.path.endswith("lie.so")]
    assert region.swapped_bytes == 0


def test_file_without_content_that_is_large(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(elf([(1, 5, 0, 0, 0, 1 << 33, 1 << 33, 4096)]))
        file.truncate(8 << 30)
    target.ask(f"drop(); put({str(path)!r})")
    stats = inspect.inspect(target.pid)
    (region,) = [r for r in stats.regions if r.path == str(path)]
    assert region.text_bytes == 8 << 30
    assert len(cells_of(target.pid)) >= (8 << 30) // HUGE
    target.ask("drop()")


def test_thousands_of_mappings(tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.write_bytes(elf([(1, 5, 0, 0, 0, 4096, 1 << 35, 4096)]) + bytes(8192))
    code = f"""
        import mmap
        kept = []
        with open({str(path)!r}, "rb") as file:
            for i in range(3000):
                for protection in (5, 1):
                    kept.append(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, protection))
    """
    with running(code, PYHUGETEXT="0") as target:
        began = time.monotonic()
        stats = inspect.inspect(target.pid)
        assert time.monotonic() - began < 60
        mine = [r for r in stats.regions if r.path == str(path)]
        assert sum(r.text_bytes for r in mine) >= 3000 * 4096


def test_names_like_ours_are_not_taken_for_ours(target: Target, tmp_path: Path) -> None:
    # Without an object under them they stand for nothing.
    directory = tmp_path / "v1" / "objects" / "name"
    directory.mkdir(parents=True)
    stats = look_at(target, directory / "libfalse.so", bytes(4096))
    assert stats.mapped_bytes == 0
    code = """
        import ctypes, os
        fd = os.memfd_create("pyhugetext:libc.so.6")
        os.ftruncate(fd, 4 << 20)
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            kept.append(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, 5))
    """
    target.ask(code)
    stats = inspect.inspect(target.pid)
    assert stats.coverable_bytes >= stats.mapped_bytes
    assert all(r.backing == "none" or r.reason for r in stats.regions)
    target.ask("drop()")


@pytest.mark.parametrize("links", [True, False])
def test_file_system_that_stops_answering(compile_library: Library, links: bool) -> None:
    # FUSE: a process of the same user as the one looked at decides when, and whether.
    need_root()
    need_tool("setpriv", "umount")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this kernel has no FUSE")
    code = (
        BY_NAME_IF_TOLD
        + """
        for region in inspect.inspect(int(sys.argv[1])).regions:
            print(region.path, region.reason)
    """
    )
    by = "" if links else "by name"
    with public_directory() as directory:
        need_for_others(directory, os.path.realpath(sys.executable))
        library = make_library(compile_library)
        point = directory / "mounted"
        point.mkdir()
        server = subprocess.Popen(
            [sys.executable, TESTS / "support" / "fuse.py", library, point],
            env=clean_environment(PYHUGETEXT="0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin
        assert server.stdout
        try:
            if server.stdout.readline() != "ready\n":
                pytest.skip("no FUSE file system can be mounted here")
            load = f"import ctypes; library = ctypes.CDLL({str(point / 'lib.so')!r})"
            with running(load, prefix=AS_STRANGER, PYHUGETEXT="0") as target:
                server.stdin.write("be silent\n")
                server.stdin.flush()
                assert server.stdout.readline() == "silent\n"
                looker = subprocess.Popen(
                    [sys.executable, "-c", textwrap.dedent(code), str(target.pid), by],
                    env=clean_environment(PYHUGETEXT="0"),
                    stdout=subprocess.PIPE,
                    text=True,
                )
                try:
                    told = looker.communicate(timeout=30)[0]
                finally:
                    # Its end answers whoever waits, and cannot be killed while it does.
                    server.kill()
                    looker.kill()
                (line,) = [one for one in told.splitlines() if one.startswith(str(point))]
                assert "might make us wait" in line
                assert all("wait" not in one for one in told.splitlines() if one != line)
        finally:
            server.kill()
            asked = server.communicate()[0]
            subprocess.run(["umount", "--lazy", point], check=False)
    assert asked == "", "the file system was asked for something"


def test_looking_leaves_no_descriptor_open(target: Target) -> None:
    skip_unless_huge("thp")
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        inspect.inspect(target.pid)
        cells_of(target.pid)
        with pytest.raises(inspect.NotInspectable):
            inspect.inspect(1 << 22)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0
