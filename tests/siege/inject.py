"""Every system call of ours, from the first to the last of a start and an import, failing with each
errno that it may have: the program must not notice. `make inject` runs it.

    python tests/siege/inject.py [--only store-cold,memfd] [--part N/M] [--processes 2]

A difference from the same program without the package, in exit status, stdout or stderr, is printed
with the command that shows it again, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import os
import queue
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.attaching import kind_of_this
from support.common import clean_environment
from support.faults import ERRORS, Call, calls_of_ours
from support.host import SMALL, SOURCE

BROKEN = "INJECT_BROKEN" in os.environ  # for the test that a difference is seen
SECONDS = 60  # after which a program hangs
ALWAYS = "EPERM"  # what a filter answers
# 451, where strace has no name for it: fails always, by a filter, as strace(1) can do only by name.
NAMELESS = {"cachestat": (451, "EPERM ENOSYS EOPNOTSUPP EBADF")}

PROGRAM = """
import sys
sys.path.insert(0, {modules!r})
import injected
print("result", injected.triple(14), sum(map(len, map(str, range(500)))))
print("told", file=sys.stderr)
sys.exit(3)
"""
REFUSE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from support.harm import install, refuse_rule
install(refuse_rule((int(sys.argv[2]), None, int(sys.argv[3]))))
os.execv(sys.argv[4], sys.argv[4:])
"""


@dataclass(frozen=True)
class Scene:
    """How the program is started: on which backing, and whether its store is there."""

    backing: str
    warm: bool
    shared_memory: bool = False  # whether /dev/shm has to be the harness's own


SCENES = {
    "store-cold": Scene("store", False),
    "store-warm": Scene("store", True),
    "shm-cold": Scene("shm", False, True),
    "shm-warm": Scene("shm", True, True),
    "auto-cold": Scene("auto", False, True),
    "memfd": Scene("memfd", False),
    "thp": Scene("thp", False),
    "hugetlb": Scene("hugetlb", False),
    "file": Scene("file", False),
}
STORES = ("store", "shm", "auto")


@dataclass(frozen=True)
class Fault:
    call: str
    rank: int  # among our calls of this name; -1: always
    number: int  # among all of the process
    error: str


Outcome = tuple[int, str, str]


class Place:
    """A directory with a store of its own, in which one program after the other is run."""

    def __init__(self, root: Path, scene: Scene, program: str) -> None:
        self.root, self.scene, self.program = root, scene, program
        root.mkdir()
        self.store = root / "store"
        self.log = root / "log"
        self._good: list[object] = []

    def _run(self, prefix: Sequence[str], **settings: str) -> Outcome:
        defaults = {
            "HOME": "/nonexistent", "PYHUGETEXT_STORE": str(self.store), "PYTHONHASHSEED": "0",
            "PYHUGETEXT_BACKING": self.scene.backing, "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        environ = clean_environment(**{**defaults, **settings})
        del environ["XDG_CACHE_HOME"]
        command = [*prefix, sys.executable, "-c", self.program]
        try:
            done = subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return -1, "", f"it did not end in {SECONDS} s"
        return done.returncode, done.stdout, done.stderr

    def plain(self) -> Outcome:
        return self._run((), PYHUGETEXT="0")

    def _stores(self) -> list[Path]:
        if not self.scene.shared_memory:
            return [self.store]
        return [self.store, Path(f"/dev/shm/pyhugetext-{os.geteuid()}")]

    def _state(self) -> list[object]:
        found: list[object] = []
        for top in self._stores():
            for directory, names, files in os.walk(top):
                status = os.stat(directory)
                found.append((directory, status.st_mtime_ns, sorted(names + files)))
        return sorted(found, key=str)

    def prepare(self) -> None:
        """The store as the scene wants it: empty, or with all that the program needs."""
        if self.scene.warm and self._good and self._state() == self._good:
            return
        for top in self._stores():
            shutil.rmtree(top, ignore_errors=True)
        if self.scene.warm:
            for _ in range(3):  # what is not urgent is added later
                self._run(())
            self._good = self._state()

    def traced(self, *arguments: str) -> Outcome:
        return self._run(("strace", "-f", "-i", "-y", "-qqq", "-o", str(self.log), *arguments))

    def calls(self) -> list[Call]:
        self.prepare()
        self.traced()
        return list(calls_of_ours(self.log))

    def nameless(self) -> set[str]:
        """Calls of the last trace that strace has no name for."""
        text = self.log.read_text(errors="replace")
        return {name for name, (number, _) in NAMELESS.items() if f"syscall_{number:#x}(" in text}

    def inject(self, fault: Fault) -> tuple[Outcome, bool]:
        """What came of it, and whether the call that failed was ours."""
        self.prepare()
        if fault.rank < 0:
            number, code = NAMELESS[fault.call][0], getattr(__import__("errno"), fault.error)
            prefix = (sys.executable, "-S", "-c", REFUSE, str(Path(__file__).parents[1]))
            return self._run((*prefix, str(number), str(code))), True
        what = f"inject={fault.call}:error={fault.error}:when={fault.number}"
        names = ",".join({fault.call, "mmap"})
        outcome = self.traced("--seccomp-bpf", "-e", f"trace={names}", "-e", what)
        ours = any(call.injected for call in calls_of_ours(self.log))
        if ours and BROKEN:
            outcome = (outcome[0], outcome[1], f"{outcome[2]}broken for a test")
        return outcome, ours

    def follow(self) -> Outcome:
        """The next start, with what the one before has left."""
        return self._run(())


@dataclass
class Result:
    runs: int = 0
    missed: int = 0
    differences: int = 0


def faults_of(calls: Sequence[Call], nameless: set[str]) -> Iterator[Fault]:
    for name in sorted(nameless):
        for error in NAMELESS[name][1].split():
            yield Fault(name, -1, 0, error)
    ranks: collections.Counter[str] = collections.Counter()
    for call in calls:
        for error in dict.fromkeys([*ERRORS.get(call.name, "").split(), ALWAYS]):
            yield Fault(call.name, ranks[call.name], call.number, error)
        ranks[call.name] += 1


def attempt(place: Place, fault: Fault, expected: Outcome) -> tuple[bool, list[str]]:
    """Whether a call of ours failed, and what differed then. What Python itself calls before ours is
    not the same number in every run, so there are several attempts."""
    for _ in range(6):
        outcome, ours = place.inject(fault)
        if ours:
            break
        alike = [call for call in calls_of_ours(place.log) if call.name == fault.call]
        if fault.rank < len(alike):
            fault = replace(fault, number=alike[fault.rank].number)
    else:
        return False, []
    found = []
    if outcome != expected:
        found.append(f"{outcome}, not {expected}")
    if not place.scene.warm or place._state() != place._good:
        after = place.follow()
        if after != expected:
            found.append(f"the start after it: {after}, not {expected}")
    return True, found


def run_scene(
    name: str,
    top: Path,
    program: str,
    processes: int,
    part: tuple[int, int],
    totals: dict[str, Result],
) -> None:
    scene = SCENES[name]
    # In shared memory there is one store, which several programs at a time would share.
    workers = 1 if scene.shared_memory else processes
    places: queue.Queue[Place] = queue.Queue()
    for i in range(workers):
        places.put(Place(top / f"{name}-{i}", scene, program))
    first = places.get()
    expected = first.plain()
    if expected[0] != 3 or first.follow() != expected:
        sys.exit(f"{name}: the program itself does not do what it should: {first.follow()}")
    calls = first.calls()
    faults = list(faults_of(calls, first.nameless()))[part[0] :: part[1]]
    places.put(first)
    print(f"{name}: {len(calls)} calls of ours, {len(faults)} faults", flush=True)

    def one(fault: Fault) -> tuple[Fault, bool, list[str]]:
        place = places.get()
        try:
            return fault, *attempt(place, fault, expected)
        finally:
            places.put(place)

    with ThreadPoolExecutor(workers) as pool:
        for fault, ours, differences in pool.map(one, faults):
            result = totals[fault.call]
            result.runs += ours
            result.missed += not ours
            result.differences += bool(differences)
            for text in differences:
                print(f"DIFFERENT {name}: {fault.call} number {fault.number} failing with "
                      f"{fault.error}: {text}", flush=True)  # fmt: skip


def own_shared_memory() -> str:
    """A /dev/shm of this process and its children; why not, where there is none."""
    if os.geteuid():
        return "only root can mount a /dev/shm of the harness's own"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):  # NEWNS; PRIVATE
        return f"no mount namespace: {os.strerror(ctypes.get_errno())}"
    if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1G"):
        return f"no tmpfs on /dev/shm: {os.strerror(ctypes.get_errno())}"
    return ""


