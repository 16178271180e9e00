"""The files of a release: which of them pip takes where, installed without a compiler, started. Only
`make wheels` runs these."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import re
import resource
import shutil
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from support.common import tool
from support.wheels import DIST, PYTHONS, SMOKE, command, environment, pip

if not PYTHONS:
    pytest.skip(f"no wheels in {DIST}: make wheels builds them", allow_module_level=True)

FROM_FILES = ("--no-index", "--find-links", DIST)
PURE = next(iter(DIST.glob("*-py3-none-any.whl")), DIST)
# Started in turn from each state of an install; the answer is silence.
NOTHING = ("-c", "pass")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A package index as PyPI is one (PEP 503) with all the files; its address."""
    root = tmp_path_factory.mktemp("index")
    place = root / "simple" / "pyhugetext"
    place.mkdir(parents=True)
    lines = []
    for file in sorted(DIST.iterdir()):
        shutil.copy(file, place)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        wanted = 'data-requires-python="&gt;=3.8"'
        lines.append(f'<a href="{file.name}#sha256={digest}" {wanted}>{file.name}</a><br>')
    page = "\n".join(lines)
    (place / "index.html").write_text(f"<!doctype html><title>pyhugetext</title>\n{page}\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
        server.shutdown()


def packages(python: Path) -> Path:
    """The site-packages of an environment."""
    return next(python.parent.parent.glob("lib*/py*/site-packages"))


def tag_of(python: Path) -> str:
    """The tag of the wheel that was installed there."""
    told = next(packages(python).glob("pyhugetext-*.dist-info/WHEEL")).read_text()
    return "".join(line for line in told.splitlines() if line.startswith("Tag:"))


def told_of(file: Path) -> Message:
    """What an index reads in a wheel or an archive of the sources."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
            return message_from_bytes(wheel.read(name))
    with tarfile.open(file) as archive:
        told = archive.extractfile(f"{file.name[: -len('.tar.gz')]}/PKG-INFO")
        assert told is not None
        return message_from_bytes(told.read())


@pytest.mark.parametrize("file", sorted(DIST.iterdir()), ids=lambda file: file.name)
def test_page_of_the_index_has_no_relative_address(file):
    # PyPI's own.
    markdown = pytest.importorskip("readme_renderer.markdown")
    html = markdown.render(told_of(file).get_payload(decode=True).decode())
    addresses = re.findall(r'(?:href|src)="([^"]*)"', html)
    assert any(address.endswith(".svg") for address in addresses)
    # But for those of headings, each to itself.
    outside = [address for address in addresses if not address.startswith("#user-content-")]
    assert [address for address in outside if not address.startswith("https://")] == []


@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: f"cp{python.tag}")
def test_pip_takes_the_wheel_of_this_python_which_needs_no_compiler(python, tmp_path):
    here = environment(python.path, tmp_path / "venv")
    began = time.monotonic()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    pip(here, "install", "--quiet", *FROM_FILES, "pyhugetext")
    taken = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime - used.ru_utime - used.ru_stime
    size = sum(file.stat().st_size for file in packages(here).rglob("pyhugetext/**/*"))
    print(f"\npip install took {taken:.1f} s, {cpu:.1f} s of processors, {size >> 10} KiB")
    assert f"-cp{python.tag}-manylinux" in tag_of(here)
    print(command(here, SMOKE, "--active", PYHUGETEXT_STORE=str(tmp_path / "store")).stdout)


def test_pip_of_a_new_environment_takes_it_from_an_index(index, tmp_path):
    python = environment(PYTHONS[0].path, tmp_path / "venv")
    pip(python, "install", "--quiet", "--index-url", index, "pyhugetext")
    assert f"-cp{PYTHONS[0].tag}-manylinux" in tag_of(python)
    place = packages(python)
    assert "Successfully uninstalled" in pip(python, "uninstall", "--yes", "pyhugetext").stdout
    assert not list(place.glob("*pyhugetext*"))


@pytest.mark.parametrize(
    ("where", "version"),
    [
        ("macosx_11_0_arm64", "3.12"),
        ("win_amd64", "3.13"),
        ("manylinux2014_i686", "3.12"),
        ("linux_armv7l", "3.11"),
        ("manylinux1_x86_64", "3.11"),  # a C library that is too old
        ("manylinux_2_39_x86_64", "3.16"),  # a CPython that is too new
        ("manylinux_2_39_riscv64", "3.12"),
    ],
)
def test_pip_takes_the_pure_wheel_elsewhere(where, version, index, tmp_path):
    options = ("--platform", where, "--python-version", version, "--only-binary", ":all:")
    download = ("download", "--quiet", "--no-deps", "--index-url", index, "--dest", tmp_path)
    command(sys.executable, "-m", "pip", *download, *options, "pyhugetext")
    assert [file.name for file in tmp_path.glob("*.whl")] == [PURE.name]


def older() -> str:
    """A CPython 3.8."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~root/.pyenv")
    there = sorted(Path(root).glob("versions/3.8.*/bin/python3.8"))
    return str(there[-1]) if there else tool("python3.8")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("python3.8", "it is made for CPython 3.9 and later, and this is 3.8"),
        ("pypy3", "it is made for CPython, and this is PyPy"),
    ],
)
def test_pure_wheel_says_why_it_stands_still(name, why, index, tmp_path):
    python = environment(older() if name == "python3.8" else tool(name), tmp_path / "venv")
    pip(python, "install", "--quiet", "--index-url", index, "pyhugetext")
    assert tag_of(python) == "Tag: py3-none-any"
    print(command(python, SMOKE, "--inactive", why).stdout)
    told = command(python, "-m", "pyhugetext", "status", check=False)
    assert (told.returncode, told.stdout) == (1, "")
    assert why in told.stderr


