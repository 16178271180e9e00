"""The builder with every one of its system calls failing, or being its last: the program runs on,
and the next start has a good entry."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.common import TESTS
from support.faults import CHANGING, ERRORS, Call, calls_of_ours
from support.host import modules
from support.store import REPORT, Store, parse_report, require_huge_disk
from support.users import namespace

# 1 lets each call fail in each way, which takes an hour; without, a part is taken, each day another.
STEP = int(os.environ.get("STEP", "0"))
PART = int(os.environ.get("PART", str(time.time_ns() // 86_400_000_000_000)))
AT_A_TIME = 10
MARK = "\nimport os; os.getppid()\n"  # the end of what is looked at


@dataclass
class Scene:
    """A program and the store that it starts with."""

    store: Store
    log: Path
    code: str
    cold: bool

    def prepare(self) -> None:
        if self.cold:
            shutil.rmtree(self.store.base.parent, ignore_errors=True)
        elif len(self.store.copies) != 2:
            self.store.start(self.code)

    def trace(self, *arguments: str) -> tuple[str, ...]:
        return ("strace", "-f", "-i", "-y", "-qq", "-o", str(self.log), *arguments)

    def calls(self) -> list[Call]:
        self.prepare()
        self.store.start(self.code, prefix=self.trace(), PYTHONHASHSEED="0")
        return list(calls_of_ours(self.log))

    def inject(self, call: Call, what: str) -> tuple[str, ...]:
        self.prepare()
        names = ",".join({call.name, "mmap", "getppid", *CHANGING})
        fault = f"inject={call.name}:{what}:when={call.number}"
        return self.trace("-e", f"trace={names}", "-e", fault)

    def recovers(self, told: object) -> None:
        """An entry that could not be made is tried again the next day, which is now."""
        store = self.store
        for record in store.records:
            if record.read_bytes().startswith(b"PHTNONE"):
                os.utime(record, (1, 1))
        for last in (False, True):
            report = store.start(self.code)
            assert report.interpreter["backing"] == store.backing, (told, report.reasons)
            assert len(store.copies) == len(store.records) == 2, told
            if not report.built:
                break
            assert not last, ("an entry is there, and was built again", told)


@pytest.fixture(params=["cold", "warm", "shm"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A start and an import that find nothing built, or all; on disk, or nothing in memory."""
    if request.param != "shm":
        require_huge_disk(tmp_path)
        yield make_scene(Store(tmp_path / "store"), tmp_path, request.param == "cold")
        return
    with namespace() as space:
        yield make_scene(space.shm_store(), tmp_path, True)


def make_scene(store: Store, tmp_path: Path, cold: bool) -> Scene:
    if not shutil.which("strace") or store.run("pass", prefix=("strace", "-o", "/dev/null")).stderr:
        pytest.skip("strace is not installed, or may not trace here")
    code = f"import sys; sys.path.insert(0, {modules()!r})\nimport hostbig; del sys.path[0]{MARK}"
    return Scene(store, tmp_path / "log", code, cold)


def part_of(calls: list[Call]) -> list[tuple[Call, str]]:
    faults = [(call, error) for call in calls
              for error in [*ERRORS.get(call.name, "").split(), "EPERM"]]  # fmt: skip
    if STEP:
        return faults[PART % STEP :: STEP]
    step = max(len(faults) // AT_A_TIME, 1)
    return faults[PART % step :: step]


def test_program_does_not_notice_a_failing_call_of_ours(scene: Scene) -> None:
    calls = scene.calls()
    assert len(calls) > (300 if scene.cold else 100)
    faults = part_of(calls)
    missed, noticed = 0, []
    for call, error in faults:
        told = (PART, call.name, call.number, error, call.text)
        prefix = scene.inject(call, f"error={error}")
        try:
            failure = ""
            scene.store.start(scene.code, prefix=prefix, PYTHONHASHSEED="0")
            made = list(calls_of_ours(scene.log))
            outside = [one for one in made if not one.stays_below(scene.store.root)]
            assert outside == []
            scene.recovers(told)
        except AssertionError as error_:
            failure = str(error_)
        if not any(one.injected for one in calls_of_ours(scene.log)):
            missed += 1  # it was Python's own, which made one more than before
        elif failure:
            noticed.append((*told, failure))
            shutil.rmtree(scene.store.root, ignore_errors=True)
    print(f"{len(faults)} faults in {len(calls)} calls, {missed} of them not where meant")
    assert not noticed, "\n".join(map(str, noticed))
    assert missed <= len(faults) / 4


def test_store_is_not_made_without_memory(tmp_path: Path) -> None:
    """One of the few calls whose failure did end a program."""
    require_huge_disk(tmp_path)
    scene = make_scene(Store(tmp_path / "store"), tmp_path, True)
    calls = scene.calls()
    made = next(i for i, call in enumerate(calls) if call.name == "mkdirat")
    last = max(i for i, call in enumerate(calls[:made]) if call.name == "mmap")
    prefix = scene.inject(calls[last], "error=ENOMEM")
    scene.store.start(scene.code, prefix=prefix, PYTHONHASHSEED="0")
    scene.recovers(calls[last])


@pytest.mark.parametrize("how", ["KILL", "TERM"])
def test_builder_may_end_at_any_call(tmp_path: Path, how: str) -> None:
    """By a signal that the program does nothing about."""
    require_huge_disk(tmp_path)
    scene = make_scene(Store(tmp_path / "store"), tmp_path, True)
    calls = scene.calls()
    step = STEP or max(len(calls) // AT_A_TIME, 1)
    for call in calls[PART % step :: step]:
        prefix = scene.inject(call, f"signal={how}")
        command = [*prefix, sys.executable, "-c", scene.code + REPORT]
        environ = scene.store.environment(PYTHONHASHSEED="0")
        ended = subprocess.run(command, env=environ, capture_output=True, check=False)
        # strace ends as the program did.
        assert ended.returncode == -getattr(signal, f"SIG{how}"), (ended, call)
        scene.store.start(scene.code, PYHUGETEXT_BUILD="never")
        scene.recovers((PART, how, call))
        leaves_little(scene.store)


def leaves_little(store: Store) -> None:
    """What a killed builder left goes when somebody writes next. A copy never stays longer."""
    left = [path for path in store.leftovers if path.is_dir() or path.stat().st_size > 16 << 10]
    assert left == []


def test_report_is_read_from_a_plain_run(tmp_path: Path) -> None:
    """That these tests would see a wrong answer."""
    with pytest.raises(AssertionError):
        parse_report('{"answer": 1, "wrong": [], "maps": [], "modules": [], "stats": {}}')


REFUSE_COLLAPSE = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from support.harm import MADV_COLLAPSE, NUMBERS, install, refuse_rule
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
