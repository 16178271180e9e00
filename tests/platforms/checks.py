"""The main job on one whole interpreter, with the standard library alone: for machines where the
test suite cannot run (emulated ones, a Python without compiler or pip).

    python tests/platforms/checks.py [--rounds 300] [MODULE...]

Runs children of the interpreter that runs it, where the package is installed. A line for each
check, with what was seen; exit status 1 when one failed. A backing that the kernel does not give is
no failure: the line has the reason.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable

BACKINGS = ("file", "store", "shm", "memfd", "thp")

# Pure computation over much of the interpreter, with the same result wherever it runs.
WORK = """
import ast, collections, decimal, hashlib, json, re
def work(seed):
    text = json.dumps({str(i): [i * seed, "x" * (i % 17)] for i in range(200)})
    tree = ast.dump(ast.parse("f(" + ", ".join(f"a{i}=b[{i}] ** {seed}" for i in range(50)) + ")"))
    words = collections.Counter(re.findall(r"[a-z]+|[0-9]+", text + tree))
    number = sum((decimal.Decimal(i) / 7 for i in range(1, 100)), decimal.Decimal(0))
    return hashlib.sha256(repr((json.loads(text), sorted(words.items()), number)).encode()).hexdigest()
"""

SHOW = """
import pyhugetext
def smaps(name):
    with open("/proc/self/smaps", errors="surrogateescape") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(name + ":"))
def show(stats):
    sizes = (stats.mapped_bytes, stats.coverable_bytes, stats.huge_bytes, stats.private_bytes)
    kernel = [f"{n} {smaps(n)}" for n in ("FilePmdMapped", "ShmemPmdMapped", "AnonHugePages")]
    print(stats.backing, "mapped %d of %d KiB, huge %d, private %d;" % tuple(s >> 10 for s in sizes),
          "smaps:", ", ".join(kernel))
    for region in stats.regions:
        if region.coverable_bytes and not region.mapped_bytes:
            print("not covered:", region.path.rpartition("/")[2], region.reason, region.fallbacks)
    # Of a file the kernel maps what was touched, of the others all.
    if stats.backing in ("shm", "memfd", "thp"):
        assert stats.huge_bytes >= stats.mapped_bytes, "mapped and not huge"
"""

ROUNDS = """
import sys, threading
backing, rounds = sys.argv[1], int(sys.argv[2])
sys.setswitchinterval(1e-4)  # the workers are to run beside the rounds, not instead of them
expected = {seed: work(seed) for seed in range(4)}
stop, wrong, done = threading.Event(), [], [0] * 4
def run(me):
    while not stop.is_set():
        if work(me) != expected[me]:
            wrong.append(me)
        done[me] += 1
threads = [threading.Thread(target=run, args=(me,)) for me in range(4)]
for thread in threads:
    thread.start()
covered = 0
for _ in range(rounds):
    stats = pyhugetext.remap(backing=backing)
    if not stats.mapped_bytes:
        break
    covered += 1
    assert not pyhugetext.restore().active
stop.set()
for thread in threads:
    thread.join()
assert not wrong, wrong
assert covered in (0, rounds), covered
stats = pyhugetext.remap(backing=backing)
print(f"{covered} rounds, {sum(done)} results right beside them;", end=" ")
show(stats)
"""

FORK = """
import os
expected, active = work(1), pyhugetext.stats().active
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(work(1) != expected or pyhugetext.stats().active != active)
    assert os.waitpid(pid, 0)[1] == 0
print("20 children computed the same")
"""


def run(code: str, *arguments: str, **environ: str) -> str:
    """What a child printed; it must end well and be silent on stderr."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYHUGETEXT")}
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**clean, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode or result.stderr:
        raise RuntimeError(f"exit status {result.returncode}: {result.stdout}{result.stderr}")
    return result.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300, help="of remap() and restore()")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="imported and covered too")
    options = parser.parse_args()
    failed = 0

    def check(name: str, function: Callable[[], str]) -> None:
        nonlocal failed
        try:
            said, word = function(), "ok"
        except (RuntimeError, AssertionError) as error:
            said, word, failed = str(error), "FAILED", failed + 1
        print(f"{word:6} {name}: " + said.replace("\n", "\n       "), flush=True)

    print(sys.version.replace("\n", " "), *platform.libc_ver(), *os.uname()[2:], flush=True)
    with tempfile.TemporaryDirectory() as cache:
        home = {"XDG_CACHE_HOME": cache}

        def same(**environ: str) -> str:
            loaded = "import sys; print('pyhugetext._boot' in sys.modules)"
            off = run(WORK + "print(work(3))", PYHUGETEXT="0")
            assert run(WORK + "print(work(3))", **home, **environ) == off
            return f"same result as without; loaded {run(loaded, **home, **environ)}"

        check("off", lambda: same(PYHUGETEXT="0"))
        check("first start, empty store", lambda: run(SHOW + "show(pyhugetext.stats())", **home))
        check("second start", lambda: run(SHOW + "show(pyhugetext.stats())", **home))
        check("on", same)
        for backing in BACKINGS:
            settings = {"PYHUGETEXT_BACKING": backing, **home}
            check(
                f"{backing}, from the start",
                lambda s=settings: run(SHOW + "show(pyhugetext.stats())", **s),
            )
            check(
                f"{backing}, in turns",
                lambda b=backing: run(
                    SHOW + WORK + ROUNDS, b, str(options.rounds), PYHUGETEXT="0", **home
                ),
            )
        check("fork", lambda: run("import pyhugetext\n" + WORK + FORK, **home))
        for module in options.modules:
            code = f"import {module}\n" + SHOW + "show(pyhugetext.stats())"
            check(f"import {module}, first", lambda c=code: run(c, **home))
            check(f"import {module}, again", lambda c=code: run(c, **home))
    print("failed" if failed else "all right", failed or "")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
