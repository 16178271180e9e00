"""Installs popular wheels one after the other, and uses each with and without the package.

    make zoo [ZOO_ARGS="numpy torch"] [ZOO_ARGS="--work /large/disk torch-cuda"] [ZOO_ARGS=--table]

A line for each goes to results.jsonl; a wheel that has one is not asked again (--again asks), so that what
was interrupted goes on. Exit status: 0 no difference; 1 a difference; 2 wrong usage; 77 skipped, nothing
is claimed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from zoo.rows import difference, read, table
from zoo.wheels import WHEELS, Wheel

SKIPPED = 77
TREE = Path(__file__).resolve().parents[2]
LIMIT = 900  # seconds for one program
Row = dict[str, Any]


class Run:
    """What a program printed, how it ended, and how many seconds of processors it took."""

    def __init__(self, code: int, out: str, err: str, seconds: float) -> None:
        self.code, self.out, self.err, self.seconds = code, out, err, seconds


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="WHEEL", help=" ".join(w.name for w in WHEELS))
    parser.add_argument(
        "--work", type=Path, default=TREE / "build/zoo", help="wheels are unpacked here"
    )
    parser.add_argument("--pairs", type=int, default=3, help="timed runs with and without")
    parser.add_argument("--again", action="store_true", help="what was asked before, too")
    parser.add_argument("--table", action="store_true", help="shows what is there, runs nothing")
    options = parser.parse_args(arguments)
    known = {wheel.name: wheel for wheel in WHEELS}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no wheel {' or '.join(unknown)} stands in tests/zoo/wheels.py")
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.work.resolve() / "results.jsonl"
    if not options.table:
        apart()
        names = options.names or [w.name for w in WHEELS if not w.large]
        before = (
            set() if options.again else {row["wheel"] for row in read(results) if "same" in row}
        )
        for name in names:
            if name not in before:
                day = time.strftime("%Y-%m-%d", time.gmtime())
                row = {"wheel": name, "commit": commit(), "date": day}
                row.update(ask(known[name], options))
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row.get("skipped") or row["differences"] or "same", name, flush=True)
    rows = read(results)
    asked = [row for row in rows if "same" in row]
    if not asked:
        return skip(rows[-1]["skipped"] if rows else "nothing was asked")
    print(table(rows))
    return 0 if all(row["same"] for row in asked) else 1


def skip(sentence: str) -> int:
    print(f"make zoo: skipped: {sentence}.")
    return SKIPPED


def commit() -> str:
    command = ["git", "-C", str(TREE), "describe", "--always", "--dirty=+", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def ask(wheel: Wheel, options: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory(prefix="zoo-", dir=options.work.resolve()) as name:
        place = Path(name)
        if is_apart():  # it is ours, and holds the last wheel's store
            for left in Path("/dev/shm").iterdir():
                shutil.rmtree(left, ignore_errors=True)
        why = install(wheel, place)
        if why:
            return {"skipped": why}
        (place / "use.py").write_text(wheel.use.lstrip())
        row = {"version": version(wheel, place), **measure(place, options.pairs)}
        why = proves_nothing(row)
        return {"skipped": why} if why else row


def version(wheel: Wheel, place: Path) -> str:
    """Of the wheel, or of the first thing it requires, where the name is the zoo's own."""
    infos = [
        path.name.removesuffix(".dist-info").rpartition("-")
        for path in place.glob("site/*.dist-info")
    ]
    found = {normal(name): own for name, _, own in infos}
    names = (normal(name) for name in (wheel.name, *wheel.requires))
    return next((found[name] for name in names if name in found), "")


