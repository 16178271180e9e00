"""The builder with every one of its system calls failing, or being its last: the program runs on,
and the next start has a good entry."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers_store import REPORT, Store, namespace, parse_report, require_huge_disk

CHANGING = (
    "mkdirat,renameat2,unlinkat,fchmod,fchmodat,utimensat,pwrite64,write,ftruncate,fcntl,statfs,"
    "fstatfs,fdatasync,fsync,fadvise64,getdents64,statx,pread64"
)


def calls_of_a_build(store: Store, log: Path) -> list[tuple[str, int]]:
    """The changing system calls of a cold start, each with its number among its like."""
    prefix = ("strace", "-f", "-o", str(log), "-e", f"trace={CHANGING}")
    if not shutil.which("strace") or store.run("pass", prefix=("strace", "-o", "/dev/null")).stderr:
        pytest.skip("strace is not installed, or may not trace here")
    shutil.rmtree(store.root, ignore_errors=True)
    store.start(prefix=prefix)
    counts: dict[str, int] = {}
    calls = []
    for line in log.read_text().splitlines():
        found = re.match(r"\d+ +(\w+)\(", line)
        if found:
            name = found[1]
            counts[name] = counts.get(name, 0) + 1
            calls.append((name, counts[name], line))
    # Before the store's first directory is made, it is Python's own start.
    first = next(i for i, call in enumerate(calls) if call[0].startswith("mkdir"))
    last = max(i for i, call in enumerate(calls) if call[0].startswith("rename"))
    return [(name, number) for name, number, _ in calls[first : last + 1]]


def inject(name: str, number: int, what: str) -> tuple[str, ...]:
    fault = f"inject={name}:{what}:when={number}"
    return ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", fault)


# Together they fail every call; STEP=1 in the environment lets each of them fail every call.
STEP = int(os.environ.get("STEP", "0"))
ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EACCES")


@pytest.mark.parametrize("error", ERRORS)
def test_program_does_not_notice_a_failing_call_of_the_builder(tmp_path: Path, error: str) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    calls = calls_of_a_build(store, tmp_path / "log")
    assert len(calls) > 10
    for name, number in calls[ERRORS.index(error) :: STEP or len(ERRORS)]:
        shutil.rmtree(store.root, ignore_errors=True)
        report = store.start(prefix=inject(name, number, f"error={error}"))
        if report.interpreter["backing"] != "store":
            assert report.reasons, (name, number)
        report = store.start()
        forget_notes(store)
        store.recovers()
        assert len(store.copies) == len(store.records) == 1, (name, number)


def forget_notes(store: Store) -> None:
    """An entry that could not be made is tried again the next day: that is now."""
    for record in store.records:
        if record.read_bytes().startswith(b"PHTNONE"):
            os.utime(record, (1, 1))


def test_builder_may_be_killed_at_any_call(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    calls = calls_of_a_build(store, tmp_path / "log")
    assert len(calls) > 10
    for name, number in calls[:: STEP or 2]:
        shutil.rmtree(store.root, ignore_errors=True)
        subprocess.run(
            [*inject(name, number, "signal=KILL"), sys.executable, "-c", REPORT],
            env=store.environment(),
            capture_output=True,
            check=False,
        )
        store.start(PYHUGETEXT_BUILD="never")
        if store.records:
            # It was done, but for what goes when somebody builds next.
            store.is_good(is_swept=False)
            store.record.unlink()
        store.recovers()
        assert len(store.copies) == len(store.records) == 1, (name, number)


def test_report_is_read_from_a_plain_run(tmp_path: Path) -> None:
    """That these tests would see a wrong answer."""
    with pytest.raises(AssertionError):
        parse_report('{"answer": 1, "wrong": [], "maps": [], "modules": [], "stats": {}}')


REFUSE_COLLAPSE = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from helpers_harm import MADV_COLLAPSE, NUMBERS, install, refuse_rule
install(refuse_rule((NUMBERS["madvise"], (2, MADV_COLLAPSE, False), int(sys.argv[1]))))
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("refusal", [errno.EAGAIN, errno.EINVAL])
def test_what_may_pass_or_is_one_process_s_own_is_tried_again(refusal: int) -> None:
    refuse = (sys.executable, "-S", "-c", REFUSE_COLLAPSE, str(refusal))
    with namespace() as space:
        store = space.shm_store()
        report = store.start(prefix=refuse)
        assert f"({errno.errorcode[refusal]})" in report.reasons
        assert store.copies == []
        (note,) = store.records
        assert not store.start().built
        os.utime(note, (at := note.stat().st_mtime - 60, at))
        report = store.start()
        assert report.built
        assert report.interpreter["backing"] == "shm"


def test_process_without_huge_pages_does_not_spoil_the_store(tmp_path: Path) -> None:
    disable = "import ctypes, os, sys; ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)\n"
    disable += "os.execvp(sys.argv[1], sys.argv[1:])"
    with namespace() as space:
        store = space.shm_store()
        report = store.start(prefix=(sys.executable, "-S", "-c", disable))
        assert report.interpreter["backing"] != "shm"
        for note in store.records:
            os.utime(note, (at := note.stat().st_mtime - 60, at))
        assert store.start().interpreter["backing"] == "shm"


def test_verdict_of_a_bad_moment_is_given_again_the_next_day(tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    store.start()
    verdict = store.base / "verdict"
    verdict.write_text(verdict.read_text().replace("written", "never"))
    for path in (*store.records, *(copy.parent for copy in store.copies)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "gives no huge pages to new files" in store.start().reasons
    for path in (verdict, *store.records):
        os.utime(path, (at := path.stat().st_mtime - 86400, at))
    store.recovers()
