"""What a user installs: the wheel in every install mode, and the modules in it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from support import documents
from support.common import ROOT, clean_environment
from support.once import builds_share_objects

EXAMPLE = ROOT / "sitecustomize_example"
MODES = ("normal", "editable", "inplace", "sdist")

WHAT_RUNS = """
import importlib.util, json, sys
loaded = "pyhugetext._boot" in sys.modules
import pyhugetext
print(json.dumps([loaded, importlib.util.find_spec("pyhugetext").origin]))
"""


def build(source: Path, hook: str, target: Path, **settings: str) -> Path:
    """Calls a build hook (PEP 517, PEP 660) in `source`; returns what it made in `target`."""
    arguments = (str(target), settings) if hook == "build_sdist" else (str(target), settings, None)
    code = f"from scikit_build_core.build import {hook}; print({hook}(*{arguments!r}))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        env=clean_environment(PYHUGETEXT="0", **builds_share_objects()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return target / result.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that no build leaves anything in the tree under test."""
    if importlib.util.find_spec("scikit_build_core") is None:
        pytest.skip("scikit-build-core is not installed (pip install --group test)")
    copy = tmp_path_factory.mktemp("source") / "pyhugetext"
    copy.mkdir()
    files = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE")
    for name in (*files, "packaging", "src", "tests"):
        path = ROOT / name
        if path.is_dir():
            # Not what an editable install in place has left there.
            ignore = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(path, copy / name, ignore=ignore)
        else:
            shutil.copy(path, copy / name)
    return copy


