"""First, do no harm, under limits: what the kernel or the administrator forbids costs the huge
pages and nothing else, and stats() names the cause."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.common import TESTS, Run, big_source, big_sum
from support.harm import PROGRAM, same_as_plain, told_causes
from support.limits import (
    MIB,
    PR_SET_MDWE,
    PR_SET_THP_DISABLE,
    in_own_mounts,
    knows,
    limit,
    set_process,
)

THP = Path("/sys/kernel/mm/transparent_hugepage")
MCL_CURRENT, MCL_FUTURE = 1, 2


# --- what processes may forbid themselves ---


def stats_under(option: int, python: Run, tmp_path: Path, backing: str) -> dict[str, Any]:
    return same_as_plain(
        python,
        tmp_path,
        env={"PYHUGETEXT_BACKING": backing},
        preexec_fn=set_process(option, 1),
    )


@pytest.mark.parametrize("backing", ["auto", "memfd", "thp"])
def test_write_xor_execute_enforced_by_the_kernel(python, tmp_path, backing):
    if not knows(PR_SET_MDWE, 1):
        pytest.skip("the kernel has no PR_SET_MDWE (6.3)")
    stats = stats_under(PR_SET_MDWE, python, tmp_path, backing)
    if backing == "thp":
        assert not stats["active"]
        assert "mprotect(PROT_EXEC) failed with EACCES" in told_causes(stats)
    else:
        # A memory file is mapped executable from the start, so nothing is gained later.
        assert stats["active"], stats["reason"]


@pytest.mark.parametrize("backing", ["auto", "memfd", "thp"])
def test_huge_pages_disabled_for_the_process(python, tmp_path, backing):
    if not knows(PR_SET_THP_DISABLE, 1):
        pytest.skip("the kernel has no PR_SET_THP_DISABLE")
    stats = stats_under(PR_SET_THP_DISABLE, python, tmp_path, backing)
    assert stats["huge_bytes"] == 0
    assert not stats["active"]
    if stats["mapped_bytes"]:  # from the store, where the kernel decides at the first touch
        assert "the kernel holds 0 of" in stats["reason"]
    else:
        assert "MADV_COLLAPSE) failed with EINVAL" in told_causes(stats)


def test_limits_of_one_process_do_not_spoil_the_store_for_others(python, stats_of, tmp_path):
    if not knows(PR_SET_THP_DISABLE, 1):
        pytest.skip("the kernel has no PR_SET_THP_DISABLE")
    env = {"XDG_CACHE_HOME": str(tmp_path / "usual"), "PYHUGETEXT_BACKING": "store"}
    usual = stats_of(env=env)
    env["XDG_CACHE_HOME"] = str(tmp_path / "first limited")
    for limited in (
        set_process(PR_SET_THP_DISABLE, 1),
        limit(resource.RLIMIT_FSIZE, MIB),
        limit(resource.RLIMIT_AS, 200 * MIB),
    ):
        python("", env=env, preexec_fn=limited)
    # Memory may run out anywhere in a build.
    always = {**env, "PYHUGETEXT_BUILD": "always"}
    least = peak(python, "VmPeak")
    failed = 0
    for room in range(0, 16, 2):
        limited = limit(resource.RLIMIT_AS, least + room * MIB)
        python("", env=always, check=False, preexec_fn=limited)
        index = tmp_path / "first limited/pyhugetext/v1/index"
        records = list(index.iterdir()) if index.is_dir() else []
        for record in records:
            assert b"allocate memory" not in record.read_bytes()
            record.unlink()
        failed += not records
    assert failed or not usual["mapped_bytes"]
    stats = stats_of(env=env)
    assert (stats["mapped_bytes"], stats["reason"]) == (usual["mapped_bytes"], usual["reason"])


# --- what the machine forbids ---


@contextlib.contextmanager
def setting(path: Path, value: str) -> Iterator[None]:
    if not os.access(path, os.W_OK):
        pytest.skip(f"{path} cannot be written here (needs root)")
    words = path.read_text().split()
    before = next((word.strip("[]") for word in words if word.startswith("[")), words[0])
    try:
        path.write_text(value)
    except OSError as error:
        pytest.skip(f"{path} cannot be set to {value} here: {error}")
    try:
        yield
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("name", "value", "backing"),
    [
        ("enabled", "never", "auto"),
        ("enabled", "never", "thp"),
        ("shmem_enabled", "never", "memfd"),
        ("shmem_enabled", "deny", "memfd"),
        ("shmem_enabled", "deny", "auto"),
    ],
)
@pytest.mark.alone
def test_huge_pages_switched_off_on_the_machine(python, tmp_path, name, value, backing):
    with setting(THP / name, value):
        stats = same_as_plain(python, tmp_path, env={"PYHUGETEXT_BACKING": backing})
    assert stats["kernel"]["thp_enabled" if name == "enabled" else name] == value
    # Kernels differ in whether MADV_COLLAPSE heeds the switch; what is claimed must be true.
    if not stats["active"]:
        assert "MADV_" in told_causes(stats) or "no 2 MiB page" in told_causes(stats)
    else:
        assert stats["huge_bytes"] > 0


def test_empty_pool_of_reserved_pages(python, tmp_path):
    free = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    if free.is_file() and free.read_text().strip() != "0":
        pytest.skip("the hugetlb pool of this machine is not empty")
    stats = same_as_plain(python, tmp_path, env={"PYHUGETEXT_BACKING": "hugetlb"})
    assert not stats["active"]
    assert "mmap failed with E" in told_causes(stats)


def test_tiny_limit_of_mappings_at_start(python, tmp_path):
    # The real setting is the machine's; what the core is told can be this process's.
    tiny = tmp_path / "max_map_count"
    tiny.write_text("70\n")
    prefix = in_own_mounts(f"mount --bind {tiny} /proc/sys/vm/max_map_count")
    stats = same_as_plain(python, tmp_path, prefix=prefix)
    assert not stats["active"]
    assert "vm.max_map_count" in told_causes(stats)


MANY_MAPPINGS = """
    import ctypes, json, mmap, sys
    import pyhugetext
    sys.path.insert(0, sys.argv[2])
    from support.harm import work

    library = ctypes.CDLL(sys.argv[1])
    library.f_sum.restype = ctypes.c_long
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    PAGE = 4096

    def count():
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)

    def add(mappings):  # every other page gets another protection, so none can be joined
        size = (mappings + 1) * PAGE
        base = libc.mmap(None, size, mmap.PROT_READ, 0x22, -1, 0)
        for i in range(0, mappings, 2):
            if libc.mprotect(base + i * PAGE + PAGE, PAGE, 0):
                break
        return base, size
