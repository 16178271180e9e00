"""Environments to be prepared for an image: a virtual environment with libraries of its own, and
nothing else of the machine's touched."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from support.cli import Cli, in_namespace, need_for_others, need_tool, public_directory
from support.common import clean_environment
from support.installed import installed_files, site_packages
from support.libraries import make_library
from support.once import once
from support.store import require_huge_disk

# As libraries.py has it: what all(7) of a library is.
ANSWER = 3 * 7 * 3 + 69


class Environment:
    """A virtual environment at a place that everybody can read, its store beside it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        venv = place / "env"
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(venv)],
            check=True,
            env=clean_environment(PYHUGETEXT="0"),
        )
        self.site = site_packages(venv).resolve()
        for file in installed_files():
            (self.site / file.name).symlink_to(file)
        self.cli = Cli(place / "cache" / "pyhugetext")
        self.cli.executable = str(venv / "bin" / "python")
        (place / "cache").mkdir()
        if os.geteuid() == 0:
            # Root's entries go to the system's store.
            need_tool("unshare")
            self.cli.prefix = in_namespace(f"mount --bind {place / 'cache'} /var/cache")

    @property
    def only(self) -> dict[str, str]:
        """Keeps the command from the machine's own interpreter and libraries."""
        return {"PYHUGETEXT_INCLUDE": f"{self.place}/env/lib/*"}

    def add(self, name: str, build_id: int = 0x1234, record: bool = True) -> Path:
        """Installs a distribution with one library, which importing it loads."""
        package = self.site / name
        package.mkdir()

        def make(directory: Path) -> None:
            make_library(directory, build_id=build_id)

        made = once(f"image-{build_id:x}", make) / "libvictim.so"
        library = package / f"lib{name}.so"
        shutil.copyfile(made, library)
        library.chmod(0o755)
        code = f"import ctypes\nlibrary = ctypes.CDLL(__file__[:-11] + {library.name!r})\n"
        (package / "__init__.py").write_text(code)
        if record:
            info = self.site / f"{name}-1.0.dist-info"
            info.mkdir()
            files = (package / "__init__.py", library)
            rows = [f"{self._name(file)},{digest(file)},{file.stat().st_size}" for file in files]
            (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")
        return library

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.site))

    def image(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.cli("image", *arguments, **{**self.only, **env})

    def json(self, *arguments: str, status: int = 0, **env: str) -> dict[str, Any]:
        """The document of a run that has to end with this exit status."""
        return self.cli.json("image", *arguments, status=status, **{**self.only, **env})

    def check_records(self) -> None:
        """Every RECORD tells of the files as they are."""
        for record in self.site.glob("*.dist-info/RECORD"):
            with record.open(newline="") as file:
                for name, told, size in csv.reader(file):
                    if told:
                        path = self.site / name
                        assert (told, int(size)) == (digest(path), path.stat().st_size)

    def leftovers(self) -> list[Path]:
        return [path for path in self.place.rglob("*") if path.name.startswith(".pyhugetext-")]

    def run(self, code: str, *arguments: str, **env: str) -> str:
        """What a python of the environment prints, whose hook uses the store and builds nothing."""
        environ = {"PYHUGETEXT": "", "PYHUGETEXT_BUILD": "never", **self.only, **env}
        done = subprocess.run(
            [*self.cli.prefix, self.cli.executable, "-c", code, *arguments],
            env=self.cli.environment(**environ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@contextmanager
def environment() -> Iterator[Environment]:
    """One that is gone afterwards. Skips where its store could have no huge pages."""
    if os.geteuid() == 0:
        need_for_others()
    with public_directory() as place:
        require_huge_disk(place)
        yield Environment(place)


def known(path: Path) -> tuple[bytes, int, int, int]:
    """Content and inode, time and mode of a file."""
    status = path.stat()
    return path.read_bytes(), status.st_ino, status.st_mtime_ns, status.st_mode


def numpy_object() -> str:
    """Of numpy, which the tests' environment has for matplotlib, a large object with a build-id."""
    found = importlib.util.find_spec("numpy")
    if found is None or found.origin is None:
        pytest.skip("numpy is not installed here")
    (path,) = Path(found.origin).parent.glob("_core/_multiarray_umath*.so")
    return str(path.resolve())


def object_of(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """What is told of one object."""
    (found,) = [one for one in document["objects"] if one["path"] == str(path)]
    return dict(found)


def digest(path: Path) -> str:
    """The hash of a file as a RECORD has it."""
    made = hashlib.sha256(path.read_bytes()).digest()
    return f"sha256={base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


def alignments(path: Path) -> list[int]:
    """The p_align of each PT_LOAD, by pyelftools."""
    with path.open("rb") as file:
        return [one.header.p_align for one in ELFFile(file).iter_segments("PT_LOAD")]


def aligned(content: bytes, tmp_path: Path) -> bytes:
    """A library's content as it is after it was prepared, by pyelftools."""
    file = tmp_path / "content"
    file.write_bytes(content)
    with file.open("rb") as opened:
        elf = ELFFile(opened)
        number = next(i for i, s in enumerate(elf.iter_segments()) if s.header.p_type == "PT_LOAD")
        at = elf.header.e_phoff + number * elf.header.e_phentsize + 48
    return content[:at] + (2 << 20).to_bytes(8, "little") + content[at + 8 :]


USE = """
import json, sys, importlib, pyhugetext
values = [getattr(importlib.import_module(name).library, "all")(7) for name in sys.argv[1:]]
stats = pyhugetext.remap()
print(json.dumps([values, {r.path: r.backing for r in stats.regions}]))
"""


def used(environment: Environment, *names: str, **env: str) -> dict[str, str]:
    """By path the backings in a process that imports what add() installed."""
    values, backings = json.loads(environment.run(USE, *names, **env))
    assert values == [ANSWER] * len(names)
    return dict(backings)
