"""Entries that grow do a program no harm, and come to their end, whatever was done to them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.common import HUGE, tool
from support.growing import FAR, USE_FAR, bits, chunks_of, make_far, record_of, use, verify
from support.libraries import USE_LIBRARY, make_library
from support.limits import in_own_mounts
from support.store import Store
from support.users import namespace, require_root


def evict(copy: Path) -> None:
    with open(copy, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def evict_part(copy: Path, chunks: set[int]) -> None:
    with open(copy, "rb") as file:
        os.fsync(file.fileno())
        for chunk in chunks:
            os.posix_fadvise(file.fileno(), chunk * HUGE, HUGE, os.POSIX_FADV_DONTNEED)


# From now on openat(2) kills.
OPENAT = {"x86_64": 257, "aarch64": 56}.get(platform.machine())
KILL_OPEN = f"""
import ctypes, struct
libc = ctypes.CDLL(None)
code = b"".join(struct.pack("<HBBI", *i) for i in [
    (0x20, 0, 0, 0), (0x15, 0, 1, {OPENAT}), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7fff0000)])
keep = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(keep)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
"""
LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""


def test_end_of_a_program_makes_no_call(store: Store, tmp_path: Path) -> None:
    """It may have given itself a filter that kills for them."""
    library = make_library(tmp_path)
    for _ in range(2):
        store.run(USE_LIBRARY, str(library), PYHUGETEXT_BUILD_TIME="10s")
    result = store.run(USE_LIBRARY + KILL_OPEN, str(library))
    assert (result.returncode, result.stderr) == (0, "")


def test_end_of_a_program_with_a_part_of_an_entry_makes_no_call(store: Store, far: Path) -> None:
    use(store, far, "3")
    result = store.run(USE_FAR + KILL_OPEN, str(far), "3", "20")
    assert (result.returncode, result.stderr) == (0, "")


def test_nothing_is_noted_where_files_may_not_be_written(store: Store, far: Path) -> None:
    use(store, far, "3")
    result = store.run(USE_FAR + LIMIT, str(far), "3", "20")
    assert (result.returncode, result.stderr) == (0, "")


def test_copy_that_differs_late_is_not_taken_again_and_again(store: Store, tmp_path: Path) -> None:
    libraries = [make_far(tmp_path / "a"), make_far(tmp_path / "b", g20="x * 5 + 20")]
    assert libraries[0].stat().st_size == libraries[1].stat().st_size
    code = USE_FAR.replace("21 + int(n)", "(35 if library_is_b and n == '20' else 21) + int(n)")
    code = code.replace(
        "import pyhugetext\n", "import pyhugetext\nlibrary_is_b = '/b/' in sys.argv[1]\n"
    )
    for _ in range(3):
        assert store.run(code, str(libraries[0]), "3,10,20,30").returncode == 0
    wanted = chunks_of(libraries[1], 3, 10, 20, 30)
    seen = []
    for _ in range(30):
        result = store.run(code, str(libraries[1]), "3,10,20,30", PYHUGETEXT_BUILD_TIME="0")
        assert (result.returncode, result.stderr) == (0, "")
        there = bits(record_of(store, libraries[1])[1].present)
        seen.append(sorted(there))
        if wanted <= there:
            break
    assert wanted <= there, seen
    verify(store)


@pytest.mark.parametrize("known", ["durable", "proven"])
def test_entry_that_is_not_all_cached_stays_when_a_page_is_added(
    store: Store, far: Path, known: str
) -> None:
    """As after a reboot, or where other programs used the memory."""
    for _ in range(3):
        use(store, far, "3,10,15,30,36", PYHUGETEXT_BUILD_TIME="10s")
    path, record = record_of(store, far)
    copy = store.base / record.path
    there = bits(record.present)
    if known == "durable":
        path.write_bytes(replace(record, boot_id=bytes(16)).pack())
    else:
        path.chmod(0o400)
    evict(copy)
    hour = copy.stat().st_mtime - 3600
    os.utime(copy, (hour, hour))
    out = []
    for _ in range(4):
        told = use(store, far, "3,22", PYHUGETEXT_BUILD_TIME="0")
        _, record = record_of(store, far)
        evict_part(copy, chunks_of(far, 30, 36))
        told = use(store, far, "3", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")
        out.append((told["backing"], told["fallbacks"], sorted(bits(record.present))))
        evict_part(copy, chunks_of(far, 30, 36))
    assert chunks_of(far, 22) <= bits(record.present)
    assert all(backing == "store" for backing, _, _ in out), out
    assert there <= bits(record.present), out
    verify(store)


def test_cached_holes_do_not_stand_for_what_was_dropped(store: Store, far: Path) -> None:
    """A page that is gone may have been lost when it was to be written back."""
    for _ in range(3):
        use(store, far, "3,10,15,30", PYHUGETEXT_BUILD_TIME="10s")
    path, record = record_of(store, far)
    copy = store.base / record.path
    path.chmod(0o600)
    evict(copy)
    with open(copy, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while file.read(HUGE):
            pass
    evict_part(copy, chunks_of(far, 30))
    told = use(store, far, "3", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")
    assert path.stat().st_mode & 0o777 == 0o600
    assert told["backing"] == "none"
    # Whoever builds next compares it.
    use(store, far, "3", PYHUGETEXT_BUILD_TIME="10s")
    assert use(store, far, "3")["backing"] == "store"
    verify(store)


def test_page_that_the_kernel_does_not_collapse_costs_nobody_the_rest(far: Path) -> None:
    with namespace() as space:
        store = space.shm_store()
        for _ in range(2):
            use(store, far, "3,10", PYHUGETEXT_BUILD_TIME="10s")
        told = use(store, far, "3,10", PYHUGETEXT_BUILD="never")
        assert told["backing"] == "shm", told
        # PR_SET_THP_DISABLE
        disable = "ctypes.CDLL(None).prctl(41, 1, 0, 0, 0); call('30'); pyhugetext.remap()\n"
        result = store.run(USE_FAR + disable, str(far), "3,10", PYHUGETEXT_BUILD_TIME="10s")
        assert (result.returncode, result.stderr) == (0, "")
        again = use(store, far, "3,10", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")
        assert again["backing"] == "shm"
        assert again["swapped_bytes"] >= told["swapped_bytes"]


FORKED = """
import ctypes, os, sys
import pyhugetext
def use(path):
    ctypes.CDLL(path)
    pyhugetext.remap(include=path)
