"""Putting back what was swapped, where the original file or what is known of it changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.common import Run, big_source, clean_environment
from support.layouts import PRELUDE, last_record, skip_unless_huge

OFF = {"PYHUGETEXT": "0"}

START = """
import os, pyhugetext
library = ctypes.CDLL(path)
library.f_sum.restype = ctypes.c_long
expected = library.f_sum(5)
before = os.stat(path)
def remap():
    return h.region(pyhugetext.remap(backing="memfd", include=path), path)
def restore():
    return h.region(pyhugetext.restore(), path)
"""


@pytest.fixture
def large(compile_library) -> str:
    skip_unless_huge("memfd")
    return str(compile_library(big_source(400, padding=20_000)))


def test_new_mode_and_name_of_the_file_hinder_nobody(python: Run, large: str) -> None:
    code = """
covered = remap()
os.chmod(path, 0o700)
os.link(path, path + ".linked")  # as uv does
assert os.stat(path).st_ctime_ns != before.st_ctime_ns
h.report([covered, restore(), library.f_sum(5) == expected])
"""
    covered, restored, right = last_record(python(PRELUDE + START + code, large, env=OFF))
    assert covered["mapped_bytes"] > 0
    assert restored["mapped_bytes"] == 0
    assert right


def test_content_that_changed_behind_its_times_is_not_mapped(python: Run, large: str) -> None:
    # In the padding of a function, which nobody runs.
    code = """
covered = remap()
content = open(path, "rb").read()
at = content.index(bytes([0x90]) * 4096, len(content) // 2) + 64
with open(path, "r+b") as file:
    file.seek(at)
    file.write(bytes([0xcc]))
os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
h.report([covered, restore(), library.f_sum(5) == expected])
"""
    if os.uname().machine != "x86_64":
        pytest.skip("the padding is of x86_64's instructions")
    covered, restored, right = last_record(python(PRELUDE + START + code, large, env=OFF))
    assert restored["mapped_bytes"] == covered["mapped_bytes"] > 0
    assert "the original file was deleted or replaced" in restored["reason"]
    assert right


def test_listing_without_memory_forgets_nothing(
    python: Run, large: str, compile_library, tmp_path: Path
) -> None:
    # More objects than the tables have room for, and no memory for more room.
    small = compile_library("int small(void) { return 7; }", name="libsmall.so")
    for i in range(200):
        shutil.copy(small, tmp_path / f"libsmall{i}.so")
    code = """
import resource
from pyhugetext import _native
pyhugetext.stats()
covered = remap()
others = [ctypes.CDLL(os.path.join(sys.argv[2], f"libsmall{i}.so")) for i in range(200)]
pages = int(open("/proc/self/statm").read().split()[0])
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096, hard))
for _ in range(2):  # the second knows of no listing that was complete
    last = _native.snapshot()["last"]
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
told = _native.STATUSES[last[0]]
h.report([told, covered, h.region(pyhugetext.stats(), path), restore(), library.f_sum(5) == expected])
"""
    told, covered, after, restored, right = last_record(
        python(PRELUDE + START + code, large, str(tmp_path), env=OFF)
    )
    assert told == "no_memory"
    assert after["mapped_bytes"] == covered["mapped_bytes"] > 0
    assert restored["mapped_bytes"] == 0
    assert right


def test_newline_in_a_path_is_no_other_file(python: Run, large: str, tmp_path: Path) -> None:
    directory = tmp_path / "of two\nlines"
    directory.mkdir()
    file = directory / "lib\nsample.so"
    shutil.copy(large, file)
    code = """
import subprocess
covered = remap()
status = subprocess.run([sys.executable, "-m", "pyhugetext", "status", "--json", str(os.getpid())],
                        stdout=subprocess.PIPE, check=True)
[process] = json.loads(status.stdout)["processes"]
seen = [r for r in process["regions"] if r["path"] == path]
h.report([covered, seen, restore(), remap(), library.f_sum(5) == expected])
"""
    covered, seen, restored, again, right = last_record(
        python(PRELUDE + START + code, str(file), env=OFF)
    )
    assert covered["mapped_bytes"] == covered["coverable_bytes"] > 0
    assert [region["mapped_bytes"] for region in seen] == [covered["mapped_bytes"]]
    assert restored["mapped_bytes"] == 0
    assert again["mapped_bytes"] == covered["mapped_bytes"]
    assert right


def test_valgrind_has_nothing_to_say_about_a_pass(large: str) -> None:
    valgrind = shutil.which("valgrind")
    if not valgrind:
        pytest.skip("valgrind is not installed")
    code = f"""
import ctypes
library = ctypes.CDLL({large!r})
import pyhugetext
pyhugetext.remap(backing="memfd")
pyhugetext.restore()
"""
    command = (valgrind, "--error-exitcode=9", "-q", sys.executable, "-c")

    def run(code: str, started: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, code],
            env=clean_environment(PYTHONMALLOC="malloc", PYHUGETEXT=started),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    ours = run(code, "1")
    if (ours.returncode, ours.stderr) != (0, ""):
        plain = run("import ctypes", "0")
        if plain.returncode:
            pytest.skip(f"valgrind complains about plain Python here: {plain.stderr[-500:]}")
    assert (ours.returncode, ours.stderr) == (0, "")
