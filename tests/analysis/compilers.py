"""Compiles src/native (but `module`, which needs a Python's headers) with each g++-N and clang++-N there
is, warnings as errors, or has clang's static analyzer look at it: compilers.py [--chroot DIRECTORY]...
[--syntax | --analyze]. In a chroot the sources are copied to its /tmp; that needs root. Says what was
found; ends with 1 where one warns, or there is none."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
NATIVE = ROOT / "src" / "native"
NAME = re.compile(r"(g\+\+|clang\+\+)(-\d+)?$")

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
# As CMakeLists.txt has it.
BARE = ["-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-Wframe-larger-than=4096"]
CORE = ["-ffreestanding", "-fno-builtin", "-fno-stack-protector"]
# On top of what clang-tidy asks of it in `make lint`: more checkers, and paths four times as long.
CHECKERS = (
    "core,cplusplus,deadcode,nullability,optin.cplusplus,optin.portability,security,unix,"
    "alpha.core.CastSize,alpha.core.IdenticalExpr,alpha.core.SizeofPtr,"
    "alpha.deadcode.UnreachableCode"
)
ANALYZER = ["--analyze", "--analyzer-output", "text", "-Xclang", f"-analyzer-checker={CHECKERS}"]
ANALYZER += [
    "-Xclang",
    "-analyzer-config",
    "-Xclang",
    "max-nodes=900000",
    "-Xclang",
    "-analyzer-werror",
]
HOSTED_ROOMS = ("engine", "host", "preload", "settings")


class Compiler(NamedTuple):
    name: str
    root: Path | None  # of a chroot

    def command(self, *arguments: str) -> list[str]:
        inside = [] if self.root is None else ["chroot", str(self.root)]
        return [*inside, self.name, *arguments]

    def version(self) -> str:
        told = subprocess.run(
            self.command("--version"), capture_output=True, text=True, check=False
        )
        return told.stdout.splitlines()[0] if told.returncode == 0 and told.stdout else ""


def in_directory(directory: Path) -> list[str]:
    if not directory.is_dir():
        return []
    return [entry for entry in os.listdir(directory) if NAME.match(entry)]


def find(chroots: list[Path]) -> list[Compiler]:
    """One of each version; g++ without a number is one of the others."""
    out: dict[str, Compiler] = {}
    places = [(Path(one), None) for one in os.environ.get("PATH", "").split(":") if one]
    places += [(root / "usr/bin", root) for root in chroots]
    for directory, root in places:
        for name in sorted(in_directory(directory), key=lambda one: "-" not in one):
            compiler = Compiler(name, root)
            number = re.search(r"\d+\.[\d.]+", compiler.version())
            if number:
                out.setdefault(f"{name[:5]} {number[0]}", compiler)
    return [out[key] for key in sorted(out)]


def sources() -> list[Path]:
    return [one for one in sorted(NATIVE.rglob("*.cpp")) if one.parent.name != "module"]


def compile_one(compiler: Compiler, place: Path, how: list[str], source: Path) -> str:
    """What the compiler says; empty where it says nothing."""
    hosted = source.parent.name in HOSTED_ROOMS
    options = ["-std=c++20", f"-I{place}", *WARNINGS, *BARE, *([] if hosted else CORE)]
    options += [*how, '-DPYHUGETEXT_VERSION="0"']
    command = compiler.command(*options, str(place / source.relative_to(NATIVE)))
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return ended.stderr or (f"status {ended.returncode}" if ended.returncode else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chroot", type=Path, action="append", default=[])
    parser.add_argument("--only", default="", help="a pattern on names, as 'g\\+\\+-15'")
    parser.add_argument(
        "--syntax", action="store_true", help="no code: sizes of frames are not seen"
    )
    parser.add_argument("--analyze", action="store_true", help="clang's static analyzer")
    options = parser.parse_args()
    wanted = r"^clang\+\+" if options.analyze else options.only
    compilers = [one for one in find(options.chroot) if re.search(wanted, one.name)]
    if not compilers:
        print("no such compiler is on PATH, nor in a chroot named by CHROOTS", file=sys.stderr)
        return 1
    how = ["-O2", "-fPIC", "-c", "-o", "/dev/null"]
    if options.syntax or options.analyze:
        how = ["-fsyntax-only"] if options.syntax else ANALYZER
    bad = False
    for compiler in compilers:
        place = NATIVE
        if compiler.root is not None:
            place = Path("/tmp/pyhugetext-native")
            inside = compiler.root / "tmp/pyhugetext-native"
            shutil.rmtree(inside, ignore_errors=True)
            shutil.copytree(NATIVE, inside)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            told = list(pool.map(partial(compile_one, compiler, place, how), sources()))
        if compiler.root is not None:
            shutil.rmtree(inside)
        found = [text for text in told if text]
        print(f"{compiler.version()}: {len(told)} files, {len(found)} with warnings", flush=True)
        bad = bad or bool(found)
        for text in found[:5]:
            print(text[:3000], file=sys.stderr)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
