"""Runs real programs with the preload library and without it, on a store that was warmed for them:
output and exit status have to be the same. Prints what was covered: `make any-program`.

    python tests/programs/real_programs.py [--only NAME ...] [--pairs 20]

`covered` is the share of the coverable text, `store` how much of that came from the store, `private`
what is private memory, of the program's process with the most text. `start` is the median over pairs
of what a start takes longer (--version or the like, store warm, processor time).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from works import Work, works

from pyhugetext import _backing
from pyhugetext.programs import preload

_SECONDS = 300


class Ran(NamedTuple):
    status: int
    output: str
    errors: str


class Place:
    """A directory for one work, and its store; of the user who does it."""

    def __init__(self, work: Work, root: Path) -> None:
        self.work = work
        self.root = root
        self.user = pwd.getpwnam(work.user) if work.user else None
        for name in ("work", "reports", "home"):
            (root / name).mkdir()
        if self.user:
            for path in (root, *root.iterdir()):
                os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def environ(self, *, preloaded: bool, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYHUGETEXT")}
        home = str(self.root / "home")
        environ = {**kept, "HOME": home, "LC_ALL": "C.UTF-8", **more}
        environ["PYHUGETEXT_STORE"] = str(self.root / "store")
        return preload.environment(environ, preload.path()) if preloaded else environ

    def run(self, command: list[str], environ: dict[str, str]) -> Ran:
        done = subprocess.run(
            self.of_user(command), cwd=self.root / "work", env=environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="backslashreplace", timeout=_SECONDS, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def of_user(self, command: list[str]) -> list[str]:
        if self.user is None:
            return command
        group = f"--regid={self.user.pw_gid}"
        return ["setpriv", f"--reuid={self.user.pw_uid}", group, "--init-groups", *command]

    def shell(self, script: str) -> list[str]:
        return ["sh", "-ec", script.replace("@MORE@", ":")]


def reports(directory: Path) -> list[dict[str, Any]]:
    found = []
    for path in directory.iterdir():
        with contextlib.suppress(ValueError):
            found.append(json.loads(path.read_text()))
        path.unlink()
    return found


def start_costs(place: Place, pairs: int) -> float:
    """Milliseconds of processor time that a start takes longer."""
    command = place.of_user([place.work.program, *(place.work.start or ("--version",))])
    environs = [place.environ(preloaded=preloaded) for preloaded in (False, True)]

    def once(side: int) -> float:
        process = subprocess.Popen(
            command, cwd=place.root / "work", env=environs[side], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return 1000 * (usage.ru_utime + usage.ru_stime)

    once(1)
    differences = []
    for number in range(pairs):
        first = number % 2
        times = {first: once(first)}
        times[1 - first] = once(1 - first)
        differences.append(times[1] - times[0])
    return statistics.median(differences)


def measure(work: Work, root: Path, pairs: int) -> tuple[list[str], str]:
    """A row of the table, and what was wrong."""
    place = Place(work, root)
    if work.prepare:
        done = place.run(place.shell(work.prepare), place.environ(preloaded=False))
        if done.status:
            return [work.name, f"skipped: not prepared: {done.errors.strip()[-80:]}"], ""
    plain = place.run(place.shell(work.script), place.environ(preloaded=False, PYHUGETEXT="0"))
    warm = place.run(
        [sys.executable, "-m", "pyhugetext", "warm", "--", *place.shell(work.script)],
        place.environ(preloaded=False),
    )
    told = place.environ(preloaded=True, PYHUGETEXT_REPORT=str(root / "reports/%p.json"))
    found = place.run(place.shell(work.script), told)
    wrong = ""
    if found != plain:
        wrong = f"{work.name}: without: {plain}\nwith: {found}\nwarm: {warm}"
    own = [one for one in reports(root / "reports") if one["command"] == work.program]
    if not own:
        return [work.name, "no report"], wrong or f"{work.name}: it wrote no report\n{found}"

    def sums(name: str, one: dict[str, Any], backings: tuple[str, ...]) -> int:
        return sum(r[name] for r in one["regions"] if r["backing"] in backings)

    every = ("none", *_backing.LADDER)
    largest = max(own, key=lambda one: sums("coverable_bytes", one, every))
    coverable = sums("coverable_bytes", largest, every)
    mapped = sums("mapped_bytes", largest, every)
    shared = sums("mapped_bytes", largest, tuple(_backing.SHARED))
    private = sums("mapped_bytes", largest, tuple(_backing.PRIVATE))
    cells = [f"{n / (1 << 20):.1f}" for n in (coverable, shared, private)]
    share = f"{100 * mapped // coverable if coverable else 0} %"
    left = {
        r["reason"]: os.path.basename(r["path"])
        for r in largest["regions"]
        if r["coverable_bytes"] > max(r["mapped_bytes"], 256 << 10)
    }
    why = "; ".join(f"{name}: {reason}" for reason, name in left.items()) or largest["reason"]
    start = f"{start_costs(place, pairs):+.1f} ms"
    return [work.name, cells[0], share, cells[1], cells[2], start, why], wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="names of programs")
    parser.add_argument("--pairs", type=int, default=20, help="starts with and without")
    options = parser.parse_args()
    header = [
        "program",
        "coverable MiB",
        "covered",
        "store MiB",
        "private MiB",
        "start",
        "left, and why",
    ]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    wrong = []
    for work in works():
        if options.only and work.name not in options.only:
            continue
        if not work.program:
            print(f"| {work.name} | not installed |" + " |" * (len(header) - 2))
            continue
        root = Path(tempfile.mkdtemp(prefix="pyhugetext-programs-"))
        root.chmod(0o755)
        try:
            cells, problem = measure(work, root, options.pairs)
        finally:
            shutil.rmtree(root)
        print("| " + " | ".join(cells + [""] * (len(header) - len(cells))) + " |", flush=True)
        wrong += [problem] if problem else []
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
