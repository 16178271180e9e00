"""Tools that attach to a Python that runs: what each says of one program, on each kind of Python and
each backing, held against what it says with PYHUGETEXT=0. `make tools` prints the table."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.common import HUGE, clean_environment

KINDS = ("static", "shared", "PIE")
BACKINGS = ("store", "memfd", "thp")
GONE = "store, deleted meanwhile"  # which tools see as they see a memfd

# What the tools are expected to do, in the order of BACKINGS: "yes" is the same answer as with
# PYHUGETEXT=0, "exported" the same without the names of functions that are not exported, "no" less or
# none, "wrong" something untrue. "varies": where the kernel happens to load a PIE decides between yes
# and no.
EXPECTED = {
    "gdb": {"static": "yes yes yes", "shared": "yes yes yes", "PIE": "yes yes yes"},
    "perf": {"static": "yes no no", "shared": "yes no no", "PIE": "yes no no"},
    "eu-stack": {"static": "yes exported no", "shared": "yes exported no", "PIE": "yes varies no"},
    "py-spy": {"static": "yes yes yes", "shared": "yes no no", "PIE": "no no no"},
    "py-spy --native": {"static": "yes no no", "shared": "yes no no", "PIE": "no no no"},
    "pystack": {"static": "yes no no", "shared": "yes no no", "PIE": "yes varies varies"},
    "pystack --native": {"static": "yes no no", "shared": "yes no no", "PIE": "yes no no"},
    "austin": {"static": "no no no", "shared": "yes no no", "PIE": "varies varies varies"},
}

PROGRAM = """
import ctypes, json, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER, for Yama
call = ctypes.CDLL(sys.argv[1]).sample_outer
call.argtypes = [ctypes.c_ulong]
import pyhugetext
stats = pyhugetext.remap() if sys.argv[3] == "on" else pyhugetext.stats()
def spin():
    total = 0
    for i in range(30_000):
        total += i % 7
    return total
def inner():
    print(json.dumps([r.backing for r in stats.regions if r.coverable_bytes]), flush=True)
    if sys.argv[2] == "stuck":
        call(0)
    while True:
        spin()
        call(200_000)
def outer():
    inner()
outer()
"""


def sample_source(before: int = 0) -> str:
    """C functions that call each other, for ever if told to, with much text behind them and some before:
    of its end, which shares 2 MiB with writable data, the original stays mapped."""
    return f"""
