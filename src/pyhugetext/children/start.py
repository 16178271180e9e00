"""What the start-up hook came to in a new python."""

from __future__ import annotations

import os
import sys
from typing import Any

from pyhugetext.children.channel import answer


def _files() -> list[str]:
    """The files that start us, where site looks for such."""
    import site

    directories = list(getattr(site, "getsitepackages", list)())
    if site.ENABLE_USER_SITE:
        directories.append(site.getusersitepackages())
    paths = [
        os.path.join(directory, f"pyhugetext.{end}")
        for directory in directories
        for end in ("pth", "start")
    ]
    return [path for path in paths if os.path.isfile(path)]


def _look(request: object, told: dict[str, Any]) -> None:
    told["files"] = []
    hooked = "pyhugetext._boot" in sys.modules
    told["files"] = _files()
    import pyhugetext

    told["stats"] = pyhugetext.stats().as_dict()
    try:
        from pyhugetext import _native

        told["started"] = _native.snapshot()["started"]
    except ImportError:
        told["started"] = hooked


if __name__ == "__main__":
    answer(_look)
