"""The engine in programs of its own, and the whole extension in some of the integration tests, under
sanitizers: run.py BUILD_DIRECTORY LINT_PREFIX KIND... with the interpreter of the test environment.
KIND is address, undefined or thread. Prints a table; ends with 1 where anything was found, or a part
did not run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.common import big_source  # noqa: E402

BACKINGS = ("memfd", "thp")
ROUNDS = "40"
# Under the thread sanitizer a python starts in seconds: what threads do is enough.
TESTS = {
    "address": (
        "test_api.py",
        "test_threads.py",
        "test_unload.py",
        "test_strict.py",
        "test_store_forks.py",
    ),
    "undefined": (
        "test_api.py",
        "test_threads.py",
        "test_unload.py",
        "test_strict.py",
        "test_layouts.py",
    ),
    "thread": ("test_threads.py",),
}
# What counts all objects, of which the run-time library is one more, or reads maps as if nothing but
# the program were there; what preloads a library, as the sanitizer's is; a client that mypy checks.
LEFT_OUT = (
    "not types_serve and not other_library_at_the_address and not patterns_of_the_call_choose_objects"
    " and not that_was_preloaded"
)
# ThreadSanitizer's dlopen(3) waits for the dynamic linker's lock, which nobody gives back here.
LEFT_OUT_OF = {"thread": " and not whose_parent_was_listing_objects"}
RUNTIME = {"address": "libasan.so", "thread": "libtsan.so"}
FLAGS = "detect_leaks=0:abort_on_error=0:exitcode=77:handle_segv=1"
VARIABLES = {"address": "ASAN_OPTIONS", "thread": "TSAN_OPTIONS"}


class Part(NamedTuple):
    kind: str
    name: str
    result: str
    seconds: float
    good: bool
    log: str


def call(command: list[object], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(one) for one in command],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **options,  # type: ignore[call-overload]
    )


def must(command: list[object]) -> None:
    ended = call(command)
    if ended.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{ended.stdout[-4000:]}{ended.stderr[-4000:]}")


def build(kind: str, place: Path, lint: Path) -> None:
    cmake = lint / "bin" / "cmake"
    version = re.search(
        r'__version__ = "([^"]+)"', (ROOT / "src/pyhugetext/__init__.py").read_text()
    )
    must(
        [
            cmake, "-S", ROOT, "-B", place, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={lint}/bin/ninja",
            "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1 -g1", "-DSKBUILD=ON", f"-DPYHUGETEXT_SANITIZE={kind}",
            f"-DSKBUILD_PROJECT_VERSION={version[1] if version else '0'}",
            "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF", "-DCMAKE_C_COMPILER=gcc", "-DCMAKE_CXX_COMPILER=g++",
            f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_ROOT={lint}",
        ]
    )  # fmt: skip
    must([cmake, "--build", place])


def libraries(place: Path) -> tuple[Path, Path]:
    """A library that is long enough for 2 MiB pages wherever it lies, and another one."""
    made = []
    for name, functions in (("libbig.so", 250), ("libother.so", 240)):
        path = place / name
        if not path.exists():
            source = place / f"{name}.c"
            source.write_text(big_source(functions, padding=20_000))
            must(["gcc", "-shared", "-fPIC", "-O0", "-o", path, source])
        made.append(path)
    return made[0], made[1]


def environment(kind: str, logs: Path) -> dict[str, str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYHUGETEXT")}
    environ["PYHUGETEXT"] = "0"
    if kind in VARIABLES:
        more = (
            ":ignore_noninstrumented_modules=1:report_signal_unsafe=0" if kind == "thread" else ""
        )
        environ[VARIABLES[kind]] = f"{FLAGS}:log_path={logs}/report{more}"
    return environ


def prefix(kind: str) -> list[object]:
    # This runtime knows the memory layout without randomization only.
    return ["setarch", "-R"] if kind == "thread" else []


def reports(logs: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(logs.glob("report*")))


def judge(kind: str, name: str, logs: Path, began: float, ended: object, result: str) -> Part:
    found = reports(logs)
    for path in logs.glob("report*"):
        path.unlink()
    status = ended.returncode  # type: ignore[attr-defined]
    log = found[:6000] or ("" if status == 0 else (ended.stdout + ended.stderr)[-4000:])  # type: ignore[attr-defined]
    count = len(re.findall(r"^(?:==\d+==ERROR|WARNING: ThreadSanitizer|FATAL)", found, re.M))
    if count:
        result += f", {count} reports"
    return Part(kind, name, result, time.monotonic() - began, status == 0 and not found, log)


def programs(kind: str, place: Path, logs: Path) -> Iterator[Part]:
    big, other = libraries(place)
    environ = environment(kind, logs)
    for backing in BACKINGS:
        for name, command in (
            ("hosted", [place / "sanitized_hosted", place, backing]),
            ("rounds", [place / "sanitized_rounds", big, other, backing, ROUNDS]),
        ):
            began = time.monotonic()
            ended = call([*prefix(kind), *command], env=environ, timeout=900)
            result = ended.stdout.strip() or f"status {ended.returncode}"
            yield judge(kind, f"{name} {backing}", logs, began, ended, result)


def interpreter(place: Path) -> Path:
    """An environment like this one, with the modules that were built in the place of ours."""
    venv = place / "venv"
    if not (venv / "bin/python").exists():
        base = getattr(sys, "_base_executable", sys.executable)
        must([base, "-m", "venv", "--without-pip", venv])
    ours = Path(sysconfig.get_path("purelib"))
    theirs = Path(sysconfig.get_path("purelib", "venv", {"base": str(venv), "platbase": str(venv)}))
    package = theirs / "pyhugetext"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(
        ROOT / "src/pyhugetext", package, ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    for module in place.glob("_*.so"):
        shutil.copy(module, package)
    (theirs / "others.pth").write_text(f"{ours}\n")
    for file in ("pyhugetext.pth", "pyhugetext.start"):
        shutil.copy(ROOT / "src/startup" / file, theirs)
    return venv / "bin/python"


def extension(kind: str, place: Path, logs: Path) -> Part:
    began = time.monotonic()
    python = interpreter(place)
    environ = environment(kind, logs)
    if kind in RUNTIME:
        found = call(["gcc", f"-print-file-name={RUNTIME[kind]}"]).stdout.strip()
        environ["LD_PRELOAD"] = str(Path(found).resolve())
    tests = [ROOT / "tests/integration" / name for name in TESTS[kind]]
    command = [
        *prefix(kind),
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        LEFT_OUT + LEFT_OUT_OF.get(kind, ""),
        *tests,
    ]
    ended = call(command, env=environ, cwd=ROOT)
    last = (ended.stdout.strip().splitlines() or ["nothing"])[-1]
    return judge(kind, "extension", logs, began, ended, re.sub(r" in .*|=+ ?", "", last))


def main(directory: Path, lint: Path, kinds: list[str]) -> int:
    parts = []
    for kind in kinds:
        place = directory / kind
        logs = place / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        print(f"{kind}: building in {place}", flush=True)
        build(kind, place, lint)
        for part in (*programs(kind, place, logs), extension(kind, place, logs)):
            print(f"{part.kind:10} {part.name:14} {part.seconds:7.1f} s  {part.result}", flush=True)
            parts.append(part)
    for part in parts:
        if not part.good:
            print(f"\n{part.kind}, {part.name}:\n{part.log}", file=sys.stderr)
    return int(not all(part.good for part in parts))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
