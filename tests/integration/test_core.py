"""The core without Python: that it needs no C library, and what its parsers make of hard input."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from support.common import HUGE, ROOT, big_source, tool
from support.layouts import compile_object
from support.once import builds_share_objects
from support.store import require_huge_disk

# What makes no C library call.
ROOMS = ("builder", "elf", "kernel", "limits", "process", "store", "text")


NATIVE = ROOT / "src/native"


def core_sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (NATIVE / room).glob("*.cpp"))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core and the program made of it, built by the project's own CMake rules."""
    directory = tmp_path_factory.mktemp("core")
    tool("c++", "g++", "clang++")
    cmake = tool("cmake")
    options = ["-DPYHUGETEXT_PROOF=ON", "-DCMAKE_BUILD_TYPE=Release"]
    environ = {**os.environ, **builds_share_objects()}
    for command in (["-S", ROOT, "-B", directory, *options], ["--build", directory]):
        subprocess.run([cmake, *command], check=True, stdout=2, env=environ)
    return directory


def core_objects(build: Path) -> list[Path]:
    objects = sorted(build.glob("CMakeFiles/pyhugetext_core.dir/**/*.o"))
    assert len(objects) == len(core_sources())
    return objects


def test_core_has_no_undefined_symbol(build: Path, tmp_path: Path) -> None:
    merged = tmp_path / "core.o"
    subprocess.run([tool("ld"), "-r", "-o", merged, *core_objects(build)], check=True)
    undefined = subprocess.run(
        [tool("nm"), "-u", merged], check=True, capture_output=True, text=True
    ).stdout
    assert undefined.strip() == ""


