"""The siege: processes that take random steps from a seed, each judged, on every backing.

    python tests/siege/driver.py [--seconds 60] [--seed S] [--backings memfd,thp] [--processes 2] [--pool 16]

`--seed S:BACKING:NUMBER` repeats one process, to its last step. Exit status 1 where a judgement failed,
a process crashed or hung, or nothing was tried. See README.md.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import libraries

from support.attaching import kind_of_this
from support.common import clean_environment
from support.groups import memory_group
from support.installed import installed_files
from support.layouts import hugetlb_pool
from support.preloaded import NAME

BACKINGS = ("store", "shm", "memfd", "thp", "auto", "file", "hugetlb")
SHARED_MEMORY = ("shm", "auto")  # need a /dev/shm of the harness's own
STEPS = 5000  # of one process, which then ends and is judged as a whole
LEAST = 100  # even where the time is up
HANGS = 120  # seconds without a step
WORKER = Path(__file__).with_name("worker.py")
SMALL = "size=14M"  # of the file system that is filled
LIMIT = 64 << 20  # of the control group's memory
MOUNTS = (
    'mount -t tmpfs -o size=96M tmpfs /dev/shm; mount -t tmpfs -o "$0" tmpfs "$1"; shift; exec "$@"'
)


@dataclass
class Total:
    """What all processes on one backing did."""

    steps: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: collections.Counter[str] = field(default_factory=collections.Counter)
    left_out: collections.Counter[str] = field(default_factory=collections.Counter)
    processes: int = 0
    covered: int = 0  # looks at which something lay on huge pages
    mappings: int = 0
    mappings_after: int = 0

    def add(self, told: dict[str, object]) -> None:
        self.processes += 1
        self.steps.update(told["steps"])  # type: ignore[arg-type]
        self.seconds.update(told["seconds"])  # type: ignore[arg-type]
        self.left_out.update(told["left out"])  # type: ignore[arg-type]
        self.covered += told["covered"]  # type: ignore[operator]
        self.mappings = max(self.mappings, told["mappings"])  # type: ignore[call-overload]
        self.mappings_after = max(self.mappings_after, told["mappings after"])  # type: ignore[call-overload]


class Siege:
    """The workplace, and what is known of all processes."""

    def __init__(self, top: Path, rights: dict[str, str], seed: str, group: str) -> None:
        self.top, self.rights, self.seed, self.group = top, rights, seed, group
        self.pool = top / "pool"
        self.pool.mkdir()
        self.layouts = libraries.make(self.pool, compiler() or "cc")
        preload = installed_files()[0] / NAME
        self.preload = str(preload) if preload.exists() else ""
        self.totals: dict[str, Total] = collections.defaultdict(Total)
        self.failures: list[str] = []
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()

    def place(self, slot: int) -> Path:
        """A directory with the first version of each library; one that was replaced is put back."""
        place = self.top / f"place-{slot}"
        for name in ("small", "tmp"):
            (place / name).mkdir(parents=True, exist_ok=True)
        for layout in self.layouts:
            target = place / f"libsiege_{layout}.so"
            good = self.pool / f"libsiege_{layout}.so.3"
            if not target.exists() or target.read_bytes() != good.read_bytes():
                shutil.copy(good, f"{target}.new")
                os.rename(f"{target}.new", target)
        shutil.rmtree(place / "store.away", ignore_errors=True)
        return place

    def command(
        self, place: Path, backing: str, number: int, seconds: float, steps: int
    ) -> list[str]:
        config = {
            "place": str(place), "pool": str(self.pool), "backing": backing, "layouts": self.layouts,
            "seed": f"{self.seed}:{backing}:{number}", "steps": steps, "least": LEAST,
            "seconds": seconds, "notes": str(place / "notes"), "rights": self.rights,
            "broken": "SIEGE_BROKEN" in os.environ,
        }  # fmt: skip
        command = [sys.executable, str(WORKER), json.dumps(config)]
        if self.rights["mounts"]:
            return command
        unshare = ["unshare", "--mount", "--propagation", "private"]
        return [*unshare, "sh", "-ec", MOUNTS, SMALL, str(place / "small"), *command]

    def environment(self, place: Path, backing: str, number: int) -> dict[str, str]:
        store = str(place / "store")
        if not self.rights["mounts"]:
            if backing == "shm":
                store = f"/dev/shm/pyhugetext-{os.geteuid()}"
            elif backing == "store" and number % 4 == 3:
                store = str(place / "small/store")
        environ = clean_environment(
            HOME="/nonexistent", PYHUGETEXT_STORE=store, PYHUGETEXT_BACKING=backing,
            PYTHONDONTWRITEBYTECODE="1", TMPDIR=str(place / "tmp"), SIEGE_GROUP=self.group,
            PYTHONFAULTHANDLER="1", MPLCONFIGDIR=str(place), SIEGE_PRELOAD=self.preload,
        )  # fmt: skip
        del environ["XDG_CACHE_HOME"]
        return environ

    def run(self, slot: int, backing: str, number: int, seconds: float, steps: int) -> None:
        place = self.place(slot)
        notes = place / "notes"
        notes.unlink(missing_ok=True)
        command = self.command(place, backing, number, seconds, steps)
        with open(place / "out", "w+") as out, open(place / "err", "w+") as err:
            process = subprocess.Popen(
                command, env=self.environment(place, backing, number), stdout=out, stderr=err,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            self.running.add(process)
            hung = self._wait(process, notes)
            self.running.discard(process)
            out.seek(0)
            err.seek(0)
            printed, said = out.read(), err.read()
        complaint = ""
        if hung:
            complaint = f"no step in {HANGS} s"
        elif process.returncode or said:
            complaint = f"ended with {ending(process.returncode)}"
        elif left := [name for name in os.listdir(place / "tmp")]:
            complaint = f"left in its temporary directory: {left}"
        with self.lock:
            if complaint:
                self.failures.append(
                    f"FAILED {complaint}\n{said}{printed}last steps: {', '.join(last_steps(notes))}\n"
                    f"again: make siege SEED={self.seed}:{backing}:{number}"
                )
            else:
                self.totals[backing].add(json.loads(printed.splitlines()[-1]))

    def end(self) -> None:
        """Nothing goes on when the driver ends, however it does."""
        for process in list(self.running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], notes: Path) -> bool:
        """Waits for its end; whether it had to be killed because it stood still."""
        seen, since = "", time.monotonic()
        while True:
            try:
                process.wait(1)
                return False
            except subprocess.TimeoutExpired:
                now = last_steps(notes)[-1:]
            if str(now) != seen:
                seen, since = str(now), time.monotonic()
            elif time.monotonic() > since + HANGS:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True


def ending(code: int) -> str:
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "SIGKILL (by the harness, or for want of memory)"
    if code < 0 or code > 128:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code if code < 0 else code - 128).name
    return f"exit status {code}"


def last_steps(notes: Path) -> list[str]:
    try:
        lines = re.findall(rb"[ -~]{64}", notes.read_bytes())
    except FileNotFoundError:
        return []
    return sorted((line.decode().strip() for line in lines), key=lambda line: int(line.split()[0]))


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def find_rights(pool: Path, group: str) -> dict[str, str]:
    """What this machine allows: "" or a sentence why not."""
    root = "" if os.geteuid() == 0 else "only root may"
    tracing = [pool / "helper", "attach", str(os.getpid())]
    traced = subprocess.run(tracing, capture_output=True, check=False).returncode == 7
    ptrace = "" if traced else "ptrace is not allowed here"
    probing = os.path.exists("/sys/bus/event_source/devices/uprobe/type")
    mounting = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /dev/shm"]
    can_mount = (
        shutil.which("unshare")
        and not subprocess.run(mounting, capture_output=True, check=False).returncode
    )
    return {
        "root": root and f"{root} change its user",
        "ptrace": ptrace,
        "breakpoint": ptrace or ("" if os.uname().machine == "x86_64" else "for x86_64 only"),
        "patch": "" if os.uname().machine == "x86_64" else "for x86_64 only",
        "uprobe": f"{root} plant probes"
        if root
        else ("" if probing else "the kernel has no uprobes"),
        "group": "" if group else "no control group with a limit of memory can be made here",
        "mounts": "" if can_mount else "no mount namespace can be made here",
    }


@contextlib.contextmanager
def pool_of(pages: int) -> Iterator[None]:
    """So many pages more in the machine's pool of reserved ones, where that can be."""
    with contextlib.ExitStack() as stack:
        if pages:
            try:
                stack.enter_context(hugetlb_pool(pages))
            except pytest.skip.Exception as reason:
                print(f"left out: reserved pages: {reason}")
        yield


