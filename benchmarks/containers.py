"""What containers of one machine take, from an image that `pyhugetext image` prepared and from others.

Run it as root with an interpreter of a virtual environment below / where pyhugetext and the modules
are installed, while nobody else uses the machine. A container is a chroot into an overlay over all of
this machine's files, its upper layer on an ext4 of its own, as the kernel sees containers. Of each
image three containers run at once, a process in each that imports the modules; PSS is that of all
machine code, while the three are there. The host's row is of three processes with a warm store.
Objects that a process has a private copy of are named on stderr. Where others use the machine, a
priority before theirs (`chrt -f 10` in front) leaves the times much as they are without them.
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
from pathlib import Path
from typing import Any

CHILD = """
import json, sys, time
began = time.perf_counter()
for name in sys.argv[1].split(","):
    __import__(name)
took = time.perf_counter() - began
import pyhugetext
stats = pyhugetext.stats()
told = {name: getattr(stats, name) for name in (
    "coverable_bytes", "mapped_bytes", "huge_bytes", "private_bytes", "elapsed_ns", "backing")}
copies = [f"{r.path} ({r.backing}): {'; '.join(map(str, r.fallbacks))}"
    for r in stats.regions if r.private_bytes]
print(json.dumps({**told, "import": took, "copies": copies}), flush=True)
sys.stdin.readline()
pss = counted = 0
for line in open("/proc/self/smaps"):
    fields = line.split()
    if not fields[0].endswith(":"):
        counted = "x" in fields[1]
    elif counted and fields[0] == "Pss:":
        pss += int(fields[1])
print(pss, flush=True)
sys.stdin.readline()
"""
ROOT = """
cd "$1"
mkdir -p "layers/$2" "layers/$2.work" "root-$2"
mount -t overlay -o "lowerdir=$3/,upperdir=$PWD/layers/$2,workdir=$PWD/layers/$2.work" \
    overlay "root-$2"
mount -t proc proc "root-$2/proc"
mount --rbind /dev "root-$2/dev"
mount -t tmpfs -o mode=1777 tmpfs "root-$2/dev/shm"
mount --rbind /sys "root-$2/sys"
"""
MIB = 1 << 20


def shell(script: str, *arguments: str) -> None:
    subprocess.run(["sh", "-ec", script, "sh", *arguments], check=True)


def container(place: Path, name: str, *below: str) -> list[str]:
    """Makes one above these layers; the command in front that enters it."""
    shell(ROOT, str(place), name, "".join(f"{place}/layers/{layer}:" for layer in below))
    return ["chroot", str(place / f"root-{name}")]


def measure(
    prefixes: list[list[str]], modules: str, environ: dict[str, str]
) -> list[dict[str, Any]]:
    """A process behind each of the prefixes, all there at once; what they tell."""
    children = []
    rows = []
    for prefix in prefixes:
        child = subprocess.Popen(
            [*prefix, sys.executable, "-c", CHILD, modules],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        rows.append(json.loads(child.stdout.readline()))
        children.append(child)
    for child, row in zip(children, rows):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("tell\n")
        child.stdin.flush()
        row["pss"] = int(child.stdout.readline()) << 10
    for child in children:
        child.communicate("end\n")
    return rows


def show(name: str, rows: list[dict[str, Any]]) -> None:
    def median(key: str) -> float:
        return float(statistics.median(row[key] for row in rows))

    covered = 100 * median("mapped_bytes") / max(median("coverable_bytes"), 1)
    print(
        f"| {name} | {rows[-1]['backing']} | {covered:.0f} % | {median('private_bytes') / MIB:.1f} "
        f"| {median('pss') / MIB:.1f} | {median('elapsed_ns') / 1e6:.1f} "
        f"| {median('import') * 1e3:.0f} |",
        flush=True,
    )
    for copy in sorted({copy for row in rows for copy in row["copies"]}):
        print(f"private: {copy}", file=sys.stderr)


def compare(options: argparse.Namespace, place: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYHUGETEXT")}
    off = {**environ, "PYHUGETEXT": "0"}
    tool = [sys.executable, "-m", "pyhugetext"]
    shell(
        'cd "$1"; truncate -s "$2G" disk; mkfs.ext4 -q disk; mkdir layers; mount -o loop disk layers',
        str(place),
        str(options.disk),
    )
    print(
        "| image | text from | covered | private MiB | PSS of code MiB | activation ms | import ms |"
    )
    print("|---|---|---|---|---|---|---|")
    names = ("first", "second", "third")
    plain = [container(place, f"plain-{name}") for name in names]
    show("without the package", measure(plain, options.modules, off))
    show("not prepared", measure(plain, options.modules, environ))

    build = container(place, "build")
    # The environment is the image's own, as it is where it was installed by the same RUN.
    own = ["find", sys.prefix, "-type", "f", "-exec", "chmod", "u+r", "{}", "+"]
    subprocess.run([*build, *own], check=True)
    subprocess.run([*build, *tool, "image"], env=off, check=True, stdout=subprocess.DEVNULL)
    prepared = [container(place, name, "build") for name in names]
    show("prepared, first start", measure(prepared, options.modules, environ))
    show("prepared, later", measure(prepared, options.modules, environ))
    script = 'cd "$1/layers"; mkdir pulled; tar -C build --sort=name -cf - . | tar -C pulled --same-owner -xpf -'
    shell(script, str(place))
    pulled = [container(place, f"pulled-{name}", "pulled") for name in names]
    show("the same, packed and unpacked, first start", measure(pulled, options.modules, environ))
    show("the same, later", measure(pulled, options.modules, environ))

    host = {**environ, "PYHUGETEXT_STORE": str(place / "store")}
    command = [*tool, "warm", *options.modules.split(",")]
    subprocess.run(command, env={**host, "PYHUGETEXT": "0"}, check=True, stdout=subprocess.DEVNULL)
    measure([[]], options.modules, host)
    show("the host", measure([[]] * 3, options.modules, host))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", default="numpy", help="what a process imports")
    parser.add_argument("--disk", type=int, default=4, help="GiB for the layers, taken as needed")
    parser.add_argument("--directory", default="/var/tmp", help="where they are made")
    options = parser.parse_args()
    # All that is mounted goes with this namespace.
    if os.environ.get("CONTAINERS_NAMESPACE") != "1":
        os.environ["CONTAINERS_NAMESPACE"] = "1"
        inside = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvp("unshare", inside)
    place = Path(tempfile.mkdtemp(prefix="containers-", dir=options.directory))
    try:
        compare(options, place)
    finally:
        subprocess.run(["sh", "-c", 'umount -R -l "$0"/root-* "$0"/layers', place], check=False)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