"""


@pytest.mark.parametrize("backing", ["auto", "thp"])
def test_ten_thousand_mappings_are_no_obstacle(python, compile_library, backing):
    library = compile_library(big_source(125, padding=20_000))
    code = (
        MANY_MAPPINGS
        + """
    add(6000); add(6000)
    assert count() > 12000
    stats = pyhugetext.remap(backing=sys.argv[3])
    assert 0 <= stats.coverable_bytes - stats.mapped_bytes < 256 << 10, str(stats)  # as in test_startup.py
    assert stats.huge_bytes >= stats.mapped_bytes > 0
    results = work(), library.f_sum(7)
    after = pyhugetext.restore()
    assert after.mapped_bytes == 0, str(after)
    assert results == (work(), library.f_sum(7))
    print(results[1], any(sys.argv[1] == r.path for r in stats.regions))
    """
    )
    result = python(code, str(library), str(TESTS), backing)
    assert (result.stdout, result.stderr) == (f"{big_sum(7, 125)} True\n", "")


def test_near_the_limit_of_mappings_nothing_is_tried(python, compile_library):
    maximum = int(Path("/proc/sys/vm/max_map_count").read_text())
    if maximum > 300_000:
        pytest.skip(f"vm.max_map_count is {maximum}: too many to make in a test")
    library = compile_library(big_source(125, padding=20_000))
    code = (
        MANY_MAPPINGS
        + """
    from pyhugetext import _native
    maximum, results = int(sys.argv[3]), (work(), library.f_sum(7))
    base, size = add(maximum - count() - 40)
    near = count()
    stats = pyhugetext.remap()
    assert not stats.mapped_bytes, str(stats)
    reasons = {r.reason for r in stats.regions if r.coverable_bytes >= 256 << 10}
    results_near = work(), library.f_sum(7)
    more, more_size = add(200)  # now there is not one left, not even for malloc
    try:
        _native.remap()
        _native.restore()
    except MemoryError:
        pass
    # (not by stats(), which reads every mapping there is)
    results_at = library.f_sum(7)
    libc.munmap(base, size)
    libc.munmap(more, more_size)
    assert results_near == results and results_at == results[1]
    # And with room again it is done as always.
    stats = pyhugetext.remap()
    assert 0 <= stats.coverable_bytes - stats.mapped_bytes < 256 << 10, str(stats)  # as in test_startup.py
    print(json.dumps([maximum - near, sorted(reasons)]))
    """
    )
    result = python(code, str(library), str(TESTS), str(maximum), env={"PYHUGETEXT": "0"})
    left, reasons = json.loads(result.stdout)
    assert left >= 0
    assert all("vm.max_map_count" in reason for reason in reasons), reasons
    assert reasons
    assert result.stderr == ""


# --- resource limits ---


def smallest(python: Any, tmp_path: Path, which: int, begin: int, step: int) -> int:
    """The smallest limit, in steps, under which the program runs with the package turned off, and
    stats() too: below that it depends on luck in which of its steps memory runs out, and whether
    that is the one it survives."""
    told = tmp_path / "plain.json"
    for value in range(begin, begin + 64 * step, step):
        result = python(
            PROGRAM,
            str(told),
            env={"PYHUGETEXT": "0"},
            check=False,
            preexec_fn=limit(which, value),
        )
        runs = (result.returncode, result.stderr) == (3, "on stderr\n")
        if runs and "failed" not in json.loads(told.read_text()):
            return value
    raise AssertionError("the program does not run under this limit at all")


def peak(python: Any, field: str) -> int:
    """What a python without the package needs, in bytes, as /proc/self/status tells it."""
    code = f"""
        import json, re
        print(re.search(r"{field}:\\s+(\\d+)", open("/proc/self/status").read())[1])
    """
    return int(python(code, env={"PYHUGETEXT": "0"}).stdout) * 1024


# The module of the start-up path and its tables take 140 KiB of addresses. That may be what makes
# Python ask for one arena more, which has 1 MiB since 3.10, and no two starts need quite the same.
@pytest.mark.parametrize("room", [2, 4, 8])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "nothing stored"])
def test_limited_address_space(python, tmp_path, room, stored):
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    if stored:
        python("", env=env)
    begin = peak(python, "VmPeak")
    enough = smallest(python, tmp_path, resource.RLIMIT_AS, begin, MIB) + room * MIB
    stats = same_as_plain(python, tmp_path, env=env, preexec_fn=limit(resource.RLIMIT_AS, enough))
    # Where there was no room for the package's own modules, it had to do without stats().
    told = stats.get("failed") or ("" if stats["active"] else told_causes(stats))
    causes = ("ENOMEM", "no memory", "failed to map", "Cannot allocate", "MemoryError")
    causes += ("memory limit",)
    assert not told or any(cause in told for cause in causes)


TOLD = """
    import json, re
    size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
    import pyhugetext
    stats = pyhugetext.stats()
    print(json.dumps([size, stats.backing, [r.reason for r in stats.regions if r.reason]]))