@contextlib.contextmanager
def small_group() -> Iterator[str]:
    """The path of a control group with little memory, or an empty one."""
    with contextlib.ExitStack() as stack:
        try:
            group = stack.enter_context(memory_group())
            group.limit(LIMIT)
        except pytest.skip.Exception:
            yield ""
            return
        yield str(group.path)


def print_table(totals: dict[str, Total], elapsed: float) -> int:
    names = [name for name in BACKINGS if name in totals]
    kinds = sorted({kind for total in totals.values() for kind in total.steps})
    print(f"{'step':16}" + "".join(f"{name:>10}" for name in names) + f"{'all':>10}{'ms each':>10}")
    for kind in kinds:
        counts = [totals[name].steps[kind] for name in names]
        seconds = sum(totals[name].seconds[kind] for name in names)
        each = seconds * 1000 / max(sum(counts), 1)
        print(f"{kind:16}" + "".join(f"{n:10}" for n in [*counts, sum(counts)]) + f"{each:10.2f}")
    for title, values in (
        ("processes", [totals[name].processes for name in names]),
        ("most mappings", [totals[name].mappings for name in names]),
        ("more at the end", [totals[name].mappings_after for name in names]),
    ):
        print(f"{title:16}" + "".join(f"{value:10}" for value in values))
    counts = [sum(totals[name].steps.values()) for name in names]
    print(f"{'steps':16}" + "".join(f"{n:10}" for n in [*counts, sum(counts)]))
    reasons = sum((total.left_out for total in totals.values()), collections.Counter())
    for reason, count in sorted(reasons.items()):
        print(f"left out, {count} times: {reason}")
    free = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "with a GIL"
    print(
        f"Python {sys.version.split()[0]}, {kind_of_this()}, {free}: {sum(counts)} steps in "
        f"{elapsed:.0f} s, {sum(counts) / elapsed:.0f} a second"
    )
    return sum(counts)


