"""How the system's store is listed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.cli import Cli, in_namespace, make_module, need_root, need_tool, public_directory


def kept_of(cli: Cli, path: Path) -> list[tuple[str, str]]:
    """(kept, state) of each line that lists the entries of an original."""
    shown = cli("store", "list", "--system")
    assert shown.returncode == 0, shown.stderr
    lines = [line.split("  ") for line in shown.stdout.splitlines() if str(path) in line]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return sorted((line[4], line[5]) for line in cells)


def test_entry_that_only_images_find_is_told_from_one_that_is_found_here(
    cli: Cli, library: Path
) -> None:
    need_root()
    need_tool("unshare")
    with public_directory() as cache, public_directory() as place:
        # The system's store takes only what everybody may read.
        library = Path(shutil.copy(library, Path(place) / "libpublic.so"))
        library.chmod(0o644)
        make_module(Path(place), "sample", library)
        cli.prefix = in_namespace(f"mount --bind {cache} /var/cache")
        result = cli("warm", "--system", "sample", PYTHONPATH=str(place))
        if "never gives" in result.stderr:
            pytest.skip("the file system of the temporary directory has no huge pages for files")
        assert result.returncode == 0, result.stderr
        assert kept_of(cli, library) == [("durable+image", "ready")]
        # Of another change time: for this machine another file, and for an image none.
        library.chmod(0o555 if library.stat().st_mode & 0o200 else 0o755)
        assert kept_of(cli, library) == [("durable", "stale"), ("image", "ready")]
