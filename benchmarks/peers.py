"""Beside other remappers, in one run: what is in huge pages, private memory, a start, perf and gdb.

    python benchmarks/peers.py --iodlr LIBRARY [--only PROGRAM ...] [--pairs 20] [--pool 64]

LIBRARY is intel/iodlr's liblppreload.so (`make -f Makefile.preload` in its large_page-c). Of
libhugetlbfs the system's package is taken (Debian: libhugetlbfs-bin). It needs reserved pages: with
--pool, root has so many made for its turn and given back afterwards.

Each program is stopped (SIGSTOP) while it works, and looked at from outside:

- text: executable file text that is in memory, or anonymous where a peer put it; huge: what of that the
  kernel holds in 2 MiB pages. A peer that maps less has less.
- private: Private_Dirty and Private_Hugetlb of executable mappings, which no other process shares
- start: the median of pairs of starts with and without, wall clock
- perf: the share of samples in user space, without JIT code, that have a symbol (cpu-clock, 2 s)
- gdb: of the frames that it shows attached, those with a name
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
from typing import NamedTuple

from pyhugetext.programs import preload

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
_HEADER = re.compile(r"[0-9a-f]+-[0-9a-f]+ (....) \S+ \S+ (\d+) *(.*)")
_HUGE = ("AnonHugePages", "FilePmdMapped", "ShmemPmdMapped", "Private_Hugetlb", "Shared_Hugetlb")
_WORKING = 2.0  # seconds until a program is stopped
_MIB = 1 << 20


class Program(NamedTuple):
    """A program at work. `start` ends at once; `work` takes longer than all that is looked at."""

    name: str
    start: list[str]
    work: list[str]
    user: str = ""
    text: str = ""  # on its standard input


class Peer(NamedTuple):
    name: str
    environ: dict[str, str]
    warm: bool = False
    pool: int = 0


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
        yield Program("clang", ["clang++", "--version"], work, text=_LARGE * 1)
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
        work = [found[-1], "--single", "-D", data, "postgres"]
        yield Program("postgres", [found[-1], "--version"], work, user, _SQL)
    yield Program("python", ["/usr/bin/python3", "-c", ""], ["/usr/bin/python3", "-c", _PYTHON])


def _as(user: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []


@contextmanager
def pool(pages: int) -> Iterator[str]:
    """So many reserved huge pages, given back at the end; why there are none."""
    before = POOL.read_text().strip()
    if not pages or before != "0" or os.geteuid() != 0:
        yield "" if before != "0" else "no reserved pages (--pool, as root)"
        return
    try:
        POOL.write_text(str(pages))
        got = int(POOL.read_text())
        yield "" if got == pages else f"the kernel reserved {got} of {pages} pages"
    finally:
        POOL.write_text(before)


@contextmanager
def at_work(program: Program, environ: dict[str, str], place: Path) -> Iterator[int]:
    """The process of a program that has worked for a while."""
    with tempfile.TemporaryFile() as given:
        given.write(program.text.encode())
        given.seek(0)
        process = subprocess.Popen(
            [*_as(program.user), *program.work], env=environ, cwd=place, stdin=given,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        time.sleep(_WORKING)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def look(pid: int) -> Seen:
    """What smaps says of executable memory."""
    text = huge = private = 0
    counts = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        match = _HEADER.match(line)
        if match:
            # JIT code is writable, or anonymous and small: what is huge of it is not ours to count.
            permissions, inode, path = match.groups()
            anonymous = inode == "0" and not path.startswith("[v")
            counts = "x" in permissions and ("w" not in permissions or not anonymous)
            small = anonymous
            continue
        name, _, value = line.partition(":")
        if not counts or not value.endswith("kB"):
            continue
        size = int(value.split()[0]) << 10
        if (name == "Rss" and not small) or (name in _HUGE and small):
            text += size
        if name in ("Private_Hugetlb", "Shared_Hugetlb") and not small:
            text += size  # Rss has them not
        if name in _HUGE:
            huge += size
        if name in ("Private_Hugetlb",) or (name == "Private_Dirty" and not small):
            private += size
        if name == "AnonHugePages" and small:
            private += size
    return Seen(text, huge, private)


def perf_share(pid: int, place: Path) -> str:
    """Samples in user space with a symbol."""
    data = place / "perf.data"
    record = [
        "perf",
        "record",
        "-q",
        "-e",
        "cpu-clock:u",
        "-F",
        "499",
        "-o",
        str(data),
        "-p",
        str(pid),
    ]
    if not shutil.which("perf"):
        return "no perf"
    done = subprocess.run([*record, "--", "sleep", "2"], capture_output=True, check=False)
    if done.returncode:
        return "perf failed"
    report = ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"]
    lines = subprocess.run(report, capture_output=True, text=True, check=False).stdout.splitlines()
    data.unlink()
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
    """What a start takes longer, in milliseconds."""

    def once(which: dict[str, str]) -> float:
        began = time.perf_counter()
        subprocess.run(
            [*_as(program.user), *program.start], env=which, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return 1000 * (time.perf_counter() - began)

    once(environ)
    differences = []
    for number in range(pairs):
        first = base if number % 2 else environ
        one, other = once(first), once(environ if first is base else base)
        differences.append(other - one if first is base else one - other)
    return f"{statistics.median(differences):+.1f} ms"


def peers(options: argparse.Namespace, base: dict[str, str]) -> Iterator[Peer]:
    yield Peer("none", base)
    if options.iodlr:
        yield Peer("iodlr", {**base, "LD_PRELOAD": os.path.abspath(options.iodlr)})
    if glob("/usr/lib/*/libhugetlbfs.so.0"):
        wanted = {"HUGETLB_ELFMAP": "RX", "HUGETLB_FORCE_ELFMAP": "yes", "HUGETLB_VERBOSE": "0"}
        yield Peer("libhugetlbfs", {**base, **wanted, "LD_PRELOAD": "libhugetlbfs.so.0"}, pool=1)
    yield Peer("pyhugetext", preload.environment(base, preload.path()), warm=True)


def row(program: Program, peer: Peer, base: dict[str, str], place: Path, pairs: int) -> list[str]:
    if peer.warm:
        # The hook of this interpreter fills the store, as root or as the user of the program.
        warm = [sys.executable, "-m", "pyhugetext", "warm", "--", *program.start]
        subprocess.run([*_as(program.user), *warm], env=base, capture_output=True, check=False)
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
    start = "" if peer.name == "none" else starts(program, peer.environ, base, pairs)
    return [program.name, peer.name, *sizes, share, private, start, perf, gdb]


def print_row(cells: Sequence[str]) -> None:
    print("| " + " | ".join([*cells, *[""] * (9 - len(cells))]) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iodlr", metavar="LIBRARY", help="its liblppreload.so")
    parser.add_argument("--only", nargs="*", default=[], help="names of programs")
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
                for peer in peers(options, base):
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
