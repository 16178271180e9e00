"""A store with the entries of two libraries, for the tests of `pyhugetext store`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.cli import (
    Cli,
    Library,
    make_library,
    make_module,
)


class Filled:
    """A store with an entry of the library `one`, and one of `two`."""

    def __init__(self, cli: Cli, directory: Path, one: Path, two: Path) -> None:
        self.cli = cli
        self.directory = directory
        self.one = one
        self.two = two

    def warm(self, *modules: str) -> dict[str, Any]:
        return self.cli.json("warm", *modules, PYTHONPATH=str(self.directory))

    def entry(self, library: Path) -> dict[str, Any] | None:
        """What list says of a library's entry."""
        found = [e for e in self.cli.entries() if e["original"] == str(library)]
        assert len(found) <= 1
        return found[0] if found else None

    def copy(self, library: Path) -> Path:
        entry = self.entry(library)
        assert entry is not None
        return Path(entry["copy"])

    def record(self, library: Path) -> Path:
        entry = self.entry(library)
        assert entry is not None
        return self.cli.store / "v1/index" / entry["name"]

    def flip(self, library: Path, at: int) -> None:
        """Damages the content of a copy; its owner and mode stay."""
        path = self.copy(library)
        mode = path.stat().st_mode
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))
        path.chmod(mode)


def filled_with_two(cli: Cli, place: Path, compile_library: Library) -> Filled:
    one = make_library(compile_library, "one")
    two = make_library(compile_library, "two")
    directory = place / "modules"
    directory.mkdir()
    make_module(directory, "first", one)
    make_module(directory, "second", two)
    result = cli("warm", "first", "second", PYTHONPATH=str(directory))
    if "never gives" in result.stderr:
        pytest.skip("the file system of the temporary directory has no huge pages for files")
    assert result.returncode == 0, result.stderr
    return Filled(cli, directory, one, two)
