"""Asks every tool there is about every kind of Python on every backing, prints the table, and fails
where it is not the one that docs/tools.md has: `make tools`.

    python tests/platforms/tools.py [--rounds 4] [--only TOOL ...] [--verbose]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["PYHUGETEXT"] = "0"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import attaching


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=4, help="starts of a PIE, which move it about"
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of tools")
    parser.add_argument("--verbose", action="store_true", help="what a tool printed that failed")
    options = parser.parse_args()

    places = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("a C compiler is needed")
    tools = {}
    for tool in attaching.TOOLS:
        path = shutil.which(tool.command[0], path=places)
        if path and (not options.only or tool.name in options.only):
            tools[tool.name] = path
        elif not path:
            print(f"{tool.name}: not installed")

    unexpected = []
    with tempfile.TemporaryDirectory(prefix="pyhugetext-attaching-") as name:
        place = attaching.Workplace.make(Path(name), compiler)
        for kind in attaching.KINDS:
            python = attaching.build(kind, Path(name), compiler)
            if isinstance(python, str):
                print(f"{kind}: skipped: {python}")
                continue
            rounds = options.rounds if kind == "PIE" else 1
            for row in attaching.measure(place, kind, python, tools, rounds=rounds):
                cells = ", ".join(f"{b} {c}" for b, c in row.cells.items())
                print(f"{row.tool:18} {kind:7} {row.skipped or cells}", flush=True)
                if options.verbose and row.output:
                    print(row.output)
                unexpected += row.unexpected()
    print(attaching.table())
    print(*unexpected, sep="\n")
    return bool(unexpected)


if __name__ == "__main__":
    sys.exit(main())
