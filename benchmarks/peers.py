"""Beside other remappers, in one run: what is in huge pages, private memory, a start, perf and gdb.

    python benchmarks/peers.py --iodlr LIBRARY [--only PROGRAM ...] [--by PEER ...] [--pairs 20] [--pool 32]

LIBRARY is intel/iodlr's liblppreload.so (`make -f Makefile.preload` in its large_page-c). Of
libhugetlbfs the system's package is taken (Debian: libhugetlbfs-bin). It needs reserved pages: with
--pool, root has so many made for its turn and given back afterwards.

Each program is stopped (SIGSTOP) while it works, and looked at from outside:

- text: executable text that is in memory; huge: what of that the kernel holds in 2 MiB pages, the
  read-only data of the same pages included
- private: executable memory that no other process shares
- start: the median of pairs of starts with and without, processor time; not of libhugetlbfs, which
  gets a file system mounted here
- perf: the share of samples in user space, without JIT code, that have a symbol (cpu-clock, 2 s)
- gdb: of the frames that it shows attached, those with a name; each is stopped elsewhere

A position-independent program is measured in two more ways, in which copies in the store fit it: with
the eight bytes in its file that `pyhugetext image --program` changes, in a copy of it here; and by
`setarch -R`, without address space randomization.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import IO, NamedTuple

from pyhugetext._stats import smaps
from pyhugetext.image import alignment
from pyhugetext.process import elf
from pyhugetext.programs import preload

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
_WORKING = 1.5  # seconds of processor time until a program is looked at
_PATIENCE = 120.0
_MIB = 1 << 20
# It wants the file system of reserved pages, here in a mount namespace of the program's own.
_MOUNT = 'mount -t hugetlbfs -o mode=1777 none /mnt\nexec "$@"'
_MOUNTED = ("env", "-u", "LD_PRELOAD", "unshare", "--mount", "sh", "-ec", _MOUNT, "sh")


class Program(NamedTuple):
    """A program at work. `start` ends at once; `work` takes longer than all that is looked at."""

    name: str
    start: list[str]
    work: list[str]
    user: str = ""
    text: str = ""  # on its standard input
    prepared: str = ""  # a copy of a position-independent one that comes to a multiple of 2 MiB


class Peer(NamedTuple):
    name: str
    environ: dict[str, str]
    warm: bool = False
    pool: int = 0
    prefix: tuple[str, ...] = ()  # of the command
    prepared: bool = False  # the copy that is prepared
    around: tuple[str, ...] = ()  # before the user is changed


class Seen(NamedTuple):
    """Sizes in bytes."""

    text: int
    huge: int
    private: int


_LARGE = "".join(
    f"template <int N> struct T{i} {{ T{i}<N - 1> a; int f(int x) {{ return a.f(x) * {i} + N; }} }};\n"
    f"template <> struct T{i}<0> {{ int f(int x) {{ return x; }} }};\n"
    f"int g{i}(int x) {{ T{i}<200> t; return t.f(x); }}\n"
    for i in range(400)
)
_NODE = "for (;;) JSON.parse(JSON.stringify([...Array(999).keys()].map(n => ({n, s: 'a' + n}))))"
_PYTHON = "import json\nwhile True: json.loads(json.dumps([{str(n): n} for n in range(999)]))"
_SQL = "select sum(length(md5(g::text))) from generate_series(1, 100000000) g;"


def programs(place: Path) -> Iterator[Program]:
    """Those that are installed."""
    if shutil.which("clang++"):
        # clang++ starts another one of itself but for -cc1's sake.
        work = ["clang++", "-fintegrated-cc1", "-O2", "-x", "c++", "-S", "-o", "/dev/null", "-"]
        yield Program("clang", ["clang++", "--version"], work, text=_LARGE)
    if shutil.which("node"):
        yield Program("node", ["node", "--version"], ["node", "-e", _NODE])
    found = sorted(glob("/usr/lib/postgresql/*/bin/postgres"))
    if found:
        user = "postgres" if os.geteuid() == 0 else ""
        data, bin_ = str(place / "data"), os.path.dirname(found[-1])
        subprocess.run(
            [*_as(user), f"{bin_}/initdb", "-D", data, "--no-sync", "-A", "trust"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        # Without the code that LLVM would make of it.
        work = [found[-1], "--single", "-c", "jit=off", "-D", data, "postgres"]
        prepared = _prepare(found[-1], place)
        yield Program("postgres", [found[-1], "--version"], work, user, _SQL, prepared)
    yield Program("python", ["/usr/bin/python3", "-c", ""], ["/usr/bin/python3", "-c", _PYTHON])


def _prepare(program: str, place: Path) -> str:
    """A copy of a program with the alignment that has it at a multiple of 2 MiB, where it finds what
    it looks for beside itself; empty where there can be none."""
    copy = Path(f"{place}{program}")
    copy.parent.mkdir(parents=True)
    (place / "usr/share").symlink_to("/usr/share")
    (copy.parents[1] / "lib").symlink_to(Path(program).parents[1] / "lib")
    shutil.copy(program, copy)
    with copy.open("r+b") as file:
        head = elf.head_of(file.fileno())
        asked = alignment.ask(file.fileno(), head) if head else None
        if not asked or not asked.patch or asked.state != alignment.CAN:
            return ""
        os.pwrite(file.fileno(), asked.patch.data, asked.patch.at)
    return str(copy)


def _as(user: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []


def _mounted(program: Program, peer: Peer) -> Program:
    """A program that a peer's mounts are there for; its library comes in behind them."""
    if not peer.around:
        return program
    around = [*peer.around, *_as(program.user), "env", f"LD_PRELOAD={peer.environ['LD_PRELOAD']}"]
    return program._replace(start=[*around, *program.start], work=[*around, *program.work], user="")