def untried(totals: dict[str, Total], backings: list[str]) -> list[str]:
    """What makes a run prove nothing."""
    out = []
    for backing in backings:
        if not all(totals[backing].steps[kind] for kind in ("remap", "restore", "call", "load")):
            out.append(f"nothing was tried on {backing}")
    if not any(total.covered for total in totals.values()):
        out.append("nothing ever lay on huge pages")
    return out


def run_all(siege: Siege, backings: list[str], seconds: float, processes: int) -> None:
    until = time.monotonic() + seconds
    numbers = iter(range(1 << 30))

    def work(slot: int) -> None:
        while not siege.failures:
            with siege.lock:
                turn = next(numbers)
            backing, number = backings[turn % len(backings)], turn // len(backings)
            left = until - time.monotonic()
            if number and left <= 0:
                return
            # Each backing has its turn, also in a short run.
            share = max(left, 0.01) if number else seconds * processes / len(backings)
            siege.run(slot, backing, number, share, STEPS)

    threads = [
        threading.Thread(target=work, args=(slot,), daemon=True) for slot in range(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(60)
            if thread.is_alive():
                done = sum(sum(total.steps.values()) for total in siege.totals.values())
                print(f"{time.monotonic() + seconds - until:.0f} s: {done} steps", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Besieges the package with random steps.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=str(time.time_ns() % 10**9))
    parser.add_argument("--backings", default=",".join(BACKINGS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--pool", type=int, default=0, help="more reserved pages meanwhile; 0: none"
    )
    given = parser.parse_args()
    unknown = set(given.backings.split(",")) - set(BACKINGS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(BACKINGS)}")
    if not re.fullmatch(rf"\w+(:({'|'.join(BACKINGS)}):\d+)?", given.seed):
        parser.error(f"{given.seed!r} is no seed; allowed: a number, or what a failure printed")
    return given


def main() -> int:
    given = parse()
    if not compiler():
        print("skipped: there is no C compiler to make the libraries that are besieged")
        return 0
    # What was made, also the machine's pool of reserved pages, is put back then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    seed, _, one = given.seed.partition(":")
    started = time.monotonic()
    workplace = tempfile.TemporaryDirectory(prefix="pyhugetext-siege-")
    with contextlib.ExitStack() as stack:
        top = stack.enter_context(workplace)
        group = stack.enter_context(small_group())
        stack.enter_context(pool_of(given.pool))
        siege = Siege(Path(top), {}, seed, group)
        stack.callback(siege.end)
        siege.rights = find_rights(siege.pool, group)
        backings = given.backings.split(",")
        print(f"seed {seed}: make siege SEED={seed}", flush=True)
        for right, why_not in siege.rights.items():
            if why_not:
                print(f"left out: {right}: {why_not}")
        if siege.rights["mounts"]:
            print(
                f"left out: {', '.join(set(SHARED_MEMORY) & set(backings))}: /dev/shm is everybody's"
            )
            backings = [backing for backing in backings if backing not in SHARED_MEMORY]
        if one:
            backing, number = one.split(":")
            backings = [backing]
            siege.run(0, backing, int(number), 0, STEPS)
        else:
            time.sleep(
                2.5
            )  # what is younger than two seconds may be changed again within its times
            run_all(siege, backings, given.seconds, given.processes)
    print_table(siege.totals, time.monotonic() - started)
    failures = siege.failures or untried(siege.totals, backings)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
