"""pyhugetext.metrics in prometheus multiprocess mode: gunicorn with two workers, and plain forks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.common import HUGE, Run, clean_environment

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

APPLICATION = """
    import ctypes, json, os
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess
    import pyhugetext, pyhugetext.metrics

    if "LIBRARY" in os.environ:
        ctypes.CDLL(os.environ["LIBRARY"])
        pyhugetext.remap()

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/metrics":
            registry = CollectorRegistry()
            pyhugetext.metrics.register(registry)
            multiprocess.MultiProcessCollector(registry)
            body = generate_latest(registry)
        elif path == "/restore":
            pyhugetext.restore()
            body = b""
        else:
            body = json.dumps([os.getpid(), pyhugetext.stats().as_dict()]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""

CONFIGURATION = """
    control_socket_disable = True  # of gunicorn 25; others ignore it

    def post_worker_init(worker):
        import pyhugetext.metrics
        pyhugetext.metrics.update_every(0.1)

    def child_exit(server, worker):
        from prometheus_client import multiprocess
        multiprocess.mark_process_dead(worker.pid)
"""

OPTIONS = ("--workers=2", "--bind=127.0.0.1:0", "--graceful-timeout=5")

Samples = dict[tuple[str, str, str], float]


class Server:
    def __init__(self, directory: Path, *options: str, **env: str) -> None:
        (directory / "application.py").write_text(textwrap.dedent(APPLICATION))
        (directory / "gunicorn.conf.py").write_text(textwrap.dedent(CONFIGURATION))
        self.metrics = directory / "metrics"
        self.metrics.mkdir()
        self.log = directory / "log"
        settings = {"PROMETHEUS_MULTIPROC_DIR": str(self.metrics), **env}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *OPTIONS, *options, "application"],
                cwd=directory,
                env=clean_environment(**settings),
                stdout=log,
                stderr=log,
            )
        self.address = str(self.wait_for(self._listening, "it does not listen"))

    def _listening(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        for line in self.log.read_text().splitlines():
            if "Listening at: " in line:
                return line.partition("Listening at: ")[2].split()[0]
        return None

    def wait_for(self, ready: Callable[[], Any], otherwise: str) -> Any:
        for _ in range(600):
            found = ready()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{otherwise}\n{self.log.read_text()}")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return str(answer.read().decode())

    def samples(self) -> Samples:
        """By name, object and backing."""
        from prometheus_client.parser import text_string_to_metric_families

        found: Samples = {}
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                assert "pid" not in sample.labels
                labels = (sample.labels.get("object", ""), sample.labels.get("backing", ""))
                assert (sample.name, *labels) not in found
                found[(sample.name, *labels)] = sample.value
        return found

    def both_workers(self) -> Samples:
        """The samples when two processes have told theirs."""

        def ready() -> Samples | None:
            try:
                found = self.samples()
            except urllib.error.HTTPError as error:
                # prometheus-client fails where it reads a file that a worker is just making.
                log = self.log.read_text()
                if "unpack_from requires a buffer of at least" in log:
                    return None
                raise AssertionError(log) from error
            return found if found["pyhugetext_processes", "", ""] == 2 else None

        samples: Samples = self.wait_for(ready, "there never were two workers")
        return samples

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    started: list[Server] = []

    def start(*options: str, **env: str) -> Server:
        server = Server(tmp_path, *options, **env)
        started.append(server)
        return server

    yield start
    for one in started:
        one.stop()


def region_of(stats: dict[str, Any], path: Path) -> dict[str, Any]:
    (region,) = [region for region in stats["regions"] if region["path"] == str(path)]
    return region


def test_shared_text_counts_once_and_private_memory_for_each_worker(
    server: Callable[..., Server], library: Path
) -> None:
    one = server(PYHUGETEXT_BACKING="memfd", LIBRARY=str(library))
    samples = one.both_workers()
    _, stats = json.loads(one.get("/stats"))
    region = region_of(stats, library)
    if region["status"] != "huge":
        pytest.skip(f"this machine gives no huge pages to memfd: {region['reason']}")
    labels = (library.name, "memfd")
    for name in ("text", "coverable", "mapped", "huge"):
        found = samples[(f"pyhugetext_{name}_bytes", *labels)]
        assert found == region[f"{name}_bytes"], name
    assert region["private_bytes"] >= 2 * HUGE
    assert samples[("pyhugetext_private_bytes", *labels)] == 2 * region["private_bytes"]
    # That of the interpreter is one copy, which came to the workers by fork().
    private = sum(v for key, v in samples.items() if key[0] == "pyhugetext_private_bytes")
    assert private == 2 * stats["private_bytes"]
    assert samples["pyhugetext_active", "", ""] == 2
    assert samples["pyhugetext_uncovered_bytes", "", ""] == (
        stats["coverable_bytes"] - stats["mapped_bytes"]
    )
    assert samples["pyhugetext_remap_seconds_total", "", ""] > stats["elapsed_ns"] / 1e9


def test_a_worker_that_goes_back_to_small_pages_is_seen(
    server: Callable[..., Server], library: Path
) -> None:
    """Also by a scrape that the other worker answers."""
    one = server(PYHUGETEXT_BACKING="memfd", LIBRARY=str(library))
    one.both_workers()
    _, stats = json.loads(one.get("/stats"))
    region = region_of(stats, library)
    if region["status"] != "huge":
        pytest.skip(f"this machine gives no huge pages to memfd: {region['reason']}")
    one.get("/restore")

    def seen() -> Samples | None:
        # A scrape may come between two of the gauges.
        samples = one.samples()
        active = samples["pyhugetext_active", "", ""] == 1
        uncovered = samples["pyhugetext_uncovered_bytes", "", ""] == stats["coverable_bytes"]
        return samples if active and uncovered else None

    samples = one.wait_for(seen, "nobody noticed")
    assert samples["pyhugetext_processes", "", ""] == 2
    private = samples["pyhugetext_private_bytes", library.name, "memfd"]
    assert private == region["private_bytes"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_worker_counts_no_more(server: Callable[..., Server], how: signal.Signals) -> None:
    one = server()
    before = one.both_workers()
    pid, _ = json.loads(one.get("/stats"))
    os.kill(pid, how)

    def noticed() -> bool:
        return not list(one.metrics.glob(f"gauge_live*_{pid}.db"))

    one.wait_for(noticed, "nobody noticed that the worker is dead")
    after = one.both_workers()
    time.sleep(0.3)  # nor do there come to be more
    assert one.samples()["pyhugetext_processes", "", ""] == 2
    # A counter never goes down.
    name = ("pyhugetext_remap_seconds_total", "", "")
    assert after[name] >= before[name]


def test_with_the_application_preloaded_forks_do_not_hang(server: Callable[..., Server]) -> None:
    one = server("--preload", "--max-requests=5")
    for _ in range(40):
        one.get("/stats")
    one.both_workers()
    assert one.log.read_text().count("Booting worker") > 4


# A parent and two forked children, one of which does not update.
FORKS = """
    import json, os, signal, sys
    import pyhugetext, pyhugetext.metrics
    from prometheus_client import CollectorRegistry, Gauge, multiprocess
    pyhugetext.metrics.register()
    other = Gauge("other", "Another of the program's.", multiprocess_mode="livesum")
    children = []
    for child in range(2):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            other.set(1)  # prometheus-client sets all inherited values to 0 here
            if child:
                pyhugetext.metrics.update()
            os.write(write, b"1")
            signal.pause()
        os.read(read, 1)
        children.append(pid)
    def samples():
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return {s.name: s.value for f in registry.collect() for s in f.samples if not s.labels}
    before = samples()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        multiprocess.mark_process_dead(pid)
    print(json.dumps([before, samples(), pyhugetext.stats().as_dict()]))
"""


def test_a_child_that_told_nothing_yet_raises_no_alarm(python: Run, tmp_path: Path) -> None:
    result = python(FORKS, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    before, after, stats = json.loads(result.stdout)
    assert before["pyhugetext_processes"] == 2
    assert before["pyhugetext_active"] == 2 * stats["active"]
    assert before["pyhugetext_uncovered_bytes"] == (
        stats["coverable_bytes"] - stats["mapped_bytes"]
    )
    assert after["pyhugetext_processes"] == 1
    assert after["pyhugetext_active"] == stats["active"]
    # What the children inherited of the parent's time is not counted again.
    spent = pytest.approx(stats["elapsed_ns"] / 1e9)
    assert before["pyhugetext_remap_seconds_total"] == spent
    assert after["pyhugetext_remap_seconds_total"] == spent


def test_series_of_a_former_backing_become_0(python: Run, tmp_path: Path) -> None:
    code = """
        import json, pyhugetext, pyhugetext.metrics
        from prometheus_client import CollectorRegistry, multiprocess
        def private():
            registry = CollectorRegistry()
            pyhugetext.metrics.register(registry)
            multiprocess.MultiProcessCollector(registry)
            return {
                s.labels["backing"]: s.value
                for f in registry.collect() for s in f.samples
                if s.name == "pyhugetext_mapped_bytes" and s.value
            }
        remapped = pyhugetext.stats()
        print(json.dumps([remapped.backing, private()]))
        pyhugetext.restore()
        print(json.dumps(private()))
    """
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYHUGETEXT_BACKING": "memfd"}
    first, second = python(code, env=env).stdout.splitlines()
    backing, mapped = json.loads(first)
    assert list(mapped) == ([] if backing == "none" else [backing])
    assert json.loads(second) == {}


def test_a_directory_that_cannot_be_written_to_is_logged_and_not_fatal(
    python: Run, tmp_path: Path
) -> None:
    """By the thread; update() itself raises."""
    code = """
        import pyhugetext.metrics, threading, time
        def fails():
            raise OSError(28, "No space left on device")
        pyhugetext.metrics.update_every(60)
        pyhugetext.metrics.update = fails
        pyhugetext.metrics._ticker.start(0.01)
        time.sleep(0.2)
        print([t.is_alive() for t in threading.enumerate() if t.name == "pyhugetext-metrics"])
    """
    result = python(code, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    assert result.stdout.strip() == "[True]"
    assert "are not up to date: [Errno 28] No space left on device" in result.stderr
    missing = python(
        "import pyhugetext.metrics; pyhugetext.metrics.register()",
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "missing")},
        check=False,
    )
    assert "FileNotFoundError" in missing.stderr