@pytest.mark.parametrize("python", PYTHONS[:1], ids=lambda python: f"cp{python.tag}")
def test_python_starts_with_any_file_of_the_package_missing(python, tmp_path):
    here = environment(python.path, tmp_path / "venv")
    pip(here, "install", "--quiet", *FROM_FILES, "pyhugetext")
    files = [file for file in packages(here).glob("pyhugetext*/**/*") if file.is_file()]
    files += packages(here).glob("pyhugetext.*")
    assert len(files) > 50
    for file in files:
        aside = file.rename(tmp_path / "aside")
        told = command(here, *NOTHING, check=False)
        assert (told.returncode, told.stdout, told.stderr) == (0, "", ""), file
        aside.rename(file)


# pip, killed as it opens the Nth file of the package for writing, which is empty then, or before the
# Nth time that it moves something of the package away.
KILLED = """
import os, runpy, signal, sys
place, event, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0
def audit(name, arguments):
    global seen
    if name != event or not isinstance(arguments[0], str) or not arguments[0].startswith(place):
        return
    if name == "open" and not (arguments[1] and "w" in arguments[1]):
        return
    if "pyhugetext" in arguments[0][len(place):]:
        if seen == number:
            if name == "open":
                os.close(os.open(arguments[0], os.O_CREAT | os.O_WRONLY))
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
sys.addaudithook(audit)
sys.argv[:] = ["pip", *sys.argv[4:]]
runpy.run_module("pip", run_name="__main__")
"""


def killed(python: Path, event: str, number: int, *words: str | Path) -> int:
    """The exit status of pip, killed so in the environment."""
    words = (packages(python), event, str(number), *words)
    return command(python, "-c", KILLED, *words, PYHUGETEXT="0", check=False).returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment with pip in which the wheel is installed."""
    place = tmp_path_factory.mktemp("whole") / "venv"
    python = environment(PYTHONS[0].path, place)
    pip(python, "install", "--quiet", *FROM_FILES, "pyhugetext")
    return python


def test_python_starts_where_pip_was_killed_as_it_installed(whole, tmp_path):
    wheel = next(DIST.glob(f"*-cp{PYTHONS[0].tag}-manylinux*x86_64.whl"))
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    place = packages(whole)
    kept = shutil.copytree(place, tmp_path / "kept")
    library = next(n for n, name in enumerate(names) if "/_boot." in name)
    try:
        # As it writes the library, the next file, what starts with every python, and what tells of it.
        for number in (library, library + 1, names.index("pyhugetext.pth"), len(names) - 2):
            for path in [*place.glob("*pyhugetext*"), *place.glob("~*")]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            install = ("install", "--quiet", "--no-compile", "--no-index", wheel)
            assert killed(whole, "open", number, *install) == -9
            there = [(place / name).exists() for name in names]
            assert there == [n <= number for n in range(len(names))], "pip follows another order"
            assert (place / names[number]).stat().st_size == 0
            told = command(whole, *NOTHING, check=False)
            assert (told.returncode, told.stdout, told.stderr) == (0, "", ""), names[number]
    finally:
        shutil.rmtree(place)
        kept.rename(place)


def test_python_starts_where_pip_was_killed_as_it_uninstalled(whole, tmp_path):
    place = packages(whole)
    kept = shutil.copytree(place, tmp_path / "kept")
    for number in range(20):
        status = killed(whole, "os.rename", number, "uninstall", "--yes", "pyhugetext")
        told = command(whole, *NOTHING, check=False)
        assert (told.returncode, told.stdout, told.stderr) == (0, "", ""), number
        # Of a .start without its package Python 3.15 would tell at every start.
        starts = (place / "pyhugetext.start").exists()
        assert not starts or (place / "pyhugetext" / "__init__.py").exists()
        shutil.rmtree(place)
        shutil.copytree(kept, place)
        if status == 0:
            break
    assert number > 2
