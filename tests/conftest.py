"""Shared pieces. Nothing here, nor in any test, remaps pytest's own process: children do, so that
a crash is a failed test and not a lost run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from support import apart
from support.common import OWN, PREFIX, USER_CACHE, WORKER, Run, clean_environment
from support.leftovers import Leftovers
from support.once import library_compiler

if TYPE_CHECKING:
    from support.cli import Cli
    from support.elf import Workshop
    from support.filled import Filled
    from support.groups import Group
    from support.host import Host
    from support.store import Store

if os.environ.get("PYHUGETEXT") != "0":
    pytest.exit("run the tests with PYHUGETEXT=0 (make test does): pytest must not be remapped", 3)

# A shell starts jobs in the background with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No example fails because the machine was slow.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

WORKERS = 3  # two processors are everywhere, and some tests wait
# Files of many seconds, the longest first.
LONGEST = (
    "test_harm_calls", "test_threads", "test_host_signals", "test_store_elf", "test_core",
    "test_store_poisoned", "test_store_oracles", "test_packaging", "test_store_races", "test_unload",
    "test_store_bad_input", "test_settings", "test_layouts", "test_originals", "test_cli_image",
)  # fmt: skip
LEFTOVERS = pytest.StashKey[Leftovers]()
FOUND = pytest.StashKey["list[str]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--alone",
        choices=("with", "without", "only"),
        default="with",
        help="tests that change what is the whole machine's: with the others, left out, or only these",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`."""
    return WORKERS if apart.possible() else 0


def pytest_configure(config: pytest.Config) -> None:
    if WORKER:
        apart.enter()
    elif config.getoption("numprocesses", None) and not apart.possible():
        pytest.exit("the tests need a /dev/shm for each process, which takes root: use -n 0", 3)
    config.stash[LEFTOVERS] = Leftovers(PREFIX, USER_CACHE)
    config.stash[FOUND] = []


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.parent.name == "unit":
        item.add_marker("quick")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what --alone says, and begins with what takes longest: with several processes, the
    last file is one's alone."""
    wanted = config.getoption("--alone")
    if wanted != "with":
        kinds: dict[bool, list[pytest.Item]] = {True: [], False: []}
        for item in items:
            kinds[item.get_closest_marker("alone") is not None].append(item)
        items[:] = kinds[wanted == "only"]
        config.hook.pytest_deselected(items=kinds[wanted != "only"])
    if config.getoption("numprocesses", None) or WORKER:
        items.sort(key=lambda item: [*LONGEST, item.path.stem].index(item.path.stem))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[FOUND] += getattr(node, "workeroutput", {}).get("found", [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run that left something: after pytest has removed what it does not keep."""
    OWN.cleanup()
    leftovers = session.config.stash[LEFTOVERS]
    if WORKER:
        getattr(session.config, "workeroutput")["found"] = leftovers.in_shared_memory()  # noqa: B009
        return
    # None where no test asked for a directory.
    base: Path | None = getattr(session.config, "_tmp_path_factory")._basetemp  # noqa: B009
    kept = base if base and base.is_dir() else None
    ours = (os.path.join(tempfile.gettempdir(), PREFIX), str(base or OWN.name), sys.prefix)
    found = session.config.stash[FOUND] + leftovers.found(kept, ours)
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        for sentence in found:
            reporter.write_line(f"left behind: {sentence}", red=True)


@pytest.fixture(scope="session")
def python() -> Run:
    """Runs code in a new interpreter of this virtual environment, where the package is installed.

    `python(code, *arguments, env={...}, check=True, **subprocess options)`; options before the
    code, such as `-S`, go in `flags`; `prefix` is a command put in front (strace, gdb).
    """

    def run(
        code: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        flags: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
        executable: str = sys.executable,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        options.setdefault("timeout", 120)
        result = subprocess.run(
            [*prefix, executable, *flags, "-c", textwrap.dedent(code), *arguments],
            env=clean_environment(**(env or {})),
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        if check:
            assert result.returncode == 0, (
                f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result

    return run


@pytest.fixture(scope="session")
def stats_of(python: Run) -> Callable[..., dict[str, Any]]:
    """Runs code in a child and returns its stats() at the end, as a dict."""

    def stats_of(code: str = "", *arguments: str, **options: Any) -> dict[str, Any]:
        ending = "\nimport json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"
        result = python(textwrap.dedent(code) + ending, *arguments, **options)
        parsed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return parsed

    return stats_of


@pytest.fixture
def compile_library(tmp_path: Path) -> Callable[..., Path]:
    """Compiles a C source text to a shared library: `compile_library(source, *flags, name=...)`."""
    return library_compiler(tmp_path)


@pytest.fixture
def library(compile_library: Callable[..., Path]) -> Path:
    """A library with 5 MiB of text."""
    from support.cli import make_library

    return make_library(compile_library)


@pytest.fixture
def compile_extension(compile_library: Callable[..., Path]) -> Callable[..., Path]:
    """Compiles a C source to an extension module: `compile_extension(name, source)`."""
    from support.extensions import extension_compiler

    return extension_compiler(compile_library)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store on disk, where this gives huge pages."""
    from support.store import Store, require_huge_disk

    require_huge_disk(tmp_path)
    return Store(tmp_path / "store")


@pytest.fixture
def auto(store: Store) -> Store:
    """The same, where what the store has not may come from elsewhere."""
    return replace(store, backing="auto")


@pytest.fixture(scope="session")
def package_files() -> list[Path]:
    """The package's directory and its start-up files."""
    from support.installed import installed_files

    return installed_files()


@pytest.fixture
def group() -> Iterator[Group]:
    """A control group of the test's own, with the memory controller."""
    from support.groups import memory_group

    with memory_group() as made:
        yield made


@pytest.fixture
def huge_memfd() -> None:
    """Skips where memory files get no huge pages."""
    from support.layouts import skip_unless_huge

    skip_unless_huge("memfd")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line, with a store of its own."""
    from support.cli import Cli

    return Cli(tmp_path / "store")


@pytest.fixture
def disk(cli: Cli) -> Cli:
    """The same, where the store's file system can do it."""
    result = cli("warm", "--json")
    if result.returncode and "never gives" in result.stderr:
        pytest.skip("the file system of the temporary directory has no huge pages for files")
    shutil.rmtree(cli.store)
    return cli


@pytest.fixture
def filled(cli: Cli, tmp_path: Path, compile_library: Callable[..., Path]) -> Filled:
    """A store with the entries of two libraries."""
    from support.filled import filled_with_two

    return filled_with_two(cli, tmp_path, compile_library)


@pytest.fixture(scope="session")
def far(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with more text than is built at once."""
    from support.growing import make_far

    return make_far(tmp_path_factory.mktemp("far"))


@pytest.fixture
def shop(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """What makes ELF objects of every linker's, and copies of them."""
    from support.elf import Workshop

    return Workshop(tmp_path, tmp_path_factory)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Programs that import large extension modules, with a store of their own."""
    from support.host import Host

    place = tmp_path / "host"
    place.mkdir()
    made = Host(place)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def modules(tmp_path: Path, library: Path) -> dict[str, str]:
    """PYTHONPATH with a module `sample` that loads the library."""
    from support.cli import make_module

    directory = tmp_path / "modules"
    directory.mkdir()
    make_module(directory, "sample", library)
    return {"PYTHONPATH": str(directory)}