@pytest.fixture(scope="session")
def wheels(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The wheel of an install mode, built once."""
    built: dict[str, Path] = {}

    def wheel(mode: str) -> Path:
        if mode in built:
            return built[mode]
        target = tmp_path_factory.mktemp(mode)
        if mode == "normal":
            built[mode] = build(source, "build_wheel", target)
        elif mode == "editable":
            built[mode] = build(source, "build_editable", target)
        elif mode == "inplace":
            copy = shutil.copytree(source, target / "source")
            settings = {"editable.mode": "inplace"}
            built[mode] = build(copy, "build_editable", target, **settings)
        else:
            archive = build(source, "build_sdist", target)
            with tarfile.open(archive) as file:
                # The archive is our own; the filter is what later versions of Python want named.
                options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                file.extractall(target, **options)
            unpacked = target / archive.name[: -len(".tar.gz")]
            built[mode] = build(unpacked, "build_wheel", target)
        return built[mode]

    return wheel


@pytest.fixture(scope="session")
def install(
    wheels: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Installs the wheel of a mode into a new virtual environment; returns its folder."""
    made: dict[str, Path] = {}

    def install_(mode: str) -> Path:
        if mode not in made:
            made[mode] = folder = tmp_path_factory.mktemp(f"venv-{mode}") / "first"
            venv.create(folder, symlinks=True)
            command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--no-deps"]
            subprocess.run(
                [*command, "--no-index", "--quiet", str(wheels(mode))],
                env=clean_environment(PYHUGETEXT="0"),
                check=True,
            )
        # What runs here is found from where it lies.
        folder = tmp_path_factory.mktemp(f"copy-{mode}") / "venv"
        return Path(shutil.copytree(made[mode], folder, symlinks=True))

    return install_


def interpreter(folder: Path) -> str:
    return str(folder / "bin" / "python")


def package(folder: Path) -> Path:
    return next(folder.glob("lib/python*/site-packages/pyhugetext"))


def members(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as file:
        return file.namelist()


@pytest.mark.parametrize("mode", MODES)
def test_wheel_starts_every_python_of_the_environment(mode, wheels, install, python):
    assert {"pyhugetext.pth", "pyhugetext.start"} <= set(members(wheels(mode)))
    folder = install(mode)
    told = python(WHAT_RUNS, executable=interpreter(folder))
    assert (told.stdout.split(",")[0], told.stderr) == ("[true", "")
    off = python(WHAT_RUNS, executable=interpreter(folder), env={"PYHUGETEXT": "0"})
    assert (off.stdout.split(",")[0], off.stderr) == ("[false", "")


@pytest.mark.parametrize("mode", ["editable", "inplace"])
def test_editable_install_runs_the_sources(mode, install, python):
    folder = install(mode)
    told = python(WHAT_RUNS, executable=interpreter(folder)).stdout
    assert "src/pyhugetext/__init__.py" in told
    assert str(folder) not in told


@pytest.mark.parametrize("mode", ["normal", "sdist"])
def test_wheel_holds_what_is_needed_and_nothing_else(mode, wheels):
    names = members(wheels(mode))
    rest = [
        name
        for name in names
        if not re.fullmatch(
            r"pyhugetext\.(pth|start)|pyhugetext/_(boot|native)\.[\w-]+\.so"
            r"|pyhugetext/(\w+/)*\w+\.pyi?|pyhugetext/py\.typed|pyhugetext-[^/]+\.dist-info/.+"
            r"|pyhugetext/cli/reporting/\w+\.css|pyhugetext/libpyhugetext_preload\.so",
            name,
        )
    ]
    assert rest == []
    for needed in ("__init__.py", "py.typed", "_native.pyi", "_boot.pyi"):
        assert f"pyhugetext/{needed}" in names
    assert len([name for name in names if name.endswith(".so")]) == 3
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        name = next(n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        return message_from_bytes(file.read(name))


def version() -> str:
    source = (ROOT / "src" / "pyhugetext" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    assert found is not None
    return found[1]


def test_wheel_has_the_version_of_the_package(wheels):
    assert metadata(wheels("normal"))["Version"] == version()


@pytest.mark.parametrize("mode", ["normal", "sdist"])
def test_what_an_index_shows_leads_to_files_of_that_version(mode, wheels):
    told = metadata(wheels(mode))
    assert told["Description-Content-Type"] == "text/markdown"
    text = told.get_payload(decode=True).decode()
    readme = ROOT / "README.md"
    shown, written = documents.targets(text), documents.links(readme)
    assert len(shown) == len(written) > 10
    own = re.compile(r"https://github\.com/pyhugetext/pyhugetext/(blob|raw)/v([^/]+)/([^#]+)(#.+)?")
    for address, link in zip(shown, written):
        found = own.fullmatch(address)
        assert found, address
        kind, tag, path, anchor = found.groups()
        assert (kind == "raw", tag) == (path.endswith(".svg"), version()), address
        assert link in (f"{path}{anchor or ''}", anchor), address
    plain = [re.sub(r"\]\(\S+\)", "", page) for page in (text, readme.read_text())]
    assert plain[0] == plain[1], "more than links differs"


def test_install_that_was_interrupted_anywhere_is_silent(wheels, install, python):
    # pip writes in the order of the archive. A library that is there in part ends whoever loads it.
    names = [name for name in members(wheels("normal")) if ".dist-info/" not in name]
    assert names[-2:] == ["pyhugetext.pth", "pyhugetext.start"]
    folder = install("normal")
    files = [package(folder).parent / name for name in names]
    contents = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    for number, (file, content) in enumerate(zip(files, contents)):
        whole = len(content)
        part_of_start = file.suffix in (".so", ".pth", ".start") or not number
        for size in (0, whole // 3, whole - 1, whole) if file.suffix == ".so" else (0, whole):
            file.write_bytes(content[:size])
            if not part_of_start and (size < whole or number % 32):
                continue
            told = python("pass", executable=interpreter(folder))
            assert (told.stdout, told.stderr) == ("", ""), f"{size} bytes of {file.name}"


@pytest.mark.parametrize("gone", ["__init__.py", "_boot*.so", "_native*.so", "*", ""])
def test_uninstall_that_was_interrupted_is_silent(gone, install, python):
    folder = install("normal")
    for file in [*package(folder).glob(gone)] if gone else [package(folder)]:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    told = python("pass", executable=interpreter(folder))
    assert (told.stdout, told.stderr) == ("", "")


def elsewhere(source: Path, place: Path) -> Path:
    """The same sources in another directory, written at another time."""
    shutil.copytree(source, place, copy_function=shutil.copy)
    return place


def test_two_archives_of_the_sources_are_the_same(source, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = build(source, "build_sdist", tmp_path / "first")
    second = build(elsewhere(source, tmp_path / "other"), "build_sdist", tmp_path / "second")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.heavy
def test_two_builds_of_the_wheel_are_the_same(source, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = []
    for name in ("first", "a second place"):
        place = elsewhere(source, tmp_path / name)
        # Nothing that the other has compiled.
        monkeypatch.setattr(f"{__name__}.builds_share_objects", dict)
        made.append(build(place, "build_wheel", place / "dist"))
    contents = []
    for wheel in made:
        with zipfile.ZipFile(wheel) as file:
            contents.append({name: file.read(name) for name in file.namelist()})
    different = [name for name in contents[0] if contents[0][name] != contents[1].get(name)]
    assert different == []
    assert made[0].read_bytes() == made[1].read_bytes()


def test_startup_files_sort_after_the_editable_finder():
    # site reads .pth files in order of their names, and an editable install is found only after
    # the finder's file (`_pyhugetext_editable.pth`, `__editable__...`) was read.
    for name in ("pyhugetext.pth", "pyhugetext.start"):
        assert (ROOT / "src" / "startup" / name).is_file()
        assert name[0].islower()


def test_startup_files_name_the_same_callable(python):
    start = (ROOT / "src" / "startup" / "pyhugetext.start").read_text().split()
    lines = (ROOT / "src" / "startup" / "pyhugetext.pth").read_text().splitlines()
    assert len(start) == 1
    assert len(lines) == 1
    # site runs such lines only.
    assert lines[0].startswith("import ")
    code = """
        import os, sys, types
        module, _, name = sys.argv[1].partition(":")
        calls = []
        sys.modules[module.partition(".")[0]] = types.ModuleType(module)
        sys.modules[module] = types.ModuleType(module)
        setattr(sys.modules[module], name, lambda: calls.append(name))
        exec(sys.argv[2])
        print(calls == [name])
    """
    assert python(code, start[0], lines[0], flags=("-S",)).stdout == "True\n"


def dynamic(library: Path) -> tuple[set[str], set[str], set[str]]:
    """What a library needs, the symbols it defines for others, and those it expects of others."""
    elffile = pytest.importorskip("elftools.elf.elffile", reason="pyelftools is not installed")
    with library.open("rb") as file:
        elf = elffile.ELFFile(file)
        tags = elf.get_section_by_name(".dynamic").iter_tags()
        needed = {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"}
        symbols = [
            symbol
            for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
            if symbol.name and symbol["st_info"]["bind"] != "STB_LOCAL"
        ]
        undefined = {s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"}
    return needed, {s.name for s in symbols} - undefined, undefined


@pytest.fixture(scope="session")
def modules(wheels: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's folder of the wheel, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheels("normal")) as file:
        file.extractall(folder)
    return folder / "pyhugetext"


def test_startup_module_needs_no_cpp_runtime_and_exports_two_functions(modules):
    needed, exported, undefined = dynamic(next(modules.glob("_boot*.so")))
    # By the second a preloaded library and the module of one process find each other.
    assert exported == {"PyInit__boot", "pyhugetext_engine"}
    assert not [name for name in needed if "stdc++" in name or "gcc_s" in name]
    assert not [name for name in undefined if name.startswith("_Z")]


def test_binding_carries_its_cpp_runtime(modules):
    # A libstdc++ of the machine is a file more to find at start, and may be too old.
    needed, exported, _ = dynamic(next(modules.glob("_native*.so")))
    assert "PyInit__native" in exported
    assert not [name for name in needed if "stdc++" in name or "gcc_s" in name]


@pytest.mark.parametrize("missing", ["_boot _native", "_boot", "_native"])
def test_package_without_native_part_is_silent_and_says_why(missing, install, python):
    folder = install("normal")
    for name in missing.split():
        next(package(folder).glob(f"{name}.*.so")).unlink()
    quiet = python("pass", executable=interpreter(folder))
    assert (quiet.stdout, quiet.stderr) == ("", "")
    code = """
        import pyhugetext
        for call in (pyhugetext.stats, pyhugetext.remap, pyhugetext.restore):
            stats = call()
            assert not stats.active
            assert "no native part" in stats.reason, stats.reason
            assert stats.as_dict()["reason"] in str(stats)
        print("told")
    """
    told = python(code, executable=interpreter(folder))
    assert (told.stdout, told.stderr) == ("told\n", "")


def with_sitecustomize(*folders: Path) -> dict[str, str]:
    return {"PYTHONPATH": ":".join(map(str, folders)), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def no_pth(install: Callable[[str], Path]) -> str:
    """An interpreter where the package is installed and nothing starts it."""
    folder = install("normal")
    for path in package(folder).parent.glob("pyhugetext.*"):
        path.unlink()
    return interpreter(folder)


def test_sitecustomize_starts_where_the_pth_is_not_read(no_pth, python):
    assert python(WHAT_RUNS, executable=no_pth).stdout.startswith("[false")
    told = python(WHAT_RUNS, executable=no_pth, env=with_sitecustomize(EXAMPLE))
    assert told.stdout.startswith("[true")
    assert told.stderr == ""


@pytest.mark.parametrize(
    "body",
    [
        "import sys; print(sys.modules[__name__].__file__, __spec__.origin, __name__)",
        "import sys; sys.modules[__name__] = 'replaced'",
        "raise ValueError('of its own')",
        "import there_is_no_such_module",
    ],
)
def test_next_sitecustomize_behaves_as_if_alone(body, no_pth, python, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(body) + "\n")
    code = "import sys; m = sys.modules.get('sitecustomize'); print(getattr(m, '__file__', m))"
    alone = python(code, executable=no_pth, env=with_sitecustomize(tmp_path))
    # The folder of the example twice: it must not find itself again.
    chain = with_sitecustomize(EXAMPLE, EXAMPLE / ".", tmp_path, EXAMPLE)
    chained = python(code, executable=no_pth, env=chain)
    assert (chained.stdout, chained.stderr) == (alone.stdout, alone.stderr)


def test_sitecustomize_without_the_package_is_silent(python, tmp_path):
    venv.create(tmp_path / "bare", symlinks=True)
    bare = interpreter(tmp_path / "bare")
    told = python("print(1)", executable=bare, env=with_sitecustomize(EXAMPLE))
    assert (told.stdout, told.stderr) == ("1\n", "")