use(sys.argv[1])
child = os.fork()
if child == 0:
    use(sys.argv[2])
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_forked_worker_builds_what_its_parent_did_not_load(store: Store, tmp_path: Path) -> None:
    """A server that forks before its workers import: what the parent took of its time is not
    theirs."""
    libraries = []
    for name in ("parent", "worker"):
        (tmp_path / name).mkdir()
        libraries.append(make_library(tmp_path / name))
    store.fill()
    result = store.run(FORKED, *map(str, libraries), PYHUGETEXT_BUILD_TIME="0")
    assert (result.returncode, result.stderr) == (0, "")
    for library in libraries:
        assert record_of(store, library)


def failing(call: str, error: str) -> tuple[str, ...]:
    return (tool("strace"), "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
            "-e", f"inject={call}:{'signal=' if error.startswith('KILL') else 'error='}{error}")  # fmt: skip


@pytest.mark.parametrize("call", ["renameat2", "unlinkat"])
def test_builder_killed_while_it_replaces_a_copy_leaves_one(
    store: Store, far: Path, call: str
) -> None:
    """One was killed within a chunk before: it is neither blank nor the file's."""
    (number,) = chunks_of(far, 30)
    for kill in range(1, 6):
        use(store, far, "3")
        _, record = record_of(store, far)
        copy = store.base / record.path
        assert number not in bits(record.present)
        copy.chmod(0o600)
        with copy.open("r+b") as file:
            os.pwrite(file.fileno(), b"x", number * HUGE)
        copy.chmod(0o400)
        died = store.run(USE_FAR, str(far), "3,30", prefix=failing(call, f"KILL:when={kill}"))
        use(store, far, "3,30")
        assert chunks_of(far, 30) <= bits(record_of(store, far)[1].present)
        assert len([path for path in store.copies if path.name == far.name]) == 1
        verify(store)
        if died.returncode == 0:
            break
        subprocess.run(
            [sys.executable, "-m", "pyhugetext", "store", "clear"],
            env=store.environment(), check=True, capture_output=True,
        )  # fmt: skip
    assert kill > 1
    assert died.returncode == 0


def test_what_only_this_process_could_not_do_is_tried_again(store: Store, far: Path) -> None:
    use(store, far, "3")
    _, before = record_of(store, far)
    result = store.run(USE_FAR, str(far), "3,20", prefix=failing("pwrite64", "ENOMEM"))
    assert result.returncode == 0
    _, record = record_of(store, far)
    assert (record.present, record.rests_until) == (before.present, 0)
    use(store, far, "3,20")
    assert chunks_of(far, 20) <= bits(record_of(store, far)[1].present)


