"""What all servers of these tests run: the same work whichever of them asks, and what the process that
did it knows of its own text. Imports numpy, as a program with much text does."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import numpy


def work() -> str:
    """Through the interpreter's text and numpy's; one line, the same everywhere."""
    words = sorted((str(number)[::-1] for number in range(3000)), key=hash_of)
    matrix = numpy.arange(2500.0).reshape(50, 50) % 7 + 60 * numpy.eye(50)
    solution = numpy.linalg.solve(matrix, numpy.ones(50))
    sums = numpy.sort(matrix @ matrix, axis=0).sum(axis=1)
    return f"{words[:3]} {solution.sum():.9f} {sums[:3].tolist()}"


def hash_of(text: str) -> int:
    """The same in every process, unlike hash()."""
    value = 5381
    for character in text:
        value = value * 33 % 65521 + ord(character)
    return value


def told() -> str:
    """Who this is, and its stats(), as JSON."""
    import pyhugetext

    return json.dumps(
        {
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "executable": sys.executable,
            "stats": pyhugetext.stats().as_dict(),
        }
    )


def answer(path: str) -> bytes:
    if path == "/told":
        time.sleep(0.05)  # the others get the next ones
        return told().encode()
    return work().encode()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI."""
    body = answer(environ["PATH_INFO"])
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    body = answer(scope["path"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
