"""Runs fuzz targets that `make fuzz` has built: run.py [--runs N] [--seconds N] [--jobs N]
[--corpus DIRECTORY] DIRECTORY TARGET... What a target finds is kept in tests/fuzz/found/TARGET, which is tried first each time;
what is merely of interest stays in the corpus. Ends with a table, and with 1 where anything
was found, or a target did not run."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

# Bytes of an input: what a target has use for. Of twice as much half as many are tried.
LONGEST = {
    "entry": 256,
    "groups": 1024,
    "layout": 8192,
    "maps": 512,
    "object": 2048,
    "plan": 512,
    "record": 2048,
    "settings": 1024,
}
# Where memory came from is told by a run of what was found alone; what is left out took a third of the
# time. That all of it is given back after each input is memory.cpp's to check.
SANITIZER = (
    "allocator_may_return_null=1:malloc_context_size=0:quarantine_size_mb=8:max_malloc_fill_size=0"
    ":detect_leaks=0"
)


class Ran(NamedTuple):
    target: str
    executions: int
    seconds: float
    coverage: int
    findings: int
    log: str


def artifacts(found: Path) -> set[Path]:
    return {path for path in found.iterdir() if re.match(r"(crash|leak|oom|timeout)-", path.name)}


def run(target: str, directory: Path, options: argparse.Namespace) -> Ran:
    corpus, found = options.corpus / target, options.found / target
    for place in (corpus, found):
        place.mkdir(parents=True, exist_ok=True)
    before = artifacts(found)
    dictionary = HERE / f"{target}.dict"
    began = time.monotonic()
    ended = subprocess.run(
        [
            directory / target, f"-runs={options.runs}", f"-max_len={LONGEST[target]}",
            f"-max_total_time={options.seconds}", "-timeout=60", "-entropic=0", "-detect_leaks=0", "-print_final_stats=1", "-report_slow_units=600",
            f"-artifact_prefix={found}/", *([f"-dict={dictionary}"] if dictionary.exists() else []),
            corpus, directory / "seeds" / target, found,
        ],
        env={**os.environ, "ASAN_OPTIONS": SANITIZER},
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    executions = re.search(r"number_of_executed_units: (\d+)", ended.stderr)
    covered = re.findall(r"cov: (\d+)", ended.stderr)
    fresh = artifacts(found) - before
    # An old input that is wrong again leaves nothing new.
    findings = len(fresh) or int(ended.returncode != 0)
    log = "".join(f"kept as {path}\n" for path in sorted(fresh))
    if findings:
        told = re.search(r"^.*(: not |==ERROR|runtime error|is not expected)", ended.stderr, re.M)
        log = ended.stderr[told.start() if told else -3000 :][:4000] + "\n" + log
    return Ran(
        target,
        int(executions[1]) if executions else 0,
        time.monotonic() - began,
        int(covered[-1]) if covered else 0,
        findings,
        log,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20000)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--found", type=Path, default=HERE / "found")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("target", nargs="+")
    options = parser.parse_args()
    options.corpus = options.corpus or options.directory / "corpus"
    import seeds

    seeds.write(options.directory / "seeds")
    with ThreadPoolExecutor(options.jobs) as pool:
        all_ran = list(
            pool.map(lambda target: run(target, options.directory, options), options.target)
        )
    print(f"{'target':10} {'executions':>12} {'seconds':>8} {'covered':>8} {'findings':>8}")
    for ran in all_ran:
        print(
            f"{ran.target:10} {ran.executions:12,} {ran.seconds:8.1f} {ran.coverage:8} "
            f"{ran.findings:8}"
        )
    for ran in all_ran:
        if ran.findings:
            print(f"\n{ran.target}:\n{ran.log}", file=sys.stderr)
    return int(any(ran.findings or not ran.executions for ran in all_ran))


if __name__ == "__main__":
    sys.exit(main())