def normal(requirement: str) -> str:
    """The name in a requirement or a folder's name, as PyPI compares them."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[=<>~!]", requirement)[0]).lower()


def install(wheel: Wheel, place: Path) -> str:
    """Why it could not be installed, as a sentence; empty where it was."""
    needed = 12 if wheel.large else 5
    if shutil.disk_usage(place).free < needed << 30:
        return f"{place.parent} has less than {needed} GB free"
    command = [sys.executable, "-m", "pip", "install", "-q", "--only-binary", ":all:", "--target",
               str(place / "site"), *(wheel.requires or (wheel.name,))]  # fmt: skip
    command += ["--index-url", wheel.index] if wheel.index else []
    environ = {**os.environ, "PYHUGETEXT": "0"}
    result = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if not result.returncode:
        return ""
    said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    return (
        f"pip cannot install it: {said[-1].removeprefix('ERROR: ') if said else 'no reason given'}"
    )


def proves_nothing(row: Row) -> str:
    """Why a row without a difference says nothing of the package, as a sentence; empty where it does."""
    if not row["same"]:
        return ""
    if row["exit"]:
        said = (row["stderr"].splitlines() or ["no word on stderr"])[-1]
        return f"its use ends with {row['exit']} without the package, too: {said}"
    return f"nothing of it was huge: {row['stats']['reason']}" if row["stats"]["reason"] else ""


def measure(place: Path, pairs: int) -> Row:
    """Without twice (the first one compiles modules and fills the page cache), the first start with an empty
    store, a warmed store, then in turns."""
    program = str(place / "use.py")
    start(place, program, PYHUGETEXT="0")
    without = start(place, program, PYHUGETEXT="0")
    first = start(place, program)
    warm = start(place, "-m", "pyhugetext", "warm", "--", sys.executable, program)
    offs, ons = [without], [first]
    for _ in range(pairs):
        offs.append(start(place, program, PYHUGETEXT="0"))
        ons.append(start(place, program))
    observe, output = Path(__file__).parent / "observe.py", place / "stats.json"
    observed = start(place, str(observe), program, str(output))
    # One that ends by an exception has other frames in it there, and no figures.
    compared = ons if without.code else [*ons, observed]
    differences = sorted({d for run in compared for d in [difference(without, run)] if d})
    if not (differences or without.code or output.exists()):
        differences = ["stats() gave no figures"]
    if warm.code not in (0, 1) or "Traceback" in warm.err:  # 1: something was not prepared
        differences.append(f"warm died: exit status {warm.code}: {warm.err[-200:]}")
    unsteady = {d for run in offs for d in [difference(without, run)] if d}
    return {
        "same": not differences, "differences": differences, "unsteady_without": sorted(unsteady),
        "exit": without.code, "stderr": without.err[-300:], "out": without.out[-300:],
        "warm_exit": warm.code, "warm_stderr": warm.err[-300:],
        "off_s": min(run.seconds for run in offs[1:]), "first_s": first.seconds,
        "on_s": min(run.seconds for run in ons[1:]),
        "stats": json.loads(output.read_text()) if output.exists() else None,
    }  # fmt: skip


def start(place: Path, *arguments: str, **settings: str) -> Run:
    """One program, with a store of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "XDG_"))}
    environ = {**clean, "PYTHONPATH": str(place / "site"), "HOME": str(place / "home"),
               "TMPDIR": str(place / "tmp"), **settings}  # fmt: skip
    for folder in ("home", "tmp"):
        (place / folder).mkdir(exist_ok=True)
    command = [sys.executable, *arguments]
    begun = used()
    try:
        result = subprocess.run(
            command, env=environ, cwd=place, capture_output=True, text=True, errors="replace",
            timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Run(124, "", f"did not end in {LIMIT} s", LIMIT)
    return Run(result.returncode, result.stdout, result.stderr, used() - begun)


def used() -> float:
    """Seconds of processors that children took: waiting for others on a busy machine is none."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def apart() -> None:
    """Goes on with shared memory of its own, which ends with this process; as it is without root's rights."""
    if is_apart() or os.geteuid() or not shutil.which("unshare"):
        return
    script = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        return  # a container's root may not
    command = [*inside, sys.executable, "-m", "zoo", *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, "ZOO_OUTSIDE": mounts()})


def is_apart() -> bool:
    """Whether shared memory is this process's own, so that all in it may be removed."""
    return os.environ.get("ZOO_OUTSIDE", mounts()) != mounts()


def mounts() -> str:
    return os.readlink("/proc/self/ns/mnt")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
