"""Boots the kernels that are asked for, one after the other, and says what the package gets there.

    make kernels [KERNELS="6.1 6.12 7 5.10 arm64-6.1 rothp-6.1 rothp-5.10"] [KERNELS_ARGS="--fs ext4,xfs"]
    make kernels KERNELS_ARGS=--render     # docs/platforms.md, of the results that are there

Exit status: 0 all kernels were asked and nothing was wrong; 1 something was, or a kernel did not boot; 77
skipped, with one sentence that says what is missing, and nothing is claimed. `make` takes 77 for 0.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path

from kernels import kinds, machine, root, rows
from kernels.needs import SKIPPED, Failure, Skip, require_room


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="KERNEL", help=" ".join(kinds.KINDS))
    parser.add_argument(
        "--work", type=Path, default=root.TREE / "build/kernels", help="several GB go here"
    )
    parser.add_argument(
        "--fs",
        default=",".join(rows.SYSTEMS),
        help="these file systems, with commas; what others gave before stays",
    )
    parser.add_argument(
        "--boot",
        type=int,
        default=300,
        metavar="SECONDS",
        help="of the processor, until a guest says something",
    )
    parser.add_argument(
        "--limit", type=int, default=5400, metavar="SECONDS", help="the same for all of it"
    )
    parser.add_argument(
        "--render", action="store_true", help="writes docs/platforms.md, boots nothing"
    )
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    try:
        if options.render:
            return render(work)
        return run(options.names or list(kinds.USUAL), work, options)
    except Skip as skip:
        print(f"make kernels: skipped: {skip}.")
        return SKIPPED
    except Failure as failure:
        print(f"make kernels: failed: {failure}.")
        return 1


def run(names: list[str], work: Path, options: argparse.Namespace) -> int:
    kinds.require(names)
    require_room(work, 12 if any(kinds.KINDS[name].source for name in names) else 5)
    tars: dict[str, Path] = {}
    wrong = 0
    for name in names:
        kind = kinds.KINDS[name]
        kernel = kinds.kernel(name, work)
        if kind.architecture not in tars:
            tars[kind.architecture] = root.make(work, kind.architecture)
        found = ask(name, kernel, tars[kind.architecture], work, options)
        print(rows.section(found), end="\n\n", flush=True)
        if rows.find(found, "interrupted"):
            print("make kernels: interrupted; what was asked to the end is kept.")
            return 130
        wrong += bool(rows.faults(found))
    return 1 if wrong else 0


def ask(
    name: str, kernel: kinds.Kernel, tar: Path, work: Path, options: argparse.Namespace
) -> list[rows.Row]:
    """Boots one kernel, and keeps what it told in results/NAME.jsonl."""
    kind = kinds.KINDS[name]
    results = work / "results"
    results.mkdir(exist_ok=True)
    here = work / f"root-{kind.architecture}"
    with tempfile.TemporaryDirectory(dir=work) as place:
        initrd = machine.initramfs(kernel, here, Path(place) / "initrd")
        images = machine.disks(Path(place), tar)
        limits = machine.Limits(options.boot, options.limit)
        said = machine.boot(
            name, kernel, initrd, images, f"guest.fs={options.fs}", limits, results / f"{name}.log"
        )
    about = {"step": "about", "kernel": name, "architecture": kind.architecture, "what": kind.what,
             "date": f"{datetime.date.today()}", "commit": root.commit_of(tar)}  # fmt: skip
    file = results / f"{name}.jsonl"
    found = rows.merge(rows.read(file) if file.exists() else [], [about, *said])
    lines = "".join(json.dumps(row) + "\n" for row in found)
    file.write_text(lines)
    return found


def render(work: Path) -> int:
    """Of kernels that were not asked from this folder the page keeps what it says."""
    files = {name: work / f"results/{name}.jsonl" for name in kinds.KINDS}
    there = {name: rows.read(file) for name, file in files.items() if file.exists()}
    if not there:
        raise Skip(f"{work}/results holds no results yet: run make kernels first")
    page = root.TREE / "docs/platforms.md"
    page.write_text(rows.document(there, page.read_text() if page.exists() else ""))
    print(f"docs/platforms.md: {', '.join(there)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
