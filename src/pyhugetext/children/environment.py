"""Imports what is there, module by module, and tells what that brought into the process."""

from __future__ import annotations

import importlib
import os
from typing import Any

from pyhugetext.children.channel import Channel


def _files() -> list[str]:
    """The files of which machine code is mapped."""
    found = set()
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            fields = line.rstrip(b"\n").split(None, 5)
            if len(fields) == 6 and b"x" in fields[1] and fields[5].startswith(b"/"):
                found.add(os.fsdecode(fields[5]))
    return sorted(path for path in found if os.path.isfile(path))


def main() -> None:
    channel = Channel()
    request: Any = channel.request
    for module in request["modules"]:
        channel.tell(importing=module)
        try:
            importlib.import_module(module)
        except BaseException as error:
            channel.tell(failed=module, error=f"{type(error).__name__}: {error}")
    told: dict[str, Any] = {"files": _files(), "stats": None}
    channel.tell(importing="")
    if request["remap"]:
        import pyhugetext

        told["stats"] = pyhugetext.remap().as_dict()
    channel.tell(**told)
    # Nothing that was imported may have a say in how it ends.
    os._exit(0)


if __name__ == "__main__":
    main()
