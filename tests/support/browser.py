"""Headless Chromium, driven through its debugging pipe: a page at a given width and colour scheme,
what it logged and asked for, and screenshots."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.common import PREFIX

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
)


def chromium() -> str:
    """Its path; skips the test where there is none."""
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("no headless browser: chromium, chromium-browser and google-chrome are not there")


class Browser:
    """One page. See https://chromedevtools.github.io/devtools-protocol/ for the commands."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out = to_browser
        self._in = os.fdopen(from_browser, "rb", buffering=0)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], 60)[0], "the browser does not answer"
            got = self._in.read(1 << 16)
            assert got, "the browser has ended"
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, width: int = 1100, height: int = 900, scheme: str = "light") -> None:
        """Loads a file and waits until it is drawn."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme_ = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=scheme_)
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not self.seen("Page.loadEventFired"):
            self.events.append(self._next())
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")

    def seen(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] == method]

    def evaluate(self, expression: str) -> Any:
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """What the browser has against the page: errors, blocked content, exceptions."""
        out = [event["entry"]["text"] for event in self.seen("Log.entryAdded")]
        out += [str(event["args"]) for event in self.seen("Runtime.consoleAPICalled")]
        out += [str(event["exceptionDetails"]) for event in self.seen("Runtime.exceptionThrown")]
        out += [str(event["issue"]) for event in self.seen("Audits.issueAdded")]
        return out

    def requests(self) -> list[str]:
        return [event["request"]["url"] for event in self.seen("Network.requestWillBeSent")]

    def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    executable = chromium()
    profile = tempfile.mkdtemp(prefix=PREFIX)
    try:
        # The browser reads commands from descriptor 3 and answers on 4.
        read_commands, to_browser = os.pipe()
        from_browser, write_answers = os.pipe()
        script = f'exec 3<&{read_commands} 4>&{write_answers}; exec "$0" "$@"'
        process = subprocess.Popen(
            ["bash", "-c", script, executable, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(read_commands, write_answers),
            env={**os.environ, "PYHUGETEXT": "0", "HOME": profile},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        page = Browser(to_browser, from_browser)
        try:
            page.attach()
            yield page
        finally:
            # Its other processes end with it, and then leave the profile alone.
            try:
                page.close()
                process.wait(20)
            except (OSError, AssertionError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
            os.close(to_browser)
            page._in.close()
    finally:
        shutil.rmtree(profile, ignore_errors=True)
