"""The guest's root: Debian 12's python3.11, numpy from PyPI, the package built from this tree; as one tar,
which a guest unpacks onto each file system that it asks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from kernels.archive import Archive
from kernels.needs import PATH, Failure, Skip, run

TREE = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).parent / "guest"
SUITE, PYTHON = "bookworm", "python3.11"
TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
PACKAGES = (
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libexpat1", "zlib1g",
    "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libgcc-s1", "libstdc++6", "libuuid1", "libcrypt1",
    "busybox-static",
)  # fmt: skip
WHEELS = ("numpy",)
BUILT_OF = ("src", "CMakeLists.txt", "tests/kernels/guest")  # what a guest's answers depend on


def make(work: Path, architecture: str) -> Path:
    """The tar of the root, made anew: the package in it is this tree's."""
    archive = Archive(work, SUITE, architecture)
    root = work / f"root-{architecture}"
    shutil.rmtree(root, ignore_errors=True)
    archive.unpack(PACKAGES, root)
    for folder in ("proc", "sys", "dev", "tmp", "root", "run", "var/tmp", "etc", "lib64", "t"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    site = root / f"usr/local/lib/{PYTHON}/dist-packages"
    site.mkdir(parents=True)
    tools = _tools(work)
    _wheels(work, architecture, site, tools)
    _package(work, archive, site, tools)
    for path in ("usr/share", f"usr/lib/{PYTHON}/test", f"usr/lib/{PYTHON}/idlelib"):
        shutil.rmtree(root / path, ignore_errors=True)
    for path in site.glob("numpy/**/tests"):
        shutil.rmtree(path)
    for file in GUEST.glob("*.py"):
        shutil.copy(file, root / "t")
    if sys.version_info[:2] == (3, 11):  # otherwise each guest compiles, which takes its time
        command = [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "--invalidation-mode",
            "unchecked-hash",
        ]
        folders = [root / f"usr/lib/{PYTHON}", site]
        run([*command, "-s", root, "-p", "/", *folders], "the modules cannot be compiled")
    tar = work / f"root-{architecture}.tar"
    run(["tar", "cf", tar, "--owner=0", "--group=0", "-C", root, "."], "the root cannot be packed")
    _squashfs(root, tar.with_suffix(".squashfs"))
    tar.with_suffix(".commit").write_text(_commit())
    return tar


def _commit() -> str:
    """The last one that changed what is built: others, as of a document, leave results what they are."""
    git = ["git", "-C", str(TREE)]
    told = _told([*git, "log", "-1", "--format=%h", "--", *BUILT_OF])
    changed = _told([*git, "status", "--porcelain", "--", *BUILT_OF])
    return told + ("+" if changed else "") if told else "unknown"


def _told(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def commit_of(tar: Path) -> str:
    """Of the tree that the package was built from; a + says that it was changed since."""
    return tar.with_suffix(".commit").read_text()


def _squashfs(root: Path, image: Path) -> None:
    """The same read only, where the program is there that makes it."""
    image.unlink(missing_ok=True)
    program = shutil.which("mksquashfs", path=PATH)
    if program:
        command = [program, root, image, "-quiet", "-no-progress", "-comp", "gzip", "-all-root"]
        run(command, "the root cannot be packed")


def _tools(work: Path) -> Path:
    """cmake, ninja and pybind11, in an environment of their own."""
    place = work / "tools"
    if not (place / "done").exists():
        venv.create(place, with_pip=True, clear=True)
        command = [place / "bin/python", "-m", "pip", "install", "-q"]
        try:
            run([*command, "cmake", "ninja", "pybind11[global]"], "cmake and pybind11")
        except Failure as failure:
            raise Skip(f"PyPI is needed, or a copy of it that pip knows ({failure})") from failure
        (place / "done").touch()
    return place


def _wheels(work: Path, architecture: str, site: Path, tools: Path) -> None:
    place = work / f"wheels-{architecture}"
    machine = TRIPLETS[architecture].partition("-")[0]
    if not place.exists():
        command = [tools / "bin/python", "-m", "pip", "download", "-q", "--no-deps", "-d", place,
                   "--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp"]  # fmt: skip
        for glibc in ("2_28", "2_27", "2_17", "2014"):
            form = f"manylinux{glibc}" if glibc == "2014" else f"manylinux_{glibc}"
            command += ["--platform", f"{form}_{machine}"]
        try:
            run([*command, *WHEELS], "wheels")
        except Failure as failure:
            shutil.rmtree(place, ignore_errors=True)
            raise Skip(f"{' '.join(WHEELS)} cannot be had from PyPI ({failure})") from failure
    for file in place.glob("*.whl"):
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(site)


def _package(work: Path, archive: Archive, site: Path, tools: Path) -> None:
    """Compiled for the guest's Python, whose headers are in a package, too."""
    architecture = archive.architecture
    headers, build = work / f"headers-{architecture}", work / f"package-{architecture}"
    if not headers.exists():
        archive.unpack(["libpython3.11-dev"], headers)
    include, triplet = headers / "usr/include", TRIPLETS[architecture]
    version = re.search(r'__version__ = "(.+)"', (TREE / "src/pyhugetext/__init__.py").read_text())
    configure = [
        tools / "bin/cmake", "-S", TREE, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
        "-DSKBUILD=ON", f"-DSKBUILD_PROJECT_VERSION={version[1] if version else 0}",
        f"-DPython_EXECUTABLE={tools}/bin/python", f"-Dpybind11_ROOT={tools}",
        f"-DPython_INCLUDE_DIR={include / PYTHON}",
        f"-DCMAKE_CXX_FLAGS=-isystem {include}", f"-DCMAKE_INSTALL_PREFIX={site}",
    ]  # fmt: skip
    if architecture == "arm64":  # the names of its modules: this machine's own Python has others
        soabi = f"cpython-311-{triplet}"
        configure += [f"-DSKBUILD_SOABI={soabi}", f"-DPYTHON_MODULE_EXTENSION=.{soabi}.so",
                      "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
                      f"-DCMAKE_C_COMPILER={triplet}-gcc", f"-DCMAKE_CXX_COMPILER={triplet}-g++"]  # fmt: skip
    environ = {**os.environ, "PATH": f"{tools}/bin:{os.environ.get('PATH', '')}"}
    run(configure, "the package cannot be configured", env=environ)
    run([tools / "bin/cmake", "--build", build], "the package cannot be compiled", env=environ)
    run([tools / "bin/cmake", "--install", build], "the package cannot be installed", env=environ)
    source = TREE / "src/pyhugetext"
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(source, site / "pyhugetext", dirs_exist_ok=True, ignore=ignore)
    shutil.copy(TREE / "src/startup/pyhugetext.pth", site)
