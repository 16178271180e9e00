"""The environment variables: what each does, and that a malformed one is told and harms nothing."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyhugetext import _boot
from pyhugetext._settings import NO_LIMIT, Settings
from support.common import NOBODY, PREFIX, Run, big_source, clean_environment
from support.extensions import BIG, extension_compiler
from support.facts import VARIABLES
from support.installed import installed_files, site_packages

pytestmark = pytest.mark.quick

SHIFTS = {"": 0, "K": 10, "k": 10, "M": 20, "m": 20, "G": 30, "g": 30}
STATS = "import json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"


def main_region(stats: dict[str, Any]) -> dict[str, Any]:
    # Not simply the first: with luck a 20 KiB executable lies in a 2 MiB page of free space.
    region: dict[str, Any] = max(stats["regions"], key=lambda region: region["coverable_bytes"])
    return region


# --- sizes ---


def parse_size(text: str) -> int | None:
    if not text.strip() or "\0" in text:  # no value; no environment holds it
        return None
    found = _boot.settings([b"PYHUGETEXT_MIN_TEXT=" + os.fsencode(text)])
    return None if found["problems"] else found["min_text"]


@given(
    st.integers(0, 1 << 70),
    st.sampled_from(sorted(SHIFTS)),
    st.sampled_from(["", " ", "\t", "\n "]),
)
def test_a_size_is_its_number_times_its_unit(number, suffix, space):
    size = number << SHIFTS[suffix]
    expected = size if size < 1 << 63 else None
    assert parse_size(f"{space}{number}{suffix}{space}") == expected


@given(st.text())
@example("")
@example("K")
@example("-1")
@example("+1")
@example("1_000")
@example("1.5M")
@example("0x10")
@example("64MB")
@example("64 M")
@example("٣M")
@example("²")
@example("1e9")
@example("inf")
@example("M1")
def test_any_other_text_is_no_size(text):
    got = parse_size(text)
    if re.fullmatch(r"[0-9]+[KMG]?|unlimited", text.strip(), re.IGNORECASE | re.ASCII):
        assert got is None or 0 <= got <= NO_LIMIT
    else:
        assert got is None


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text(st.characters(codec="utf-8"))))
def test_no_value_of_any_variable_raises(environ):
    # A value ends at its first NUL, as in any environment.
    found = Settings([f"{k}={v}".encode().partition(b"\0")[0] for k, v in environ.items()])
    assert all(isinstance(problem, str) for problem in found.problems)


# --- every variable, good and malformed ---


@pytest.mark.parametrize("value", ["0", "off", "No", "FALSE", " 0 "])
def test_switched_off(stats_of, value):
    stats = stats_of(env={"PYHUGETEXT": value})
    assert not stats["active"]
    assert stats["reason"] == "turned off by PYHUGETEXT=0"
    assert (stats["mapped_bytes"], stats["problems"]) == (0, [])
    assert stats["coverable_bytes"] > 0


def test_switched_off_loads_nothing_native(python):
    code = """
        import sys
        # A .start file names its callable: from 3.15 on the package itself is imported to find it.
        names = {name for name in sys.modules if name.startswith("pyhugetext")}
        assert names <= ({"pyhugetext"} if sys.version_info >= (3, 15) else set()), names
        assert "pyhugetext" not in open("/proc/self/maps").read()
    """
    python(code, env={"PYHUGETEXT": "0"})


@pytest.mark.parametrize("value", ["1", "auto", "on", "AUTO", "", " 1 "])
def test_switched_on(stats_of, value):
    stats = stats_of(env={"PYHUGETEXT": value})
    assert stats["active"]
    assert stats["problems"] == []


GOOD = [
    ("PYHUGETEXT_BACKING", "thp", lambda stats: stats["backing"] == "thp"),
    ("PYHUGETEXT_BACKING", "MemFD", lambda stats: stats["backing"] == "memfd"),
    ("PYHUGETEXT_BACKING", "auto", lambda stats: stats["active"]),
    ("PYHUGETEXT_MIN_TEXT", "0", lambda stats: stats["active"]),
    ("PYHUGETEXT_MIN_TEXT", "1G", lambda stats: "MIN_TEXT" in main_region(stats)["reason"]),
    ("PYHUGETEXT_PRIVATE_LIMIT", "1M", lambda stats: "budget" in str(main_region(stats))),
    ("PYHUGETEXT_PRIVATE_LIMIT", "0", lambda stats: stats["private_bytes"] == 0),
    ("PYHUGETEXT_PRIVATE_LIMIT", "unlimited", lambda stats: stats["active"]),
    ("PYHUGETEXT_INCLUDE", "*python*", lambda stats: stats["active"]),
    ("PYHUGETEXT_INCLUDE", "/no/*:*python*", lambda stats: stats["active"]),
    ("PYHUGETEXT_EXCLUDE", "*python*", lambda stats: "excluded" in main_region(stats)["reason"]),
    ("PYHUGETEXT_EXCLUDE", "::", lambda stats: stats["active"]),
    ("PYHUGETEXT_DEBUG", "0", lambda stats: stats["active"]),
]


@pytest.mark.parametrize(
    ("name", "value", "holds"), GOOD, ids=lambda value: "" if callable(value) else value
)
def test_good_value(python, name, value, holds):
    env = {name: value}
    if name == "PYHUGETEXT_PRIVATE_LIMIT":
        env["PYHUGETEXT_BACKING"] = "memfd"
    result = python(STATS, env=env)
    stats = json.loads(result.stdout)
    assert holds(stats), stats
    assert result.stderr == ""
    assert not [problem for problem in stats["problems"] if "no mapped object" not in problem]


MALFORMED = [
    ("PYHUGETEXT", "2", "0, 1, auto"),
    ("PYHUGETEXT", "maybe", "0, 1, auto"),
    ("PYHUGETEXT_BACKING", "tpm", "auto, file, store, shm, memfd, thp, hugetlb"),
    ("PYHUGETEXT_BACKING", "none", "auto, file, store, shm, memfd, thp, hugetlb"),
    ("PYHUGETEXT_DEBUG", "yes", "0, 1"),
    ("PYHUGETEXT_MIN_TEXT", "-1", "K, M or G"),
    ("PYHUGETEXT_MIN_TEXT", "1.5M", "K, M or G"),
    ("PYHUGETEXT_MIN_TEXT", "9999999999999999999G", "K, M or G"),
    ("PYHUGETEXT_PRIVATE_LIMIT", "12Q", "K, M or G"),
    ("PYHUGETEXT_PRIVATE_LIMIT", "-64M", "K, M or G"),
    ("PYHUGETEXT_PRIVATE_LIMIT", "8E", "K, M or G"),
    ("PYHUGETEXT_BAKING", "thp", "PYHUGETEXT_BACKING"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), MALFORMED)
def test_malformed_value_is_told_and_the_default_used(python, stats_of, name, value, allowed):
    usual = stats_of()
    quiet = python(STATS, env={name: value})
    stats = json.loads(quiet.stdout)
    assert quiet.stderr == ""
    (problem,) = stats["problems"]
    assert name in problem
    assert allowed in problem
    assert name == "PYHUGETEXT_BAKING" or repr(value) in problem
    for key in ("active", "backing", "mapped_bytes", "coverable_bytes"):
        assert stats[key] == usual[key]
    if name != "PYHUGETEXT_DEBUG":
        loud = python("", env={name: value, "PYHUGETEXT_DEBUG": "1"})
        assert f"pyhugetext: setting: {problem}\n" in loud.stderr


def test_several_malformed_values_are_all_told(stats_of):
    stats = stats_of(env={name: "?!" for name in VARIABLES})
    told = "\n".join(stats["problems"])
    assert all(name in told for name in VARIABLES if not name.endswith("CLUDE"))
    assert told.count("matches no mapped object") == 2


def test_pattern_that_matches_nothing_is_told(stats_of):
    stats = stats_of(env={"PYHUGETEXT_INCLUDE": "/no/such/*", "PYHUGETEXT_EXCLUDE": "/nor/this"})
    assert not stats["active"]
    assert "matches none of the include patterns" in stats["reason"]
    assert any("'/no/such/*'" in problem for problem in stats["problems"])
    assert any("'/nor/this'" in problem for problem in stats["problems"])


@pytest.mark.parametrize("value", [b"\xff\xfe*", b"*" * 100_000, b"[", b"[z-a]*", b"\n"])
def test_strange_bytes_in_a_pattern_harm_nothing(value):
    environ = {os.fsencode(k): os.fsencode(v) for k, v in clean_environment().items()}
    environ[b"PYHUGETEXT_EXCLUDE"] = value
    environ[b"PYHUGETEXT_DEBUG"] = b"0"
    result = subprocess.run(
        [sys.executable, "-c", STATS], env=environ, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    excluded = fnmatch.fnmatchcase("/any/path", "*" if set(value) == {42} else "no")
    assert json.loads(result.stdout)["active"] != excluded


def test_debug_tells_every_decision_on_one_line(python, compile_library):
    module = extension_compiler(compile_library)("late", BIG)
    code = "import sys; sys.path.insert(0, sys.argv[1]); print('x'); import late"
    result = python(code, str(module.parent), env={"PYHUGETEXT_DEBUG": "1"})
    assert result.stdout == "x\n"
    lines = result.stderr.splitlines()
    assert all(line.startswith("pyhugetext: ") for line in lines)
    assert len(set(lines)) == len(lines)
    assert any(re.fullmatch(r".*/late\S*: huge, \w+, \d+ KiB( \(.*\))?", line) for line in lines)


@pytest.mark.parametrize("value", ["0", "off", "no", "false"])
def test_nothing_of_ours_is_loaded_where_it_is_off(python, value):
    if sys.version_info >= (3, 15):
        pytest.skip("site imports what a .start file names before it can look")
    code = "import sys; print([name for name in sys.modules if 'pyhugetext' in name])"
    result = python(code, env={"PYHUGETEXT_DEBUG": "1", "PYHUGETEXT": value})
    assert (result.stdout, result.stderr) == ("[]\n", "")


PLACES = ("/", "//a//", "/a b/ü", "relative", "", "/" + "x" * 4090, "/" + "x" * 5000)


def test_default_stores_are_in_the_cache_or_the_home(python):
    code = """
        import os, sys
        from pyhugetext import _settings
        for home in sys.argv[1:]:
            for cache in (None, *sys.argv[1:]):
                environ = {"HOME": home, **({} if cache is None else {"XDG_CACHE_HOME": cache})}
                found = _settings.Settings([os.fsencode(f"{k}={v}") for k, v in environ.items()])
                place = cache if (cache or "")[:1] == "/" and len(cache) < 4000 else None
                below = "pyhugetext" if place else ".cache/pyhugetext"
                place = place or (home if home[:1] == "/" and len(home) < 4000 else None)
                store = place.rstrip("/") + "/" + below if place else None
                assert found.store == store, (home, cache)
        assert found.shm_store == f"/dev/shm/pyhugetext-{os.geteuid()}"
        found = _settings.Settings([])
        assert (found.backing, found.building) == ("auto", "auto")
        assert (found.min_text, found.private_limit) == (256 << 10, 64 << 20)
        assert (found.store_limit, found.shm_limit, found.build_time) == (4 << 30, 512 << 20, None)
    """
    python(code, *PLACES, env={"PYHUGETEXT": "0"})


# --- patterns ---


def patterns_about(path: str) -> st.SearchStrategy[str]:
    """Patterns made of the path by putting wildcards, sets and noise into it."""
    letter = st.sampled_from([*sorted(set(path)), "a", "z", "-", "!", "]", "[", "^", "\\", "ü"])
    inside = st.lists(letter, min_size=1, max_size=4).map("".join)
    piece = st.one_of(
        st.sampled_from(["*", "?", "**", "[", "[]", "[!]", "[!", "[]]", "[!]]", "[a-z]", "[!a-z]"]),
        inside.map(lambda text: f"[{text}]"),
        inside.map(lambda text: f"[!{text}]"),
        letter,
    )

    def build(parts: list[tuple[int, int, str]]) -> str:
        text = path
        for start, length, new in parts:
            at = start % (len(text) + 1)
            text = text[:at] + new + text[at + length :]
        return text

    edit = st.tuples(st.integers(0, 200), st.integers(0, 6), piece)
    return st.lists(edit, max_size=4).map(build).filter(bool)


@pytest.mark.parametrize("name", ["libplain.so", "lib[set]-ü€😀.so"])
def test_patterns_match_as_fnmatch_does(python, compile_library, tmp_path, name):
    library = str(compile_library(big_source(160, padding=20000)))
    short = Path(tempfile.mkdtemp())
    try:
        path = str(Path(shutil.copy(library, short / name)))

        @settings(max_examples=8, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(patterns_about(path), min_size=60, max_size=60))
        @example(
            ["*", path, "?" * len(path), f"*{name[-5:]}", "*[ü]*", "*[!u]€*", "[/]*", "*[b-a]*"]
        )
        def compare(patterns: list[str]) -> None:
            # Nothing is copied with a budget of 0, so a look at one pattern costs little.
            code = """
                import ctypes, json, sys, pyhugetext
                ctypes.CDLL(sys.argv[1])
                for pattern in json.load(sys.stdin):
                    stats = pyhugetext.remap(backing="thp", exclude=pattern)
                    reason = [r.reason for r in stats.regions if r.path == sys.argv[1]][0]
                    print(int(reason.startswith("excluded")))
            """
            env = {"PYHUGETEXT_PRIVATE_LIMIT": "0", "PYHUGETEXT_MIN_TEXT": "0"}
            env["PYHUGETEXT_BACKING"] = "memfd"
            result = python(code, path, env=env, input=json.dumps(patterns))
            for pattern, got in zip(patterns, result.stdout.split()):
                try:
                    expected = fnmatch.fnmatchcase(path, pattern)
                except re.error:  # of Python before 3.11, for ranges that go down
                    continue
                assert bool(int(got)) == expected, pattern

        compare()
    finally:
        shutil.rmtree(short)


# --- more rights than the caller's ---


@pytest.fixture
def secure_python() -> Iterator[tuple[str, ...]]:
    """A command that runs a set-user-ID copy of python as an ordinary user, so AT_SECURE is set."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("making a set-user-ID program for another user needs root and setpriv")
    # Not tmp_path: other users cannot enter that.
    place = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        place.chmod(0o755)
        (place / "bin").mkdir()
        packages = site_packages(place)
        packages.mkdir(parents=True)
        for file in installed_files():
            copy = shutil.copytree if file.is_dir() else shutil.copy
            copy(str(file), str(packages / file.name))
        base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        (place / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
        program = place / "bin" / "python"
        shutil.copy(str(base), str(program))
        os.chown(program, 65533, 65533)
        program.chmod(stat.S_ISUID | 0o755)
        user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", str(program))
        code = "import ctypes; print(ctypes.CDLL(None).getauxval(23))"
        result = subprocess.run(
            [*user, "-S", "-c", code], capture_output=True, text=True, check=False
        )
        if result.stdout.strip() != "1":
            why = result.stderr.strip().splitlines()[-1:] or ["/tmp is mounted nosuid"]
            pytest.skip(f"ordinary users cannot run this python with AT_SECURE: {why[0]}")
        yield user
    finally:
        shutil.rmtree(place)


def test_program_with_more_rights_than_its_caller_ignores_the_settings(secure_python):
    def run(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*secure_python, "-c", f"print('done')\n{STATS}"],
            env=clean_environment(HOME="/", **env),
            capture_output=True,
            text=True,
            check=False,
        )

    plain = run()
    assert (plain.returncode, plain.stderr) == (0, "")
    usual = json.loads(plain.stdout.splitlines()[-1])
    assert usual["active"] or usual["reason"]
    asked = run(PYHUGETEXT_DEBUG="1", PYHUGETEXT_BACKING="thp", PYHUGETEXT_EXCLUDE="*")
    assert (asked.returncode, asked.stderr) == (0, "")
    stats = json.loads(asked.stdout.splitlines()[-1])
    assert (stats["active"], stats["backing"]) == (usual["active"], usual["backing"])


def test_settings_without_memory_are_the_defaults(python: Run) -> None:
    code = """
    import resource
    from pyhugetext import _boot
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
    settings = _boot.settings([b"PYHUGETEXT_STORE=/tmp/x"])
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(settings["store"], settings["shm_store"], settings["off"])
    """
    assert python(code, env={"PYHUGETEXT": "0"}).stdout == "None None False\n"
