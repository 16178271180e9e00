"""The files that `make wheels` has built, the pythons that they are for, and pip without a compiler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

from support.common import ROOT, clean_environment, script

DIST = Path(os.environ.get("WHEELS_DIST", ROOT / "dist"))
SMOKE = ROOT / "packaging" / "wheels" / "smoke.py"


def maker() -> ModuleType:
    """The script that built them, which knows where pythons are."""
    return script(ROOT / "packaging" / "wheels" / "make.py")


PYTHONS: list[Any] = [
    python
    for python in maker().found([])
    if list(DIST.glob(f"*-cp{python.tag}-manylinux*x86_64.whl"))
]


def without_compiler(**settings: str) -> dict[str, str]:
    """An environment in which nothing can be built, and nothing comes from anywhere else."""
    return clean_environment(
        PATH="/nonexistent",
        CC="false",
        CXX="false",
        PIP_CONFIG_FILE=os.devnull,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_CACHE_DIR="1",
        PYTHONDONTWRITEBYTECODE="1",
        **settings,
    )


def command(
    *words: str | Path, check: bool = True, **settings: str
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [str(word) for word in words],
        env=without_compiler(**settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def environment(python: str, place: Path) -> Path:
    """A new environment of that python, with the pip that it brings; returns its python."""
    command(python, "-m", "venv", place)
    return place / "bin" / "python"


def pip(python: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """pip of that environment, with the hook off: it is not what is tested."""
    return command(python, "-m", "pip", *words, PYHUGETEXT="0")
