"""What a start of Python costs with the package, with the package off, and without it.

Run it with an interpreter of a virtual environment where pyhugetext is installed (`make
bench-startup` does). It makes environments, as `python -m venv` does, that differ in nothing but
the package, and starts `python -c pass` in pairs: without it, with it, with it, without it. One
more has a .pth file of one line instead, which is what any such file costs. Each process is started
by posix_spawn(3) and measured by wait4(2): user and system time as the kernel charged it,
wall-clock time from the spawn to the end. Intervals are 95 % bootstrap intervals of the median.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from starts import Cost, Estimate, estimate, start

PROBE = """
import json, pyhugetext
stats = pyhugetext.stats()
print(json.dumps([stats.active, stats.reason, stats.backing, stats.elapsed_ns, stats.huge_bytes]))
"""


@dataclass(frozen=True)
class Row:
    """One variant against the start without the package; differences in milliseconds."""

    name: str
    backing: str
    elapsed_ms: float | None  # the activation's own clock, median; None where it did not run
    huge_kib: int
    cpu_ms: float  # of the variant itself, median
    cpu_difference: Estimate
    cpu_ratio: Estimate
    wall_ms: float
    wall_difference: Estimate
    wall_ratio: Estimate


@dataclass(frozen=True)
class Variant:
    name: str
    python: str
    environ: dict[str, str]


def run(variant: Variant) -> Cost:
    return start("pass", variant.environ, variant.python)


def alternate(base: Variant, variant: Variant, pairs: int) -> list[tuple[Cost, Cost]]:
    """Pairs of (base, variant), measured A B B A so that a drift hits both alike."""
    found = []
    for i in range(pairs):
        if i % 2:
            other = run(variant)
            found.append((run(base), other))
        else:
            one = run(base)
            found.append((one, run(variant)))
    return found


def probe(variant: Variant, times: int) -> list[tuple[bool, str | None, str, int, int]]:
    """What stats() says in new processes of the variant."""
    command = [variant.python, "-c", PROBE]
    return [
        tuple(json.loads(subprocess.check_output(command, env=variant.environ)))
        for _ in range(times)
    ]


def backings() -> list[str]:
    """The backings a user may name, the best first."""
    from pyhugetext._backing import LADDER

    return list(LADDER)


def make_environment(folder: Path, bare: bool) -> tuple[str, Path]:
    """A virtual environment: its Python and its site-packages. A bare one has no pip and, up to
    Python 3.11, no setuptools, whose own .pth file makes every start longer."""
    command = [sys.executable, "-m", "venv", *["--without-pip"][:bare], str(folder)]
    subprocess.run(command, check=True)
    python = str(folder / "bin" / "python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return python, Path(subprocess.check_output([python, "-c", code], text=True).strip())


def copy_package(target: Path) -> None:
    """Puts the files of the installed package into another site-packages."""
    for file in metadata.distribution("pyhugetext").files or []:
        copy = target / str(file)
        if ".." not in file.parts:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(file.locate()), copy)
    if not (target / "pyhugetext.pth").exists() or not list(target.glob("pyhugetext/_boot*.so")):
        sys.exit("the installed pyhugetext has no files to copy: install it without --editable")


def compare(base: Variant, variant: Variant, pairs: int, activated: bool) -> Row:
    told = probe(variant, 11) if activated else []
    costs = alternate(base, variant, pairs)

    def between(of: Callable[[Cost], float]) -> tuple[float, Estimate, Estimate]:
        return (
            statistics.median(of(b) for _, b in costs),
            estimate([of(b) - of(a) for a, b in costs]),
            estimate([of(b) / of(a) for a, b in costs]),
        )

    cpu, wall = between(lambda c: c.cpu), between(lambda c: c.wall)
    return Row(
        variant.name,
        told[0][2] if told else "none",
        statistics.median(t[3] for t in told) / 1e6 if told else None,
        told[0][4] // 1024 if told else 0,
        *cpu,
        *wall,
    )


def table(rows: list[Row]) -> str:
    head = ("variant", "backing", "elapsed_ns", "CPU ms", "difference", "ratio", "wall difference")
    lines = [head]
    for r in rows:
        elapsed = "-" if r.elapsed_ms is None else f"{r.elapsed_ms * 1e6:,.0f}"
        difference, ratio, wall = map(str, (r.cpu_difference, r.cpu_ratio, r.wall_difference))
        lines.append((r.name, r.backing, elapsed, f"{r.cpu_ms:.2f}", difference, ratio, wall))
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows_of_text = ("  ".join(map(str.ljust, line, widths)) for line in lines)
    return "\n".join(text.rstrip() for text in rows_of_text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=100, help="for each variant (default 100)")
    parser.add_argument("--bare", action="store_true", help="environments without pip")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if options.pairs < 2:
        parser.error("--pairs needs 2 or more")

    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYHUGETEXT", "PYTHON"))}
    skipped = {}
    rows = []
    with tempfile.TemporaryDirectory(prefix="pyhugetext-startup-") as folder:
        # A store of its own: filled by the warm-up, gone afterwards.
        environ["XDG_CACHE_HOME"] = folder
        without, _ = make_environment(Path(folder) / "without", options.bare)
        one_line, target = make_environment(Path(folder) / "line", options.bare)
        (target / "line.pth").write_text("import os\n")
        package, target = make_environment(Path(folder) / "with", options.bare)
        copy_package(target)
        base = Variant("without the package", without, environ)
        variants = [
            Variant("without, once more", without, environ),
            Variant("a .pth file: import os", one_line, environ),
            Variant("PYHUGETEXT=0", package, {**environ, "PYHUGETEXT": "0"}),
            Variant("active", package, environ),
        ]
        for backing in backings():
            name = f"PYHUGETEXT_BACKING={backing}"
            variant = Variant(name, package, {**environ, "PYHUGETEXT_BACKING": backing})
            active, reason, *_ = probe(variant, 1)[0]
            if active:
                variants.append(variant)
            else:
                skipped[name] = str(reason)
        for variant in (base, *variants):
            for _ in range(3):  # files into the page cache, modules into __pycache__
                run(variant)
        for variant in variants:
            activated = variant.python == package and variant.environ.get("PYHUGETEXT") != "0"
            rows.append(compare(base, variant, options.pairs, activated))

    if options.json:
        result = {
            "python": sys.version,
            "kernel": os.uname().release,
            "machine": os.uname().machine,
            "processors": os.cpu_count(),
            "pairs": options.pairs,
            "bare": options.bare,
            "rows": [asdict(row) for row in rows],
            "skipped": skipped,
        }
        print(json.dumps(result, indent=2))
        return
    print(
        f"python -c pass, Python {sys.version.split()[0]}, Linux {os.uname().release}, "
        f"{options.pairs} pairs each against the start without the package;\n"
        "medians with 95 % intervals, in milliseconds but elapsed_ns, the activation's own clock\n"
    )
    print(table(rows))
    for name, reason in skipped.items():
        print(f"not measured: {name}: {reason}")


if __name__ == "__main__":
    main()
