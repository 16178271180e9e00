"""The child's side: what it is asked, and telling what it found."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn


class Channel:
    """To the parent, by lines of JSON. When it is gone there is nothing left to do."""

    def __init__(self) -> None:
        self._fd = int(sys.argv[1])
        sys.argv[:] = [""]
        os.set_inheritable(self._fd, False)
        self.request: Any = json.load(sys.stdin)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.close(nothing)

    def tell(self, **fields: Any) -> None:
        """Sends a line."""
        line = (json.dumps(fields) + "\n").encode()
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except BrokenPipeError:
            os._exit(1)


def answer(find: Callable[[Any, dict[str, Any]], None]) -> NoReturn:
    """Lets `find` fill in what is to be told for the request, tells it in one line, and ends the
    process. What it raises is told as `error`, with all that was found before."""
    channel = Channel()
    told: dict[str, Any] = {"error": None}
    try:
        find(channel.request, told)
    except BaseException as error:
        told["error"] = f"{type(error).__name__}: {error}"
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    channel.tell(**told)
    # Nothing that was imported may have a say in how it ends.
    os._exit(0)
