"""The suite this project is judged by: eight workloads, each on huge text against small.

Every workload runs in processes of its own, in one thread, with the same data each time. Such a
process switches its text back and forth (pyhugetext.measure.switcher) and compares CPU times; a
control compares small text with small text the same way. Five processes share the time, because
each lies elsewhere in memory. The sides are
  auto    what pyhugetext does by itself
  thp     the same text in private anonymous copies, which a user could pick instead
  inward  private anonymous copies of the whole 2 MiB pages inside the text, as other tools do
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import suite_report
import suite_run
import workloads
from suite_child import SIDES

FORMAT = "pyhugetext-suite-1"
SECONDS = 21.0
PROCESSES = 5
RESULTS = Path(__file__).resolve().parent / "results"

EPILOG = """\
what is written:
  DIRECTORY/MACHINE.json, .svg and .png, MACHINE being made of processor and kernel; the plot needs
  matplotlib (pip install 'pyhugetext[bench]'). With --only nothing is written, unless --output
  says where to.

keys of the JSON:
  format     "pyhugetext-suite-1"
  machine    {processor, processors, kernel, python, thp_enabled, page_walk}: page_walk as in the
             facts of pyhugetext doctor
  seconds    that each side was measured, divided among so many `processes`
  workloads  [{name, title, versions, skipped, sides}]: skipped says why it was not run, null where
             it was; sides maps a side to {effect, control, whole, wall, verdict, text, quads,
             iteration_ns} or {skipped}. effect and control are {median, low, high, pairs,
             confidence} of the CPU time of the fastest laps, whole and wall the same of whole slots
             in CPU time and on the clock; text is what was on huge pages (bytes); quads has
             the ratios one by one, by process, iteration_ns is the time of an iteration on small text

examples:
  python benchmarks/suite.py
  python benchmarks/suite.py --only interpreter_loop --seconds 2 --sides auto
  python benchmarks/suite.py --show benchmarks/results/MACHINE.json

exit status:
  0 done; 1 nothing was measured; 2 wrong usage; 130 interrupted (what was measured is printed)
"""


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=plain)
    parser.add_argument(
        "--seconds", type=_seconds, default=SECONDS, help=f"for each side (default {SECONDS:g})"
    )
    parser.add_argument(
        "--processes", type=_processes, default=PROCESSES, metavar="N",
        help=f"that share the seconds of each side (default {PROCESSES})",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", choices=workloads.NAMES, metavar="NAME",
        help=f"one of {', '.join(workloads.NAMES)}; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--sides", type=_sides, default=list(SIDES), help="which, with commas (default all)"
    )
    parser.add_argument("--output", type=Path, metavar="DIRECTORY", help="default: results")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--show", type=Path, metavar="FILE", help="table and plot of a result")
    options = parser.parse_args()
    if options.show:
        return _show(options.show, options.output, options.json)
    document = describe(options.seconds, options.processes)
    interrupted = False
    progress = _Progress(len(set(options.only or workloads.NAMES)))
    try:
        for name in workloads.NAMES:
            if not options.only or name in options.only:
                progress.begin(name)
                one = suite_run.Run(name, options.sides, options.seconds, options.processes)
                try:
                    one.run(progress.show)
                finally:
                    document["workloads"].append(one.as_dict())
    except KeyboardInterrupt:
        interrupted = True
    finally:
        progress.stop()
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        suite_report.print_table(document)
    measured = any(not r.get("skipped") for w in document["workloads"] for r in w["sides"].values())
    if interrupted:
        print("suite: interrupted; nothing was written", file=sys.stderr)
        return 130
    if not measured:
        print("suite: nothing was measured", file=sys.stderr)
        return 1
    if options.output or not options.only:
        _write(document, options.output or RESULTS)
    return 0


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of seconds (up to 3600)")
    return seconds


def _processes(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) <= 100:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of processes (1 to 100)")
    return int(value)


def _sides(value: str) -> list[str]:
    names = value.split(",")
    for name in names:
        if name not in SIDES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(SIDES)}")
    return names


def describe(seconds: float, processes: int) -> dict[str, Any]:
    """The document without results."""
    from pyhugetext._stats.kernel import read
    from pyhugetext.doctor import machine, pagewalk

    kernel = read()
    checks = {check.name: check.facts for check in machine.checks()}
    return {
        "format": FORMAT,
        "machine": {
            "processor": checks["processor"]["model"],
            "processors": checks["processor"]["processors"],
            "kernel": kernel.release,
            "python": platform.python_version(),
            "thp_enabled": kernel.thp_enabled,
            "page_walk": pagewalk.check(checks["hypervisor"]["guest"]).facts,
        },
        "seconds": seconds,
        "processes": processes,
        "workloads": [],
    }


class _Progress:
    """Where the run is, on a terminal."""

    def __init__(self, count: int) -> None:
        from pyhugetext.cli.progress import Progress

        self._bar = Progress()
        self._count, self._done = count, 0
        self._name = ""

    def begin(self, name: str) -> None:
        self._done += 1
        self._name = name
        if self._done == 1:
            self._bar.begin(name)
        self._bar.label(f"{self._done} of {self._count}: {name}")

    def show(self, doing: str) -> None:
        self._bar.label(f"{self._done} of {self._count}: {self._name}, {doing}")

    def stop(self) -> None:
        self._bar.stop()


def _show(path: Path, output: Path | None, as_json: bool) -> int:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"suite: {path} is not a result of the suite: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(document, indent=1))
    else:
        suite_report.print_table(document)
    if output:
        _plot(document, output)
    return 0


def _write(document: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{_name(document)}.json"
    lines = json.dumps(document, indent=1) + "\n"
    # A list of numbers on one line.
    lines = re.sub(r"\[\s+([-+\d.eE,\s]+?)\s+\]", lambda m: f"[{_one_line(m[1])}]", lines)
    path.write_text(lines, encoding="utf-8")
    print(f"suite: wrote {path}", file=sys.stderr)
    _plot(document, directory)


def _one_line(numbers: str) -> str:
    return " ".join(numbers.split())


def _name(document: dict[str, Any]) -> str:
    machine = document["machine"]
    return suite_report.machine_name(machine["processor"], machine["kernel"])


def _plot(document: dict[str, Any], directory: Path) -> None:
    try:
        for path in suite_report.plot(document, directory / _name(document)):
            print(f"suite: wrote {path}", file=sys.stderr)
    except ImportError as error:
        print(f"suite: no plot: {error} (pip install 'pyhugetext[bench]')", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