def make_module(directory: Path) -> None:
    source = directory / "injected.c"
    source.write_text(SOURCE.format(name="injected", size=SMALL))
    target = directory / f"injected{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run(["cc", "-shared", "-fPIC", include, "-o", target, source], check=True)


def part_of(text: str) -> tuple[int, int]:
    which, _, of = text.partition("/")
    if not (which.isdigit() and of.isdigit() and int(which) < int(of)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no part; allowed: 0/10 to 9/10, and the like"
        )
    return int(which), int(of)


def main() -> int:
    parser = argparse.ArgumentParser(description="Lets every system call of ours fail.")
    parser.add_argument("--only", default=",".join(SCENES), help="scenes, separated by commas")
    parser.add_argument("--part", type=part_of, default=(0, 1), help="0/10: every tenth fault")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    unknown = set(given.only.split(",")) - set(SCENES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(SCENES)}")
    for program in ("strace", "cc"):
        if not shutil.which(program):
            print(f"skipped: {program} is not installed")
            return 0
    if subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode:
        print("skipped: strace may not trace here")
        return 0
    why_not = own_shared_memory()
    started, ran = time.monotonic(), 0
    totals: dict[str, Result] = collections.defaultdict(Result)
    with tempfile.TemporaryDirectory(prefix="pyhugetext-inject-") as top:
        modules = Path(top, "modules")
        modules.mkdir()
        make_module(modules)
        if any(SCENES[name].backing in STORES for name in given.only.split(",")):
            time.sleep(
                2.5
            )  # what is younger than two seconds may be changed again within its times
        for name in given.only.split(","):
            if SCENES[name].shared_memory and why_not:
                print(f"{name}: left out: {why_not}")
                continue
            program = PROGRAM.format(modules=str(modules))
            run_scene(name, Path(top), program, given.processes, given.part, totals)
            ran += 1
    print(f"{'call':18} {'failed':>7} {'elsewhere':>10} {'differences':>12}")
    for call, result in sorted(totals.items()):
        print(f"{call:18} {result.runs:7} {result.missed:10} {result.differences:12}")
    runs, missed, differences = (
        sum(getattr(result, name) for result in totals.values())
        for name in ("runs", "missed", "differences")
    )
    kind = kind_of_this()
    print(
        f"Python {sys.version.split()[0]}, {kind}: {runs} calls of ours failed, one a run, in {ran} "
        f"scenes; {missed} faults met no call of ours; {differences} differences; "
        f"{time.monotonic() - started:.0f} s"
    )
    return 1 if differences or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
