"""First, do no harm, where memory is locked, and where /proc or a file of it is not there."""

from __future__ import annotations

import json

import pytest

from support.common import TESTS
from support.limits import (
    in_own_mounts,
)
from support.plain import same_as_plain

MCL_CURRENT, MCL_FUTURE = 1, 2


@pytest.mark.parametrize("backing", ["auto", "memfd", "thp"])
@pytest.mark.parametrize(
    "flags", [MCL_CURRENT, MCL_CURRENT | MCL_FUTURE], ids=["current", "current and future"]
)
def test_locked_memory(python, backing, flags):
    code = """
        import ctypes, json, re, sys
        import pyhugetext
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlockall(int(sys.argv[2])):
            print("mlockall:", ctypes.get_errno())
            sys.exit()
        def locked():
            return int(re.search(r"VmLck:\\s+(\\d+)", open("/proc/self/status").read())[1])
        pyhugetext.stats()
        before = locked()
        stats = pyhugetext.remap(backing=sys.argv[1])
        assert 0 <= stats.coverable_bytes - stats.mapped_bytes < 256 << 10, str(stats)  # as in test_startup.py
        assert stats.mapped_bytes > 0
        # A mapping of the store is filled with what the page cache has when it is locked.
        assert stats.huge_bytes >= stats.mapped_bytes or stats.backing == "store", str(stats)
        kept = locked() - before
        after = pyhugetext.restore()
        assert not after.mapped_bytes, str(after)
        print(json.dumps([kept, locked() - before]))
    """
    result = python(code, backing, str(flags), env={"PYHUGETEXT": "0"})
    assert result.stderr == ""
    if result.stdout.startswith("mlockall"):
        pytest.skip("mlockall is refused (needs root or a large RLIMIT_MEMLOCK)")
    remapped, restored = json.loads(result.stdout)
    if flags & MCL_FUTURE:
        # What was locked in memory is still; 1 MiB for what Python itself gives back.
        assert remapped > -1024
        assert restored > -1024


def test_limited_locked_memory(python):
    code = """
        import ctypes, re, resource, struct
        import pyhugetext, pyhugetext._stats.collecting
        libc = ctypes.CDLL(None, use_errno=True)
        # Without CAP_IPC_LOCK the limit counts for root too.
        libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))
        need = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
        try:
            hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
            need += 5 << 19
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (need, need if hard < 0 else hard))
            refused = libc.mlockall(3)
        except ValueError:
            refused = True
        if refused:
            print("refused")
        else:
            stats = pyhugetext.remap()
            if stats.mapped_bytes < stats.coverable_bytes:
                told = [r.reason or "" for r in stats.regions] + [stats.reason or ""]
                assert any("EAGAIN" in text or "no memory" in text for text in told), str(stats)
            pyhugetext.restore()
    """
    result = python(code, env={"PYHUGETEXT": "0"})
    assert result.stderr == ""
    if result.stdout:
        pytest.skip("RLIMIT_MEMLOCK is too small to lock a python at all")


def test_no_proc(python, tmp_path):
    stats = same_as_plain(python, tmp_path, prefix=in_own_mounts("mount -t tmpfs none /proc"))
    assert not stats["active"]
    assert "failed with ENOENT" in stats["reason"]
    assert "/proc" in stats["reason"]


@pytest.mark.parametrize("name", ["maps", "pagemap", "smaps"])
def test_one_file_of_proc_hidden(python, name):
    hide = f"mount --bind /dev/null /proc/$$/{name}"
    code = """
        import json, sys
        sys.path.insert(0, sys.argv[1])
        import pyhugetext
        from support import harm
        print(harm.work(), pyhugetext.stats().as_dict() is not None)
    """
    plain = python(code, str(TESTS), env={"PYHUGETEXT": "0"})
    result = python(code, str(TESTS), prefix=in_own_mounts(hide))
    assert (result.stdout, result.stderr) == (plain.stdout, "")
