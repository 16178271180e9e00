"""What SECURITY.md says of memory, seen from outside."""

from __future__ import annotations

import re

import pytest

from support.cli import own_shared_memory
from support.common import tool
from support.layouts import skip_unless_huge

CODE = """
    import os, sys
    import pyhugetext
    pyhugetext.remap()
    pyhugetext.restore()
    stats = pyhugetext.remap()
    names = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if n.isdigit()
             and os.path.islink(f"/proc/self/fd/{n}")]
    print(stats.backing, [name for name in names if "memfd" in name])
"""


def calls(python, tmp_path, backing: str, expression: str) -> tuple[str, str]:
    strace, log = tool("strace"), tmp_path / "log"
    apart = own_shared_memory() if backing == "shm" else ()
    prefix = (*apart, strace, "-f", "-e", f"trace={expression}", "-o", str(log))
    env = {"PYHUGETEXT_BACKING": backing, "PYHUGETEXT_STORE": str(tmp_path / "store")}
    result = python(CODE, env=env, prefix=prefix)
    return result.stdout.strip(), log.read_text()


def test_memory_file_is_sealed_and_has_no_descriptor(python, tmp_path):
    skip_unless_huge("memfd")
    told, log = calls(python, tmp_path, "memfd", "memfd_create,fcntl,mmap,close")
    assert told == "memfd []"
    lines = log.splitlines()
    made = [i for i, line in enumerate(lines) if 'memfd_create("pyhugetext:' in line]
    assert made
    for i in made:
        fd = lines[i].rsplit("= ", 1)[1]
        rest = lines[i:]
        ends = next(n for n, line in enumerate(rest) if f" close({fd})" in line)
        sealed = [line for line in rest[:ends] if f"fcntl({fd}, F_ADD_SEALS" in line]
        seals = set(re.findall(r"F_SEAL_\w+", " ".join(sealed)))
        assert seals == {"F_SEAL_SEAL", "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE"}


@pytest.mark.parametrize("backing", ["store", "shm", "memfd", "thp"])
def test_no_memory_is_ever_writable_and_executable(python, tmp_path, backing):
    if backing != "store":
        skip_unless_huge(backing)
    _, log = calls(python, tmp_path, backing, "mmap,mprotect,mremap,pkey_mprotect")
    assert "PROT_READ|PROT_EXEC" in log
    assert not [line for line in log.splitlines() if "PROT_WRITE|PROT_EXEC" in line]