#include <unistd.h>
volatile unsigned long sink;
__asm__(".text; .skip {before}, 0x90");
__attribute__((noinline)) unsigned long sample_inner(unsigned long n) {{
    unsigned long x = 1;
    if (!n) for (;;) pause();
    for (unsigned long i = 0; i < n; ++i) x = x * 6364136223846793005UL + i;
    sink = x;
    return x | 1;
}}
__attribute__((noinline)) unsigned long sample_outer(unsigned long n) {{
    return sample_inner(n) + 1;
}}
__asm__(".text; .skip {3 * HUGE}, 0x90");
"""


EMBEDDER = "#include <Python.h>\nint main(int n, char **words) { return Py_BytesMain(n, words); }\n"


@dataclass(frozen=True)
class Tool:
    name: str
    command: tuple[str, ...]
    frames: Callable[[str], list[str]]
    mode: str = "stuck"


def _found(pattern: str) -> Callable[[str], list[str]]:
    def find(output: str) -> list[str]:
        found = re.findall(pattern, output, re.MULTILINE)
        names = [name if isinstance(name, str) else "".join(name) for name in found]
        return ["?" if re.match(r"0x|\?+$|$", name) else name for name in names]

    return find


def _stacks(output: str) -> list[str]:
    lines = (re.sub(r"^P\d+;T?[\d:]+;| \d+$", "", s) for s in output.splitlines() if s[:1] == "P")
    return sorted(set(lines))


TOOLS = (
    Tool(
        "gdb",
        ("gdb", "-nx", "-batch", "-iex", "set auto-load off", "-ex", "backtrace", "-p"),
        _found(r"^#\d+ +(?:0x[0-9a-f]+ in )?([\w?]+) \("),
    ),
    Tool("eu-stack", ("eu-stack", "-p"), _found(r"^#\d+ +0x[0-9a-f]+ *(\S*)")),
    Tool("py-spy", ("py-spy", "dump", "--pid"), _found(r"^    (\S+) \(")),
    Tool("py-spy --native", ("py-spy", "dump", "--native", "--pid"), _found(r"^    (\S+) \(")),
    Tool("pystack", ("pystack", "remote"), _found(r"File .*?, line \d+, in (\S+)")),
    Tool(
        "pystack --native",
        ("pystack", "remote", "--native"),
        _found(r"File .*?, line \d+, in (\S+)|\(C\) .*?in (\S+)"),
    ),
    Tool("austin", ("austin", "-i", "20ms", "-x", "1", "-p"), _stacks),
    Tool("perf", ("perf",), _found(r"^ *\d\d?\.\d+% +(\S+ +\[\.\] \S+)"), "busy"),
)


@dataclass(frozen=True)
class Workplace:
    """Where the Pythons, the library, the store and the tools' files are."""

    path: Path
    library: Path

    @staticmethod
    def make(path: Path, compiler: str) -> Workplace:
        source = path / "sample.c"
        source.write_text(sample_source())
        flags = ("-O1", "-g", "-shared", "-fPIC", "-fno-toplevel-reorder")
        library = path / "libsample.so"
        subprocess.run([compiler, *flags, "-o", library, source], check=True)
        (path / "home").mkdir()
        return Workplace(path, library)

    def environment(self, backing: str) -> dict[str, str]:
        names = {"HOME": str(self.path / "home"), "XDG_CACHE_HOME": str(self.path / "cache")}
        if backing == "off":
            return clean_environment(PYHUGETEXT="0", **names)
        limit = {"PYHUGETEXT_PRIVATE_LIMIT": "unlimited", "PYHUGETEXT_BUILD": "always"}
        return clean_environment(PYHUGETEXT_BACKING=backing, **names, **limit)

    @contextlib.contextmanager
    def process(self, python: Path, backing: str, mode: str) -> Iterator[tuple[int, str]]:
        """The program running: its PID, and what it says of its backings."""
        switch = "off" if backing == "off" else "on"
        process = subprocess.Popen(
            [python, "-c", PROGRAM, str(self.library), mode, switch],
            env=self.environment(backing),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout
            said = process.stdout.readline()
            assert said, f"the program ended with status {process.wait()}"
            yield process.pid, said
            assert process.poll() is None, f"it ended under the tool: {process.returncode}"
        finally:
            process.kill()
            process.communicate()

    def ask(self, tool: Tool, path: str, pid: int) -> tuple[list[str], str]:
        """The frames that a tool names, and all that it prints."""
        if tool.name == "perf":
            data = str(self.path / "perf.data")
            record = ("-q", "-e", "cpu-clock:u", "-F", "400", "-o", data, "-p", str(pid))
            self._run(path, "record", *record, "--", "sleep", "0.7")
            command = ("report", "-i", data, "--stdio", "--no-children", "-s", "dso,symbol")
            output = self._run(path, *command)
        else:
            output = self._run(path, *tool.command[1:], str(pid))
        return tool.frames(output), output

    def _run(self, *command: str) -> str:
        environ = clean_environment(
            PYHUGETEXT="0", HOME=str(self.path / "home"), DEBUGINFOD_URLS="", NO_COLOR="1"
        )
        try:
            result = subprocess.run(
                command,
                env=environ,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ""
        return result.stdout + result.stderr


def verdict(tool: Tool, plain: list[str], got: list[str]) -> str:
    """One word for what a tool says of a process, beside what it says of one without us."""
    if tool.name == "perf":  # samples differ from run to run: who is named at all
        named = {line.split()[0] for line in got if not line.split()[-1].startswith("0x")}
        wanted = {line.split()[0] for line in plain if re.search("sample_inner|_PyEval_Eval", line)}
        return "yes" if wanted and wanted <= named else "no"
    if got == plain:
        return "yes"
    if len(got) == len(plain) and all(a in (b, "?") for a, b in zip(got, plain)):
        return "exported"
    return "wrong" if set(got) - set(plain) - {"?"} else "no"


def build(kind: str, directory: Path, compiler: str) -> Path | str:
    """A Python of that kind, with this environment's packages; or why there is none."""
    if kind == kind_of_this():
        return Path(sys.executable)
    config = Path(sysconfig.get_config_var("LIBPL") or "/nowhere")
    version = sysconfig.get_config_var("LDVERSION") or ""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    home = directory / kind
    binary = home / "bin" / name
    binary.parent.mkdir(parents=True)
    source = home / "main.c"
    source.write_text(EMBEDDER)
    include = f"-I{sysconfig.get_path('include')}"
    libraries = f"{sysconfig.get_config_var('LIBS') or ''} -lexpat -lz -lm -ldl -lutil".split()
    if kind == "shared":
        link = [f"-L{sysconfig.get_config_var('LIBDIR')}", f"-lpython{version}"]
        link.append(f"-Wl,-rpath,{sysconfig.get_config_var('LIBDIR')}")
    elif kind == "PIE":
        archives = [config / f"libpython{version}-pic.a", config / f"libpython{version}.a"]
        archive = next((a for a in archives if a.exists()), archives[0])
        whole = ("-Wl,--whole-archive", str(archive), "-Wl,--no-whole-archive")
        link = ["-pie", "-Wl,--export-dynamic", *whole, *libraries]
    else:
        return f"this Python is {kind_of_this()}, and a static one cannot be made of it"
    command = [compiler, "-O1", "-fPIE", include, "-o", str(binary), str(source), *link]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return f"no {kind} Python can be linked: {result.stderr.strip().splitlines()[-1]}"
    base = Path(sys.base_prefix)
    (home / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\n")
    packages = home / "lib" / name / "site-packages"
    packages.parent.mkdir(parents=True)
    packages.symlink_to(sysconfig.get_path("platlib"))
    check = "import sys, pyhugetext; sys.exit(sys.prefix == sys.base_prefix)"
    environ = clean_environment(PYHUGETEXT="0")
    result = subprocess.run(
        [binary, "-c", check], env=environ, capture_output=True, text=True, check=False
    )
    if result.returncode:
        return (
            f"the {kind} Python does not start: {(result.stderr.strip() or '?').splitlines()[-1]}"
        )
    return binary


def kind_of_this() -> str:
    maps = Path("/proc/self/maps").read_text()
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and "/libpython" in maps:
        return "shared"
    with open("/proc/self/exe", "rb") as file:
        return "static" if file.read(18)[16] == 2 else "PIE"  # ET_EXEC


@dataclass
class Measured:
    """A row of the table: what a tool did with a Python of one kind, by backing. `skipped` says why
    nothing was found out."""

    tool: str
    kind: str
    cells: dict[str, str]
    skipped: str = ""
    output: str = ""

    def unexpected(self) -> list[str]:
        """The cells that are not as the table says."""
        expected = dict(zip(BACKINGS, EXPECTED[self.tool][self.kind].split()))
        expected[GONE] = expected["memfd"]
        also = {"varies": {"yes", "no"}, "exported": {"yes"}}
        return [
            f"{self.tool}, {self.kind} Python, {backing}: {cell}, not {expected[backing]}"
            for backing, cell in self.cells.items()
            if cell not in {expected[backing], *also.get(expected[backing], ())}
        ]


def measure(
    place: Workplace,
    kind: str,
    python: Path,
    tools: dict[str, str],
    backings: tuple[str, ...] = BACKINGS,
    rounds: int = 1,
) -> list[Measured]:
    """Asks each tool (name: path) about a Python of that kind. Where it is loaded is chance, so
    more rounds see more."""
    rows = {t.name: Measured(t.name, kind, {}) for t in TOOLS if t.name in tools}
    plain: dict[str, list[str]] = {}
    for backing in ("off", *backings * rounds):
        for mode in ("stuck", "busy"):
            asked = [t for t in TOOLS if t.mode == mode and t.name in rows]
            asked = [t for t in asked if not rows[t.name].skipped]
            if not asked:
                continue
            with place.process(python, backing.split(",")[0], mode) as (pid, said):
                covered = set(json.loads(said))
                if backing == GONE:
                    shutil.rmtree(place.path / "cache")
                for tool in asked:
                    row = rows[tool.name]
                    got, output = place.ask(tool, tools[tool.name], pid)
                    if backing == "off":
                        plain[tool.name] = got
                        if not usable(tool, got):
                            row.skipped = f"fails without us, too: {output.strip()[-300:]}"
                    elif covered != {backing.split(",")[0]}:
                        row.cells.setdefault(backing, "not covered")
                    else:
                        cell = verdict(tool, plain[tool.name], got)
                        before = row.cells.get(backing, cell)
                        row.cells[backing] = cell if cell == before else "varies"
                        row.output = output if cell != "yes" else row.output
    return list(rows.values())


def usable(tool: Tool, frames: list[str]) -> bool:
    """Whether a tool sees anything of a process that runs without us."""
    wanted = "sample_inner" if tool.name in NATIVE else "inner"
    return any(wanted in frame for frame in frames)


NATIVE = {"gdb", "perf", "eu-stack", "py-spy --native", "pystack --native"}


def table() -> str:
    """EXPECTED as docs/tools.md has it."""
    head = "| tool | " + " | ".join(f"{kind}: {', '.join(BACKINGS)}" for kind in KINDS) + " |"
    lines = [head, "|---" * (len(KINDS) + 1) + "|"]
    for name, kinds in EXPECTED.items():
        cells = (kinds[kind].replace(" ", ", ") for kind in KINDS)
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)
