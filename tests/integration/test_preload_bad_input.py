"""What the preload library must not disturb: each program runs as it does without."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.common import STRANGER, big_sum, tool
from support.preloaded import NAME, Preloaded, preload_library, programs
from support.users import as_user, require_root

SUMS = f"sums {big_sum(3, 500)} {big_sum(4, 500)}\n"


@pytest.fixture
def run(tmp_path: Path) -> Preloaded:
    return Preloaded(tmp_path)


def compile_program(target: Path, source: str, *flags: str) -> Path:
    file = target.with_suffix(".c")
    file.write_text(source)
    command = [tool("cc", "gcc"), "-O1", "-o", str(target), str(file), *flags]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"{' '.join(flags)}: {result.stderr.splitlines()[-1]}")
    return target


HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 6; }\n'
NARROW = """
int puts(const char *);
void exit(int) __attribute__((noreturn));
__attribute__((force_align_arg_pointer)) void _start(void) { puts("hello"); exit(6); }
"""


@pytest.fixture
def stranger_s(tmp_path: Path) -> Path:
    """A program of root's that a stranger may run, with root's rights."""
    require_root()
    program = Path(shutil.copy(programs() / "large-alone", tmp_path))
    program.chmod(0o4755)
    for parent in program.parents:
        if parent != Path("/") and parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    return program


def test_program_with_more_rights_than_its_caller(run: Preloaded, stranger_s: Path) -> None:
    ended = run(*as_user(STRANGER), stranger_s)
    assert (ended.status, ended.stdout) == (5, SUMS)
    assert not any("large" in report["command"] for report in ended.reports.values())


def test_library_of_the_whole_system_leaves_such_programs_alone(
    run: Preloaded, tmp_path: Path, stranger_s: Path
) -> None:
    """As /etc/ld.so.preload has it loaded: into programs with more rights, too."""
    etc = tmp_path / "etc"
    etc.mkdir()
    shutil.copy("/etc/passwd", etc)
    library = Path(shutil.copy(preload_library(), tmp_path))
    library.chmod(0o755)
    (etc / "ld.so.preload").write_text(f"{library}\n")
    script = f'mount --bind {etc} /etc && exec "$@"'
    command = ("unshare", "-m", "sh", "-c", script, "sh")
    env = {"PYHUGETEXT_BACKING": "memfd", "PYHUGETEXT_DEBUG": "1"}
    if run.plain(*command, "/bin/true").status:
        pytest.skip("no mount namespace can be made")
    for rights in (0o755, 0o4755):
        stranger_s.chmod(rights)
        ended = run.plain(*command, *as_user(STRANGER), stranger_s, **env)
        assert (ended.status, ended.stdout) == (5, SUMS)
        assert f"/{NAME}" in ended.stderr
        told = f"pyhugetext: {stranger_s}: " in ended.stderr
        assert told == ("/memfd:pyhugetext" in ended.stderr) == (rights == 0o755)


def test_program_of_32_bits(run: Preloaded, tmp_path: Path) -> None:
    libc = Path("/lib32/libc.so.6")
    if not libc.exists():
        pytest.skip("no C library of 32 bits (Debian: libc6-i386)")
    # Neither start files nor headers, which the cross compilers' packages stand against.
    flags = ("-m32", "-nostdlib", str(libc), "-Wl,--dynamic-linker,/lib/ld-linux.so.2")
    program = compile_program(tmp_path / "narrow", NARROW, *flags)
    ended = run(program)
    assert (ended.status, ended.stdout) == (6, "hello\n")
    assert not ended.reports
    # As the C library's tells of any library that is none for it.
    assert "wrong ELF class: ELFCLASS64" in ended.stderr


def test_static_program(run: Preloaded, tmp_path: Path) -> None:
    for flags in (("-static",), ("-static-pie",)):
        ended = run(compile_program(tmp_path / "static", HELLO, *flags))
        assert ended.said() == (6, "hello\n", "")
        assert not ended.reports


def test_container_without_proc(run: Preloaded) -> None:
    require_root()
    hidden = ("unshare", "-m", "sh", "-c", 'umount -l /proc && exec "$@"', "sh")
    program = programs() / "large-alone"
    plain, ended = run.plain(*hidden, program), run(*hidden, program)
    if plain.status != 5:
        pytest.skip(f"/proc cannot be hidden here: {plain.stderr}")
    assert ended.said() == plain.said()
    reasons = [report["reason"] for report in ended.reports.values() if not report["active"]]
    assert any("/proc does not tell" in reason for reason in reasons), reasons


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYHUGETEXT_COLOUR", "blue"),
        ("PYHUGETEXT_BACKING", "tmp"),
        ("PYHUGETEXT_STORE", "relative"),
        ("PYHUGETEXT_PRIVATE_LIMIT", "-1"),
    ],
)
def test_setting_that_is_none_is_told_and_nothing_else(
    run: Preloaded, name: str, value: str
) -> None:
    ended = run(programs() / "program", "plain", programs(), **{name: value})
    assert ended.said()[0::2] == (3, "constructor\n")
    [problem] = ended.report["settings_problems"]
    assert name in problem


@pytest.mark.usefixtures("huge_memfd")
@pytest.mark.parametrize("case", ["plain", "next", "local", "threads"])
def test_two_copies_of_the_library(run: Preloaded, tmp_path: Path, case: str) -> None:
    (tmp_path / "copy").mkdir()
    copy = shutil.copy(preload_library(), tmp_path / "copy")
    command = (programs() / "program", case, programs())
    plain = run.plain(*command)
    ended = run(*command, preload=f"{{library}}:{copy}", PYHUGETEXT_BACKING="memfd")
    assert ended.said() == plain.said()
    if case == "plain":
        assert ended.region("libbig.so")["mapped_bytes"] > 0
    if case == "threads":
        return  # its children look, too, and it opens the same library again
    # What both tell is one line each.
    lines = run(*command, preload=f"{copy}:{{library}}", PYHUGETEXT_DEBUG="1").stderr.splitlines()
    assert len(lines) == len(set(lines))


def test_allocator_beside_it(run: Preloaded) -> None:
    found = sorted(Path("/usr/lib").glob("*/libjemalloc.so.2"))
    if not found:
        pytest.skip("jemalloc is not installed (Debian: libjemalloc2)")
    command = (programs() / "program", "threads", programs())
    plain = run.plain(*command)
    for order in (f"{found[0]}:{{library}}", f"{{library}}:{found[0]}"):
        assert run(*command, preload=order).said() == plain.said()


def test_memory_checker_is_left_alone_and_told_why(run: Preloaded, tmp_path: Path) -> None:
    valgrind = tool("valgrind")
    command = (valgrind, "-q", "--error-exitcode=44", programs() / "program", "plain", programs())
    plain = run.plain(*command)
    if plain.status != 3:
        pytest.skip(f"valgrind does not run this program: {plain.stderr}")
    ended = run(*command)
    assert ended.said() == plain.said()
    reasons = {
        report["reason"] for report in ended.reports.values()
        if any(r["path"].endswith("/program") for r in report["regions"])
    }  # fmt: skip
    assert reasons == {"valgrind or a sanitizer watches the memory of this program"}


@pytest.mark.parametrize("kind", ["address", "thread"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitizer_is_left_alone_and_told_why(
    run: Preloaded, tmp_path: Path, compiler: str, kind: str
) -> None:
    source = tmp_path / "checked.c"
    source.write_text(HELLO)
    program = tmp_path / "checked"
    command = [tool(compiler), f"-fsanitize={kind}", "-o", program, source]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip(f"{compiler} has no {kind} sanitizer here")
    # Its run-time library wants to be the first where it is a shared one.
    env = {"ASAN_OPTIONS": "verify_asan_link_order=0"}
    plain = run.plain(program, **env)
    if plain.status != 6:
        pytest.skip(f"the {kind} sanitizer does not run here: {plain.stderr}")
    ended = run(program, **env)
    assert ended.said() == plain.said()
    assert "sanitizer watches" in ended.report["reason"]


def test_other_remapper_beside_it(run: Preloaded) -> None:
    """intel/iodlr's library for preloading, where somebody built it (LARGE_PAGE_PRELOAD names it)."""
    other = os.environ.get("LARGE_PAGE_PRELOAD")
    if not other:
        pytest.skip("LARGE_PAGE_PRELOAD names no liblppreload.so")
    plain = run.plain(programs() / "large")
    for order in (f"{other}:{{library}}", f"{{library}}:{other}"):
        ended = run(programs() / "large", preload=order, PYHUGETEXT_BACKING="memfd")
        assert (ended.status, ended.stdout) == (plain.status, plain.stdout)