@contextmanager
def pool(pages: int) -> Iterator[str]:
    """So many reserved huge pages, given back at the end; why there are none."""
    if not pages or os.geteuid() != 0:
        yield "no reserved pages (--pool, as root)"
        return
    # More than there are, and so many fewer afterwards: others may have some, too.
    before = int(POOL.read_text())
    POOL.write_text(str(before + pages))
    try:
        got = int(POOL.read_text()) - before
        yield "" if got == pages else f"the kernel reserved {got} of {pages} pages"
    finally:
        POOL.write_text(str(max(int(POOL.read_text()) - pages, 0)))


@contextmanager
def _input(program: Program) -> Iterator[IO[bytes]]:
    """What is on its standard input."""
    with tempfile.TemporaryFile() as given:
        given.write(program.text.encode())
        given.seek(0)
        yield given


@contextmanager
def at_work(program: Program, environ: dict[str, str], place: Path) -> Iterator[int]:
    """The process of a program that has worked for a while."""
    with _input(program) as given:
        process = subprocess.Popen(
            [*_as(program.user), *program.work], env=environ, cwd=place, stdin=given,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + _PATIENCE
        while process.poll() is None and _used(process.pid) < _WORKING and time.monotonic() < end:
            time.sleep(0.05)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _used(pid: int) -> float:
    """Processor time of a process, in seconds."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def look(pid: int) -> Seen:
    """What smaps says of executable memory. Originals that pyhugetext has moved out of the way, which
    nobody runs, are not counted: they are the file's pages in the cache, as in any process."""
    text = huge = private = 0
    for m in smaps.read(f"/proc/{pid}/smaps"):
        anonymous = not m.inode or m.path.startswith(("/memfd:", "/anon_hugepage"))
        # JIT code is no file's.
        if "x" not in m.permissions or m.retired or (anonymous and not m.huge):
            continue
        text += max(m.resident, m.huge)  # reserved pages are not resident
        huge += m.huge
        private += m.private if anonymous or not m.resident else m.anonymous
    return Seen(text, huge, private)


def perf_share(pid: int, place: Path) -> str:
    """Samples in user space with a symbol."""
    data = place / "perf.data"
    # A copy has its original's build-id, and perf would take symbols from whichever it saw before.
    caches = Path(tempfile.mkdtemp(prefix="buildids-", dir=place))
    perf = ["perf", "--buildid-dir", str(caches)]
    events = ["-q", "-e", "cpu-clock:u", "-F", "499"]
    record = [*perf, "record", *events, "-o", str(data), "-p", str(pid)]
    if not shutil.which("perf"):
        return "no perf"
    done = subprocess.run([*record, "--", "sleep", "2"], capture_output=True, check=False)
    if done.returncode:
        return "perf failed"
    report = [*perf, "script", "-i", str(data), "-F", "ip,sym,dso"]
    lines = subprocess.run(report, capture_output=True, text=True, check=False).stdout.splitlines()
    data.unlink()
    shutil.rmtree(caches)
    # JIT code has no file, and so neither name nor symbol in any case: //anon, [anon].
    rows = [line.split(None, 1)[1] for line in lines if len(line.split(None, 1)) == 2]
    known = sum(not row.startswith("[unknown]") for row in rows)
    return f"{100 * known // len(rows)} %" if rows else "no samples"


def gdb_frames(pid: int) -> str:
    """Frames with a name of all that gdb shows."""
    if not shutil.which("gdb"):
        return "no gdb"
    environ = {k: v for k, v in os.environ.items() if k != "DEBUGINFOD_URLS"}
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-p", str(pid), "-ex", "bt 30"],
        capture_output=True, text=True, check=False, timeout=300, env=environ,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    frames = re.findall(r"^#\d+ .*", done.stdout, re.M)
    named = [frame for frame in frames if "?? ()" not in frame]
    return f"{len(named)} of {len(frames)}"


def starts(program: Program, environ: dict[str, str], base: dict[str, str], pairs: int) -> str:
    """What a start takes longer, in milliseconds of processor time."""

    def once(which: dict[str, str]) -> float:
        process = subprocess.Popen(
            [*_as(program.user), *program.start],
            env=which,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return 1000 * (usage.ru_utime + usage.ru_stime)

    once(environ)
    differences = []
    for number in range(pairs):
        first = base if number % 2 else environ
        one, other = once(first), once(environ if first is base else base)
        differences.append(other - one if first is base else one - other)
    return f"{statistics.median(differences):+.1f} ms"


def peers(options: argparse.Namespace, base: dict[str, str], program: Program) -> Iterator[Peer]:
    yield Peer("none", base)
    if options.iodlr:
        yield Peer("iodlr", {**base, "LD_PRELOAD": os.path.abspath(options.iodlr)})
    if glob("/usr/lib/*/libhugetlbfs.so.0"):
        wanted = {"HUGETLB_ELFMAP": "RX", "HUGETLB_FORCE_ELFMAP": "yes", "HUGETLB_VERBOSE": "0"}
        environ = {**base, **wanted, "LD_PRELOAD": "libhugetlbfs.so.0"}
        yield Peer("libhugetlbfs", environ, pool=1, around=_MOUNTED)
    ours = preload.environment(base, preload.path())
    yield Peer("pyhugetext", ours, warm=True)
    if program.prepared:
        yield Peer("pyhugetext, prepared", ours, warm=True, prepared=True)
        yield Peer("pyhugetext, setarch -R", ours, warm=True, prefix=("setarch", "-R"))


def row(program: Program, peer: Peer, base: dict[str, str], place: Path, pairs: int) -> list[str]:
    if peer.prepared:
        copied = [program.prepared]
        program = program._replace(start=copied + program.start[1:], work=copied + program.work[1:])
    if peer.warm:
        warm = [sys.executable, "-m", "pyhugetext", "warm", "--", "timeout", "5"]
        with _input(program) as given:
            subprocess.run(
                [*_as(program.user), *warm, *peer.prefix, *program.work],
                env={**base, "PYHUGETEXT_BUILD": "always" if peer.prefix else "auto"},
                cwd=place, stdin=given, capture_output=True, check=False,
            )  # fmt: skip
    program = program._replace(
        start=[*peer.prefix, *program.start], work=[*peer.prefix, *program.work]
    )
    program = _mounted(program, peer)
    with at_work(program, peer.environ, place) as pid:
        perf = perf_share(pid, place)
        try:
            os.kill(pid, signal.SIGSTOP)
            seen = look(pid)
        except (ProcessLookupError, FileNotFoundError):
            return [program.name, peer.name, "it did not run"]
        if not seen.text:
            return [program.name, peer.name, "it did not run"]
        gdb = gdb_frames(pid)
    share = f"{100 * seen.huge // seen.text} %"
    sizes = [f"{value / _MIB:.1f}" for value in (seen.text, seen.huge)]
    private = f"{seen.private / _MIB:.1f}"
    # The shell that mounts is no part of what a peer costs.
    start = "" if peer.name == "none" or peer.around else starts(program, peer.environ, base, pairs)
    return [program.name, peer.name, *sizes, share, private, start, perf, gdb]


def print_row(cells: Sequence[str]) -> None:
    print("| " + " | ".join([*cells, *[""] * (9 - len(cells))]) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iodlr", metavar="LIBRARY", help="its liblppreload.so")
    parser.add_argument("--only", nargs="*", default=[], help="names of programs")
    parser.add_argument("--by", nargs="*", default=[], help="names of peers")
    parser.add_argument("--pairs", type=int, default=20, help="starts with and without")
    parser.add_argument("--pool", type=int, default=0, help="reserved pages for libhugetlbfs")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="pyhugetext-peers-"))
    user = "postgres" if os.geteuid() == 0 else ""
    with contextlib.suppress(KeyError):
        if user:
            os.chown(place, pwd.getpwnam(user).pw_uid, -1)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYHUGETEXT")}
    print_row(
        ["program", "by", "text MiB", "huge MiB", "huge", "private MiB", "start", "perf", "gdb"]
    )
    print_row(["---"] * 9)
    try:
        for program in programs(place):
            if options.only and program.name not in options.only:
                continue
            # A store of the one who runs it: a user's is for no other.
            store = place / f"store-{program.user or 'own'}"
            base = {**kept, "PYHUGETEXT_STORE": str(store), "HOME": str(place)}
            if program.user:
                store.mkdir(exist_ok=True)
                os.chown(store, pwd.getpwnam(program.user).pw_uid, -1)
            elif not store.exists():
                store = Path(tempfile.mkdtemp(prefix="pyhugetext-store-", dir="/var/tmp"))
                base["PYHUGETEXT_STORE"] = str(store)
            try:
                for peer in peers(options, base, program):
                    if options.by and peer.name not in options.by:
                        continue
                    with pool(options.pool if peer.pool else 0) as missing:
                        if peer.pool and missing:
                            print_row([program.name, peer.name, missing])
                            continue
                        print_row(row(program, peer, base, place, options.pairs))
            finally:
                shutil.rmtree(store, ignore_errors=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
