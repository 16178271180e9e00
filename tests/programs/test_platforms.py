"""The preload library alone, for another C library and for another processor, built by the project's
own rules without Python; `make any-program` runs these."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.common import ROOT, TESTS, big_source, clean_environment, tool

SOURCES = TESTS / "native" / "preload"
CASES = (
    "plain",
    "runpath",
    "next",
    "local",
    "errors",
    "namespaces",
    "closing",
    "daemon",
    "threads",
    "child",
    "listed",
    "forks",
)


class Platform:
    """A compiler, what cmake has to be told, and what runs the programs."""

    def __init__(self, place: Path, compiler: str, runner: tuple[str, ...]) -> None:
        self.place = place
        self.compiler = compiler
        self.runner = runner
        self.flags: tuple[str, ...] = ()

    def build(self, *options: str) -> Path:
        cmake, made = tool("cmake"), self.place / "build"
        common = ("-DPYHUGETEXT_PRELOAD=ON", "-DCMAKE_BUILD_TYPE=Release")
        for command in (["-S", ROOT, "-B", made, *common, *options], ["--build", made, "-j", "2"]):
            subprocess.run([cmake, *command], check=True, stdout=2)
        return made / "libpyhugetext_preload.so"

    def compile(self, source: Path, target: str, *flags: str) -> None:
        out = self.place / target
        out.parent.mkdir(exist_ok=True)
        command = [self.compiler, "-O1", *self.flags, "-o", out, source, *flags]
        subprocess.run(command, check=True, stdout=2)

    def programs(self) -> None:
        big = self.place / "big.c"
        # No byte of text that only x86 has.
        big.write_text(big_source(500, padding=10_000).replace(", 0x90", ""))
        shared = ("-shared", "-fPIC")
        self.compile(big, "libbig.so", *shared)
        for name in ("first", "second", "constructor"):
            self.compile(SOURCES / "libraries.c", f"lib{name}.so", *shared, f"-D{name.upper()}")
        for target in ("libplugin.so", "plugins/libplugin.so"):
            self.compile(SOURCES / "libraries.c", target, *shared, "-DPLUGIN")
        origin = "-Wl,--enable-new-dtags,-rpath,$ORIGIN"
        self.compile(
            SOURCES / "libraries.c", "libcaller.so", *shared, "-DCALLER", f"{origin}/plugins"
        )
        behind = ("-Wl,--no-as-needed", f"-L{self.place}", "-lfirst", "-lsecond", "-lconstructor")
        self.compile(SOURCES / "program.c", "program", *behind, origin, "-pthread")

    def run(self, case: str, **env: str) -> tuple[int, str, str]:
        names = [word for name, value in env.items() for word in ("-E", f"{name}={value}")]
        prefix = [*self.runner, *names] if self.runner else []
        environ = clean_environment(**({} if self.runner else env))
        result = subprocess.run(
            [*prefix, self.place / "program", case, self.place],
            env=environ, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return result.returncode, result.stdout, result.stderr


def musl(place: Path) -> tuple[Platform, Path]:
    compiler = tool("musl-gcc")
    told = subprocess.run(
        [tool("g++"), "-E", "-v", "-x", "c++", os.devnull],
        check=True, capture_output=True, text=True,
    ).stderr  # fmt: skip
    listed = told.partition("#include <...> search starts here:")[2].partition("End of search")[0]
    headers = [line.strip() for line in listed.splitlines() if "/c++/" in line]
    # The C++ headers here were made for glibc, and ask for its version; musl comes without the kernel's.
    kernel = "-idirafter/usr/include/x86_64-linux-gnu -idirafter/usr/include"
    flags = " ".join(
        ['"-D__GLIBC_PREREQ(major,minor)=0"', *(f"-isystem{h}" for h in headers), kernel]
    )
    made = Platform(place, compiler, ())
    made.flags = tuple(kernel.split())
    compilers = (f"-DCMAKE_C_COMPILER={compiler}", f"-DCMAKE_CXX_COMPILER={compiler}")
    return made, made.build(*compilers, f"-DCMAKE_CXX_FLAGS={flags}")


def aarch64(place: Path) -> tuple[Platform, Path]:
    compiler = tool("aarch64-linux-gnu-gcc")
    emulator = tool("qemu-aarch64-static", "qemu-aarch64")
    if not Path("/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1").exists():
        pytest.skip("no C library for aarch64 (Debian: libc6-arm64-cross)")
    made = Platform(place, compiler, (emulator, "-L", "/usr/aarch64-linux-gnu"))
    compilers = (
        f"-DCMAKE_C_COMPILER={compiler}",
        f"-DCMAKE_CXX_COMPILER={tool('aarch64-linux-gnu-g++')}",
    )
    system = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
    return made, made.build(*compilers, *system)


@pytest.mark.parametrize("kind", [musl, aarch64])
def test_programs_say_the_same_as_without(tmp_path: Path, kind) -> None:
    platform, library = kind(tmp_path)
    platform.programs()
    covered = []
    for case in CASES:
        plain = platform.run(case)
        if plain[0] == 77:
            continue
        env = {"LD_PRELOAD": str(library), "PYHUGETEXT_BACKING": "memfd"}
        assert platform.run(case, **env) == plain, case
        told = platform.run(case, PYHUGETEXT_DEBUG="1", **env)
        assert "pyhugetext: " in told[2], case
        covered.append("libbig.so: huge, memfd" in told[2])
    # User-mode emulation has no pages of its own to be huge.
    assert any(covered) != bool(platform.runner)
    shutil.rmtree(tmp_path / "build")