"""


@pytest.mark.parametrize("which", [resource.RLIMIT_AS, resource.RLIMIT_DATA], ids=["AS", "DATA"])
@pytest.mark.parametrize("build", ["auto", "always"])
def test_nothing_is_built_where_little_memory_is_left(python, tmp_path, which, build):
    env = {"PYHUGETEXT_STORE": str(tmp_path / "store"), "PYHUGETEXT_BUILD": build}
    env["PYHUGETEXT_BACKING"] = "store"
    begin = peak(python, "VmPeak" if which == resource.RLIMIT_AS else "VmData")
    near = smallest(python, tmp_path, which, begin, MIB) + 4 * MIB
    options = {"env": env, "preexec_fn": limit(which, near)}
    _, _, reasons = json.loads(python(TOLD, **options).stdout)
    assert (tmp_path / "store").exists() == (build == "always")
    assert any("RLIMIT_AS" in reason for reason in reasons) == (build == "auto"), reasons


def test_a_build_leaves_the_address_space_nearly_as_it_was(python, tmp_path):
    # Twice the same start, but for what it finds: of a build nothing stays.
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    sizes = [json.loads(python(TOLD, env=env).stdout)[0] for _ in range(2)]
    if not (tmp_path / "pyhugetext/v1/index").is_dir():
        pytest.skip("nothing is built here")
    assert sizes[0] - sizes[1] < 256


@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_limited_data(python, tmp_path, backing):
    begin = peak(python, "VmData")
    enough = smallest(python, tmp_path, resource.RLIMIT_DATA, begin, MIB) + 3 * MIB
    stats = same_as_plain(
        python,
        tmp_path,
        env={"PYHUGETEXT_BACKING": backing},
        preexec_fn=limit(resource.RLIMIT_DATA, enough),
    )
    # A memory file is no data, and what is executable is none either; but anonymous memory is
    # writable at first.
    assert stats["active"] or (backing == "thp" and "memory limit" in told_causes(stats)), stats


def test_limited_file_size(python, tmp_path):
    stats = same_as_plain(
        python,
        tmp_path,
        env={"PYHUGETEXT_BACKING": "memfd"},
        preexec_fn=limit(resource.RLIMIT_FSIZE, MIB),
    )
    assert not stats["active"]
    assert "ftruncate failed with EFBIG" in told_causes(stats)


@pytest.mark.parametrize("backing", ["auto", "memfd"])
def test_limited_file_size_does_not_kill_where_the_signal_is_not_ignored(python, backing):
    # Python ignores SIGXFSZ, embedding programs need not.
    code = """
        import signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        import pyhugetext
        stats = pyhugetext.remap(backing=sys.argv[1])
        import os
        print(stats.backing, *[r.reason for r in stats.regions if r.coverable_bytes])
    """
    result = python(
        code, backing, env={"PYHUGETEXT": "0"}, check=False,
        preexec_fn=limit(resource.RLIMIT_FSIZE, MIB),
    )  # fmt: skip
    assert result.returncode != -signal.SIGXFSZ, "the program was killed by SIGXFSZ"
    assert (result.returncode, result.stderr) == (0, "")
    assert "EFBIG" in result.stdout or backing == "auto"


def test_limited_descriptors(python):
    for value in range(3, 9):
        results = [
            python(
                "print(6 * 7)",
                env=env,
                check=False,
                preexec_fn=limit(resource.RLIMIT_NOFILE, value),
            )
            for env in ({"PYHUGETEXT": "0"}, {})
        ]
        plain, active = ((r.returncode, r.stdout, r.stderr) for r in results)
        assert active == plain, f"with {value} descriptors"
    assert plain == (0, "42\n", "")


@pytest.mark.parametrize("left", [0, 1, 2])
def test_no_descriptor_left(python, left):
    code = """
        import os, sys
        import pyhugetext, pyhugetext._boot, pyhugetext._stats.collecting
        remap, restore = pyhugetext.remap, pyhugetext.restore
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for _ in range(int(sys.argv[1])):
            os.close(taken.pop())
        stats = remap()
        told = [stats.reason or "", *stats.problems, *(r.reason or "" for r in stats.regions)]
        if stats.mapped_bytes < stats.coverable_bytes or not stats.coverable_bytes:
            assert any("EMFILE" in text for text in told), str(stats)
        restore()
        for descriptor in taken:
            os.close(descriptor)
        assert remap().active and not restore().active
    """
    result = python(
        code,
        str(left),
        env={"PYHUGETEXT": "0"},
        preexec_fn=limit(resource.RLIMIT_NOFILE, 64),
    )
    assert (result.stdout, result.stderr) == ("", "")


# --- memory that is locked, and /proc that is not there ---


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