@pytest.mark.parametrize("told", ["error=EINVAL", "retval=0"], ids=["unknown", "never blank"])
def test_entry_stays_usable_where_the_file_system_does_not_tell_of_holes(
    store: Store, far: Path, told: str
) -> None:
    """Or has none: what is not there yet cannot be told from what somebody wrote."""
    use(store, far, "3")
    _, before = record_of(store, far)
    prefix = (tool("strace"), "-f", "-qq", "-o", "/dev/null", "-e", "trace=lseek",
              "-e", f"inject=lseek:{told}")  # fmt: skip
    result = store.run(USE_FAR, str(far), "3,20", prefix=prefix)
    assert (result.returncode, result.stderr) == (0, "")
    _, record = record_of(store, far)
    assert bits(before.present) <= bits(record.present)
    assert use(store, far, "3", PYHUGETEXT_BUILD="never")["backing"] == "store"
    verify(store)


def test_what_could_be_compared_is_kept_where_the_disk_is_full(store: Store, far: Path) -> None:
    """An entry that nobody saw on disk, and that has to be compared, serves all the same."""
    use(store, far, "3,30")
    path, record = record_of(store, far)
    copy = store.base / record.path
    evict(copy)
    path.chmod(0o600)
    hour = copy.stat().st_mtime - 3600
    os.utime(copy, (hour, hour))
    assert use(store, far, "3", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")[
        "backing"
    ] == "none"  # fmt: skip
    result = store.run(USE_FAR, str(far), "3,20,30", prefix=failing("pwrite64", "ENOSPC"))
    assert result.returncode == 0
    _, record = record_of(store, far)
    assert record.rests_until
    told = use(store, far, "3,30", PYHUGETEXT_BUILD="never", PYHUGETEXT_PRIVATE_LIMIT="0")
    assert told["backing"] == "store", told
    verify(store)


def test_object_larger_than_the_store_has_its_used_pages_in_it(store: Store, far: Path) -> None:
    limit = {"PYHUGETEXT_STORE_LIMIT": "24M"}
    use(store, far, "3,30", **limit)
    told = use(store, far, "3,30", **limit)
    assert told["backing"] == "store"
    _, record = record_of(store, far)
    assert chunks_of(far, 3, 30) <= bits(record.present)
    assert sum(path.stat().st_blocks * 512 for path in store.copies) <= 24 << 20
    use(store, far, "3,30", **limit)
    before = store.fingerprint()
    use(store, far, "3,30", **limit)
    assert store.fingerprint() == before, "it was tried again"


def test_start_that_adds_to_an_entry_waits_for_no_disk(store: Store, far: Path) -> None:
    use(store, far, "3")
    path, record = record_of(store, far)
    path.chmod(0o400)
    evict(store.base / record.path)
    trace = store.root.parent / "calls"
    prefix = (tool("strace"), "-f", "-qq", "-o", str(trace), "-e", "trace=fsync,fdatasync,pwrite64")
    result = store.run(USE_FAR, str(far), "3,20", prefix=prefix)
    assert (result.returncode, result.stderr) == (0, "")
    told = trace.read_text()
    assert "pwrite64" in told
    assert "sync(" not in told


def test_object_in_many_runs_keeps_away_from_the_limit_of_mappings(
    store: Store, far: Path, tmp_path: Path
) -> None:
    require_root()  # in a user namespace no store is trusted
    for _ in range(3):
        use(store, far, ",".join(map(str, range(FAR))))
    path, record = record_of(store, far)
    present = bytes(byte & 0x55 for byte in record.present)
    path.write_bytes(replace(record, present=present, lacking=12).pack())
    limit = tmp_path / "limit"
    limit.write_text("65530")
    few = """
import ctypes, sys
import pyhugetext
library = ctypes.CDLL(sys.argv[1])
count = sum(1 for _ in open("/proc/self/maps"))
open("/proc/sys/vm/max_map_count", "w").write(str(count + 90))
stats = pyhugetext.remap()
(region,) = (r for r in stats.regions if r.path == sys.argv[1])
assert region.backing == "none", region
assert "vm.max_map_count" in " ".join([region.reason, *region.fallbacks]), region
"""
    mounted = in_own_mounts(f"mount --bind {limit} /proc/sys/vm/max_map_count")
    result = store.run(few, str(far), prefix=mounted, PYHUGETEXT_BUILD="never")
    assert (result.returncode, result.stderr) == (0, "")
