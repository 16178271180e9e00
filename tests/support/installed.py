"""Where the package is installed, and where a virtual environment would have it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def installed_files() -> list[Path]:
    """The package's directory and its start-up files; a virtual environment can link to them."""
    found = importlib.util.find_spec("pyhugetext")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    files = [package, *(package.parent / f"pyhugetext.{end}" for end in ("pth", "start"))]
    if not all(file.exists() for file in files):
        pytest.skip("pyhugetext is installed in editable mode, not as a directory to link to")
    return files


def site_packages(place: Path) -> Path:
    """The site-packages of the virtual environment in `place`."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return place / "lib" / version / "site-packages"