@pytest.mark.parametrize("backing", ["memfd", "thp", "auto"])
def test_program_of_the_core_alone_remaps_its_own_text(build: Path, backing: str) -> None:
    result = subprocess.run(
        [build / "pyhugetext_proof", backing], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, (result.returncode, result.stdout)
    fields = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", result.stdout)}
    assert fields["huge"] == fields["swapped"] >= 2 * HUGE
    assert fields["mapped"] > fields["text"] / 2
    assert fields["left"] == 0


def test_program_of_the_core_alone_has_no_interpreter_and_no_dynamic_section(build: Path) -> None:
    headers = subprocess.run(
        [tool("readelf"), "-lW", build / "pyhugetext_proof"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "INTERP" not in headers
    assert "DYNAMIC" not in headers


def test_core_compiles_for_aarch64_and_runs_there(tmp_path: Path) -> None:
    compiler = tool("aarch64-linux-gnu-g++")
    emulator = tool("qemu-aarch64-static", "qemu-aarch64")
    flags = [
        "-std=c++20",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffreestanding",
        "-fno-exceptions",
        "-fno-rtti",
        "-fno-stack-protector",
        "-fno-threadsafe-statics",
        "-fno-tree-loop-distribute-patterns",
        f"-I{NATIVE}",
    ]
    # As distributions build: text that wants BTI, which not every processor knows.
    flags += ["-mbranch-protection=standard", "-mno-outline-atomics"]
    program = tmp_path / "proof"
    sources = [ROOT / "tests/native/proof.cpp", *core_sources()]
    linking = ["-static", "-nostdlib", "-no-pie", "-fno-pie"]
    subprocess.run([compiler, *flags, *linking, "-o", program, *sources], check=True)
    for backing in ("auto", "memfd"):
        told = []
        for processor in ("max", "cortex-a72"):
            result = subprocess.run(
                [emulator, "-cpu", processor, program, backing],
                capture_output=True,
                text=True,
                timeout=60,
            )
            # User-mode emulation has no pages of its own to be huge: swapped or politely refused
            # (2) are both right, a wrong result (1) or a signal is not.
            assert result.returncode in (0, 2), (result.returncode, result.stdout, result.stderr)
            assert "left=0" in result.stdout or "observe_errno" in result.stdout
            told.append(result.stdout)
        assert told[0] == told[1]


@pytest.mark.parametrize(
    ("name", "own"), [("_boot.*so", "PyInit__boot"), ("libpyhugetext_preload.so", "dlsym")]
)
def test_host_of_the_engine_exports_what_it_must_and_needs_the_c_library_only(
    package_files: list[Path], name: str, own: str
) -> None:
    [path] = package_files[0].glob(name)
    listing = subprocess.run(
        [tool("nm"), "-D", "--defined-only", path], check=True, capture_output=True, text=True
    ).stdout
    symbols = {line.split()[-1] for line in listing.splitlines()}
    assert symbols == {own, "pyhugetext_engine"}
    needed = subprocess.run(
        [tool("readelf"), "-dW", path], check=True, capture_output=True, text=True
    ).stdout
    libraries = set(re.findall(r"NEEDED.*\[(.*)\]", needed))
    assert all(re.match(r"lib(c|dl|pthread)\b", library) for library in libraries), libraries
    assert "TLS" not in needed
    assert os.path.getsize(path) < 340_000


def include_directories(compiler: str) -> list[str]:
    """Where a compiler finds the headers of C++ itself."""
    told = subprocess.run(
        [compiler, "-E", "-v", "-x", "c++", os.devnull], check=True, capture_output=True, text=True
    ).stderr
    listed = told.partition("#include <...> search starts here:")[2].partition("End of search")[0]
    return [line.strip() for line in listed.splitlines() if "/c++/" in line]


@pytest.fixture(scope="module", params=["the system's", "musl"])
def hosted(
    build: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The engine's program and its library, built with one C library."""
    place = tmp_path_factory.mktemp("hosted")
    compiler, c_compiler = tool("g++", "c++"), tool("gcc", "cc")
    options = ["-std=c++20", "-O1", "-fPIC", "-fno-exceptions", "-fno-rtti"]
    options += ["-fno-threadsafe-statics", "-fvisibility=hidden"]
    if request.param == "musl":
        # The C++ headers here were made for glibc, and ask for its version.
        options += ["-D__GLIBC_PREREQ(major,minor)=0"]
        options += [f"-isystem{directory}" for directory in include_directories(compiler)]
        # Debian's musl comes without the kernel's headers.
        for name in ("x86_64-linux-gnu/asm", "aarch64-linux-gnu/asm", "asm-generic"):
            if (Path("/usr/include") / name).is_dir():
                options.append(f"-idirafter{(Path('/usr/include') / name).parent}")
        compiler = c_compiler = tool("musl-gcc")
    freestanding = ["-ffreestanding", "-fno-builtin", "-fno-stack-protector"]
    freestanding += ["-fno-tree-loop-distribute-patterns"]
    options.append(f"-I{NATIVE}")
    # The core is compiled once more only where its headers are other ones.
    core = core_sources() if request.param == "musl" else []
    objects = [] if core else core_objects(build)
    # But for the table of what the command line asks.
    engine = sorted((NATIVE / "engine").glob("*.cpp"))
    hosted = [path for path in engine if path.stem != "store_api"]
    hosted.append(ROOT / "tests/native/hosted.cpp")
    for source in (*core, *hosted):
        objects.append(place / f"{source.parent.name}-{source.stem}.o")
        command = [compiler, "-x", "c++", *options, *([] if source in hosted else freestanding)]
        subprocess.run([*command, "-c", source, "-o", objects[-1]], check=True)
    subprocess.run([compiler, "-o", place / "hosted", *objects, "-ldl"], check=True)
    # Long enough to hold a whole 2 MiB page wherever it is loaded.
    big = compile_object(big_source(250, padding=20_000), place / "big.o")
    library = ["-shared", big, "-o"]
    subprocess.run([c_compiler, *library, place / "libbig.so"], check=True)
    # These linkers leave out of the file what lies between segments: musl maps it all the same,
    # past the end of the file.
    (place / "apart").mkdir()
    for linker in ("lld", "mold"):
        if shutil.which(f"ld.{linker}"):
            flags = [f"-fuse-ld={linker}", "-Wl,-z,max-page-size=2097152"]
            subprocess.run([c_compiler, *flags, *library, place / "apart/libbig.so"], check=True)
            break
    return place / "hosted"


@pytest.mark.parametrize("directory", [".", "apart"])
@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_engine_works_with_another_c_library(hosted: Path, backing: str, directory: str) -> None:
    place = hosted.parent / directory
    if not (place / "libbig.so").exists():
        pytest.skip("neither lld nor mold is installed")
    result = subprocess.run([hosted, place, backing], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert re.match(r"objects=\d+ swapped=0", result.stdout)


def test_engine_builds_entries_for_a_host_without_python(hosted: Path, tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    store = tmp_path / "store"
    time.sleep(0.1)  # until a change of the library would show in its times
    for status in (0, 21):  # the second time nothing is missing
        result = subprocess.run(
            [hosted, hosted.parent, store], capture_output=True, text=True, timeout=60
        )
        assert (result.returncode, result.stderr) == (status, "")
    (copy,) = store.glob("v1/objects/*/libbig.so")
    assert copy.stat().st_size > 2 << 20
