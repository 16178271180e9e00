"""Making system calls fail, for the tests that ask what a program notices of it (nothing).

Imported by the tests for these and a few other shared pieces; run as a program it is one of two
things, always in a process of its own:

- `refuse`: forbids system calls to this process and becomes the given command;
- `turns`: lets the calls of the core fail in turn, one forked child each, and prints what every
  child saw as a line of JSON.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

# Numbers of the calls named in the tests; see syscalls(2).
_X86_64 = platform.machine() == "x86_64"
NUMBERS = {
    name: pair[0] if _X86_64 else pair[1]
    for name, pair in {
        "read": (0, 63), "close": (3, 57), "mmap": (9, 222), "mprotect": (10, 226),
        "munmap": (11, 215), "rt_sigprocmask": (14, 135), "ioctl": (16, 29), "pread64": (17, 67),
        "pwrite64": (18, 68), "mremap": (25, 216), "madvise": (28, 233), "getpid": (39, 172), "getresuid": (118, 148),
        "fcntl": (72, 25), "ftruncate": (77, 46), "prctl": (157, 167), "clock_gettime": (228, 113),
        "openat": (257, 56), "process_vm_readv": (310, 270), "memfd_create": (319, 279),
        "statx": (332, 291), "seccomp": (317, 277), "prlimit64": (302, 261),
    }.items()
}  # fmt: skip
NAMES = {number: name for name, number in NUMBERS.items()}

PAGEMAP_SCAN, PROCMAP_QUERY = 0xC0606610, 0xC0686611  # ioctl of Linux 6.7, 6.11
MFD_EXEC = 0x10  # flag of Linux 6.3
MADV_COLLAPSE, MADV_POPULATE_READ = 25, 22  # Linux 6.1, 5.14
MREMAP_AWAY = 7  # MAYMOVE | FIXED | DONTUNMAP, of files since Linux 5.13

_PR_SET_NO_NEW_PRIVS = 38
_NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER
_ALLOW, _ERRNO, _NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000  # SECCOMP_RET_*
_LOAD, _EQUAL, _AT_LEAST, _ALL_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF
_NR, _IP, _ARGUMENTS = 0, 8, 16  # offsets in struct seccomp_data
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*

Instruction = tuple[int, int, int, int]
# One call refused: number, (argument index, low 32 bits, only these bits?) or None, errno.
Rule = tuple[int, "tuple[int, int, bool] | None", int]

# What older kernels answer to calls they do not know.
_6_1: tuple[Rule, ...] = (
    (NUMBERS["ioctl"], (1, PROCMAP_QUERY, False), errno.ENOTTY),
    (NUMBERS["ioctl"], (1, PAGEMAP_SCAN, False), errno.ENOTTY),
    (NUMBERS["memfd_create"], (1, MFD_EXEC, True), errno.EINVAL),
)
_5_10: tuple[Rule, ...] = (
    *_6_1,
    (NUMBERS["madvise"], (2, MADV_COLLAPSE, False), errno.EINVAL),
    (NUMBERS["madvise"], (2, MADV_POPULATE_READ, False), errno.EINVAL),
    (NUMBERS["mremap"], (3, MREMAP_AWAY, False), errno.EINVAL),
)
KERNELS: dict[str, tuple[Rule, ...]] = {"this": (), "6.1": _6_1, "5.10": _5_10}


def refuse_rule(rule: Rule) -> list[Instruction]:
    number, argument, error = rule
    refuse = (_RETURN, 0, 0, _ERRNO | error)
    if argument is None:
        return [(_LOAD, 0, 0, _NR), (_EQUAL, 0, 1, number), refuse]
    index, value, bits = argument
    return [
        (_LOAD, 0, 0, _NR),
        (_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, _ARGUMENTS + 8 * index),
        (_ALL_BITS if bits else _EQUAL, 0, 1, value),
        refuse,
    ]


def refuse_at(pointer: int, error: int) -> list[Instruction]:
    """Refuses the call of one instruction; the filter sees the address behind it."""
    return [
        (_LOAD, 0, 0, _IP),
        (_EQUAL, 0, 3, pointer & 0xFFFFFFFF),
        (_LOAD, 0, 0, _IP + 4),
        (_EQUAL, 0, 1, pointer >> 32),
        (_RETURN, 0, 0, _ERRNO | error),
    ]


def notify_within(start: int, end: int) -> list[Instruction]:
    """Asks the listener about every call made from [start, end)."""
    assert start >> 32 == end >> 32, "the module crosses a 4 GiB boundary"
    return [
        (_LOAD, 0, 0, _IP + 4),
        (_EQUAL, 0, 4, start >> 32),
        (_LOAD, 0, 0, _IP),
        (_AT_LEAST, 0, 2, start & 0xFFFFFFFF),
        (_AT_LEAST, 1, 0, end & 0xFFFFFFFF),
        (_RETURN, 0, 0, _NOTIFY),
    ]


def install(instructions: Iterable[Instruction], listen: bool = False) -> int:
    """Installs a filter for this thread; with `listen`, returns the listener's descriptor."""
    import ctypes  # not above: it does not load under every limit

    program = [*instructions, (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    number = ctypes.c_long(NUMBERS["seccomp"])
    result = libc.syscall(number, 1, _NEW_LISTENER if listen else 0, header)
    if result < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(result)


def watch(start: int, end: int, fail: int = -1, error: int = 0) -> None:
    """Forks, and returns in the child, whose core is then watched by the parent: that sees every
    call that returns into [start, end), lets the one at place `fail` of these fail, and tells them
    all when the child has ended. (A thread would not do: some calls are made under the GIL.)
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    listener = install(notify_within(start, end), listen=True)
    pid = os.fork()
    if pid == 0:
        os.close(listener)
        return
    seen: list[tuple[str, int]] = []
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while all(descriptor != ended for descriptor, _ in poll.poll()):
        notice = ctypes.create_string_buffer(80)
        if libc.ioctl(listener, ctypes.c_ulong(_RECEIVE), notice):
            continue
        identity, _pid, _flags, number, _arch, pointer, first = struct.unpack_from(
            "=QIIiIQQ", notice
        )
        # val, error, flags (1: let the kernel carry it out)
        answer = (0, -error, 0) if len(seen) == fail else (0, 0, 1)
        name = NAMES.get(number, str(number))
        if name == "rt_sigprocmask":
            name += ("(SIG_BLOCK)", "(SIG_UNBLOCK)", "(SIG_SETMASK)")[first]
        seen.append((name, pointer))
        reply = ctypes.create_string_buffer(struct.pack("=QqiI", identity, *answer), 24)
        libc.ioctl(listener, ctypes.c_ulong(_SEND), reply)
    raise Watched(seen, fail, os.waitpid(pid, 0)[1])


class Watched(BaseException):
    """Raised in the process that watched, when the other has ended."""

    def __init__(self, seen: list[tuple[str, int]], fail: int, status: int) -> None:
        super().__init__()
        self.seen, self.fail, self.status = seen, fail, status


def mappings(pid: int | str = "self") -> list[tuple[int, int, str, int, int, str]]:
    """(start, end, permissions, offset, inode, path) of every mapping."""
    result = []
    with open(f"/proc/{pid}/maps", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(None, 5)
            start, end = (int(part, 16) for part in fields[0].split("-"))
            path = fields[5].strip() if len(fields) > 5 else ""
            result.append((start, end, fields[1], int(fields[2], 16), int(fields[4]), path))
    return result


def layout() -> list[list[Any]]:
    """The mappings that are not writable, with neighbours of one kind joined."""
    joined: list[list[Any]] = []
    for start, end, permissions, offset, inode, path in mappings():
        if "w" in permissions or path.startswith("["):
            continue
        if joined:
            last = joined[-1]
            follows = last[1] == start and [last[2], last[4]] == [permissions, inode]
            if follows and (not inode or last[3] + start - last[0] == offset):
                last[1] = end
                continue
        joined.append([start, end, permissions, offset, inode, path])
    return joined


def work() -> int:
    """Some of what interpreters do; the same number every time."""
    import collections
    import re

    class Shape:
        def __init__(self, size: int) -> None:
            self.size = size

        def __lt__(self, other: Shape) -> bool:
            return self.size < other.size

    total = sum(shape.size for shape in sorted(Shape(i * 7919 % 101) for i in range(200))[:50])
    words = collections.Counter(re.findall(r"\w+", "the quick brown fox the lazy dog the end"))
    total += words["the"] + len(json.dumps(dict(words))) + pow(3, 4001, 10**9 + 7)
    try:
        total //= eval("total - total")
    except ZeroDivisionError as error:
        total += len(str(error.args))
    return total + sum(ord(c) for c in "äöü".encode().decode())


def _write(descriptor: int, value: Any) -> None:
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def _in_child(action: Callable[[], Any], seconds: float = 20) -> dict[str, Any]:
    """Forks and runs action; returns its result, wait status, stdout and stderr."""
    reading, writing = os.pipe()
    # Not tempfile, which brings modules: the fewer mappings, the sooner is smaps read.
    with open(os.memfd_create("out"), "rb") as out, open(os.memfd_create("err"), "rb") as err:
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.setpgid(0, 0)
            status = 1
            try:
                _write(writing, {"report": action()})
                status = 0
            except Watched as watched:
                # "call": the one that failed; the sequence is not always quite the same.
                there = 0 <= watched.fail < len(watched.seen)
                failed = {"call": watched.seen[watched.fail][0]} if there else {}
                _write(writing, {"calls": watched.seen, **failed})
                if os.WIFSIGNALED(watched.status):
                    os.kill(os.getpid(), os.WTERMSIG(watched.status))
                status = os.WEXITSTATUS(watched.status)
            except BaseException:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            finally:
                os._exit(status)
        os.close(writing)
        chunks = []
        deadline = time.monotonic() + seconds
        hung = False
        while True:
            if not select.select([reading], [], [], max(deadline - time.monotonic(), 0))[0]:
                # The core blocks signals, so SIGALRM would not do.
                os.killpg(pid, signal.SIGKILL)
                hung = True
                break
            chunk = os.read(reading, 1 << 16)
            if not chunk:
                break
            chunks.append(chunk)
        os.close(reading)
        status = os.waitpid(pid, 0)[1]
        for file in (out, err):
            file.seek(0)
        told: dict[str, Any] = {"report": None, "calls": []}
        for line in b"".join(chunks).splitlines():
            told.update(json.loads(line))
        return {
            "hung": hung,
            "status": status,
            "stdout": out.read().decode(errors="replace"),
            "stderr": err.read().decode(errors="replace"),
            **told,
        }


def _brief(stats: Any) -> dict[str, Any]:
    keys = ("active", "reason", "mapped_bytes", "coverable_bytes", "huge_bytes", "elapsed_ns")
    result = {key: getattr(stats, key) for key in keys}
    result["problems"] = list(stats.problems)
    result["regions"] = [
        {key: getattr(region, key) for key in (*keys[2:5], "path", "status", "reason", "fallbacks")}
        for region in stats.regions
        if region.coverable_bytes or region.swapped_bytes
    ]
    return result


def _exercise(library: Any, backing: str, prepare: Callable[[], None]) -> dict[str, Any]:
    """remap, work, restore, work, stats, with what `prepare` does to the system calls."""
    import ctypes

    import pyhugetext

    report: dict[str, Any] = {}

    def attempt(name: str, function: Callable[[], Any]) -> None:
        # Memory that is really gone may be said with a MemoryError, like everywhere in Python.
        try:
            report[name] = _brief(function())
        except MemoryError as error:
            report[name] = repr(error)

    def results() -> list[int]:
        return [work(), int(library.f_sum(5))]

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    library.f_sum.restype = ctypes.c_long
    report["expected"] = results()
    mask, before = signal.pthread_sigmask(signal.SIG_BLOCK, ()), layout()
    prepare()
    descriptors = sorted(os.listdir("/proc/self/fd"))
    attempt("remapped", lambda: pyhugetext.remap(backing=backing))
    report["after remap"] = results()
    attempt("restored", pyhugetext.restore)
    report["after restore"] = results()
    attempt("stats", pyhugetext.stats)
    report["mask kept"] = signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    report["descriptors kept"] = sorted(os.listdir("/proc/self/fd")) == descriptors
    after = layout()
    report["new"] = [m for m in after if m not in before]
    report["gone"] = [m for m in before if m not in after]
    return report


def _turns(config: dict[str, Any]) -> None:
    """Runs the cases of one shard: each call site failing always, with each of `site_errors`; then
    each call of the sequence failing alone, with each of `call_errors`."""
    import ctypes

    import pyhugetext._stats.collecting  # noqa: F401  (imported here, not in every child)
    from pyhugetext import _boot

    library = ctypes.CDLL(config["library"])
    if config["user"]:
        os.setgid(config["user"])
        os.setuid(config["user"])
    text = [m for m in mappings() if m[5] == _boot.__file__ and "x" in m[2]]
    start, end = text[0][0], text[-1][1]
    old = [i for rule in KERNELS[config["kernel"]] for i in refuse_rule(rule)]

    def run(prepare: Callable[[], None]) -> dict[str, Any]:
        def prepared() -> Any:
            if old:
                install(old)
            return prepare()

        return _in_child(lambda: _exercise(library, config["backing"], prepared))

    def tell(told: dict[str, str], result: dict[str, Any]) -> None:
        print(json.dumps({**told, **result}), flush=True)

    traced = run(lambda: watch(start, end))
    if traced["report"] is None:
        tell({"call": "none"}, traced)
        return
    calls: list[tuple[str, int]] = [(name, pointer) for name, pointer in traced["calls"]]
    cases: list[tuple[dict[str, str], Callable[[], Any]]] = [({"call": "none"}, lambda: None)]

    def add(where: str, call: str, error: str, prepare: Callable[[int], Any]) -> None:
        told = {"where": where, "call": call, "error": error}
        cases.append((told, lambda: prepare(getattr(errno, error))))

    for error in config["site_errors"]:
        for call, pointer in sorted(set(calls), key=lambda pair: pair[1]):
            where = f"_boot+{pointer - start:#x}"
            add(where, call, error, lambda e, p=pointer: install(refuse_at(p, e)))  # type: ignore[misc]
    for error in config["call_errors"]:
        before: dict[int, int] = {}
        for index, (call, pointer) in enumerate(calls):
            where = f"place {index} of the sequence"
            # The same call of the sequence, without a word about those made elsewhere.
            turn = before[pointer] = before.get(pointer, -1) + 1
            add(where, call, error, lambda e, p=pointer, i=turn: watch(p, p + 1, i, e))  # type: ignore[misc]
    for index, (told, prepare) in enumerate(cases):
        # The first case, in which nothing fails, is what all others are compared with.
        if index == 0 or index % config["shards"] == config["shard"]:
            tell(told, run(prepare))


if __name__ == "__main__":
    if sys.argv[1] == "refuse":
        wanted = json.loads(sys.argv[2])
        install(i for name, error in wanted.items()
                for i in refuse_rule((NUMBERS[name], None, getattr(errno, error))))  # fmt: skip
        os.execvp(sys.argv[3], sys.argv[3:])
    _turns(json.loads(sys.argv[2]))
