"""What `pyhugetext.stats()` tells, as Prometheus metrics (`pip install 'pyhugetext[metrics]'`).

    import pyhugetext.metrics

    pyhugetext.metrics.register()       # in prometheus_client.REGISTRY

| metric | labels | between worker processes |
|---|---|---|
| `pyhugetext_text_bytes`: executable file text | object, backing | highest |
| `pyhugetext_coverable_bytes`: of it, what 2 MiB pages can hold | object, backing | highest |
| `pyhugetext_mapped_bytes`: of that, inside swapped ranges | object, backing | highest |
| `pyhugetext_huge_bytes`: what the kernel holds in 2 MiB pages now | object, backing | highest |
| `pyhugetext_private_bytes`: memory no other process shares | object, backing | sum |
| `pyhugetext_uncovered_bytes`: coverable - mapped, of the whole process | | highest |
| `pyhugetext_active`: 1 where text runs on huge pages | | sum |
| `pyhugetext_processes`: 1 | | sum |
| `pyhugetext_problems`: malformed settings, refused calls | | highest |
| `pyhugetext_remap_seconds_total`: time spent remapping | | sum |
| `pyhugetext_info`: 1 | version, kernel, thp | highest |

`object` is the file's name without its directory, which differs from one deployment to the next;
files of the same name count together. The 32 with the most coverable text have series of their own,
all others are `(other)`, so that a process has 5 * 33 series at most for each backing in use.

All but the counter are gauges: text comes and goes with libraries.

Multiprocess mode (PROMETHEUS_MULTIPROC_DIR, for gunicorn and the like): prometheus-client merges
files that the workers write, and whichever worker answers a scrape knows nothing of the others. So
each worker has to write what it knows: at `update()`, or by itself after `update_every(seconds)`.
Text is shared, and a sum over workers would count the same memory again for each of them: its
metrics are those of the worker that has most. Private memory is each worker's own, so it adds up;
what a worker still shares with its parent by fork() is neither's and counts nowhere.
`pyhugetext_active < pyhugetext_processes` means that a worker is on small pages, and
`pyhugetext_uncovered_bytes` is that of the worst. Series of a backing no longer in use stay, at 0.

    # gunicorn.conf.py; PROMETHEUS_MULTIPROC_DIR is a directory emptied before each start
    def post_worker_init(worker):
        import pyhugetext.metrics

        pyhugetext.metrics.update_every(15)


    def child_exit(server, worker):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


    # the application's /metrics
    registry = CollectorRegistry()
    pyhugetext.metrics.register(registry)  # brings this worker's own values up to date
    multiprocess.MultiProcessCollector(registry)
    body = generate_latest(registry)
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

try:
    import prometheus_client
    from prometheus_client import core, registry, values
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pyhugetext.metrics needs prometheus-client: pip install 'pyhugetext[metrics]'",
        name=error.name,
    ) from None

import pyhugetext
from pyhugetext._stats.model import by_coverable, sizes_of

if TYPE_CHECKING:
    from typing import Literal

    from pyhugetext._stats.model import Stats

    Mode = Literal["livemax", "livesum"]
    Series = tuple["_Gauge", tuple[str, ...]]

__all__ = ["HugeTextCollector", "register", "update", "update_every"]

OTHER = "(other)"
_OBJECTS = 32

_log = logging.getLogger(__name__)


class _Gauge(NamedTuple):
    """A metric, and how multiprocess mode puts the workers' values together."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    mode: Mode = "livemax"


_OBJECT = ("object", "backing")
# In the order of sizes_of().
_SIZES = tuple(
    _Gauge(
        f"pyhugetext_{name}_bytes", about, _OBJECT, "livesum" if name == "private" else "livemax"
    )
    for name, about in (
        ("text", "Executable file text mapped."),
        ("coverable", "Text of it that 2 MiB pages are able to hold."),
        ("mapped", "Text of it inside swapped ranges."),
        ("huge", "Memory of the swapped ranges that the kernel holds in 2 MiB pages now."),
        ("private", "Memory of the swapped ranges that no other process shares."),
    )
)
_UNCOVERED = _Gauge(
    "pyhugetext_uncovered_bytes", "Coverable text of the process outside swapped ranges."
)
_ACTIVE = _Gauge("pyhugetext_active", "Processes that run text from 2 MiB pages.", mode="livesum")
_PROCESSES = _Gauge("pyhugetext_processes", "Processes that tell these metrics.", mode="livesum")
_PROBLEMS = _Gauge(
    "pyhugetext_problems", "Malformed settings, unmatched patterns and refused calls."
)
_INFO = _Gauge(
    "pyhugetext_info",
    "Versions of the package and the kernel, and the transparent huge pages setting.",
    ("version", "kernel", "thp"),
)
_GAUGES = (*_SIZES, _UNCOVERED, _ACTIVE, _PROCESSES, _PROBLEMS, _INFO)

_REMAP = "pyhugetext_remap_seconds"
_REMAP_HELP = "Time spent remapping text since the process started."


def _object_name(path: str) -> str:
    """The file's name as UTF-8, which the exposition formats are."""
    name = os.path.basename(path.removesuffix(" (deleted)"))
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") or OTHER


def _series(stats: Stats) -> dict[Series, float]:
    """The values of all gauges, by metric and label values."""
    coverable: dict[str, int] = {}
    for region in by_coverable(stats.regions)[0]:
        name = _object_name(region.path)
        coverable[name] = coverable.get(name, 0) + region.coverable_bytes
    shown = frozenset(sorted(coverable, key=lambda name: (-coverable[name], name))[:_OBJECTS])
    out: dict[Series, float] = {}
    for region in stats.regions:
        name = _object_name(region.path)
        labels = (name if name in shown else OTHER, region.backing)
        for gauge, size in zip(_SIZES, sizes_of(region)):
            out[gauge, labels] = out.get((gauge, labels), 0) + size
    out[_UNCOVERED, ()] = stats.coverable_bytes - stats.mapped_bytes
    out[_ACTIVE, ()] = stats.active
    out[_PROCESSES, ()] = 1
    out[_PROBLEMS, ()] = len(stats.problems)
    kernel = stats.kernel
    out[_INFO, (pyhugetext.__version__, kernel.release, kernel.thp_enabled or "")] = 1
    return out


def _families(stats: Stats | None) -> Iterator[core.Metric]:
    """The metrics with their values; without any where there are no statistics."""
    series = {} if stats is None else _series(stats)
    for gauge in _GAUGES:
        family = core.GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
        for (owner, labels), value in series.items():
            if owner is gauge:
                family.add_metric(labels, value)
        yield family
    counter = core.CounterMetricFamily(_REMAP, _REMAP_HELP)
    if stats is not None:
        counter.add_metric((), stats.elapsed_ns / 1e9)
    yield counter


def _elapsed_ns() -> int:
    """As in stats(), which has loaded the native part, without reading /proc."""
    native = sys.modules.get("pyhugetext._native")
    return int(native.snapshot()["elapsed_ns"]) if native is not None else 0


class _Worker:
    """What this process has written for multiprocess mode."""

    def __init__(self) -> None:
        self._gauges = {
            gauge: prometheus_client.Gauge(
                gauge.name,
                gauge.help,
                gauge.labels,
                registry=None,
                multiprocess_mode=gauge.mode,
            )
            for gauge in _GAUGES
        }
        self._counter = prometheus_client.Counter(_REMAP, _REMAP_HELP, registry=None)
        self._written: set[Series] = set()
        self._counted_ns = 0
        # Held around each fork, too: a child must not inherit prometheus-client's lock, held by a
        # thread that it does not have. Recursive: a signal handler may fork during an update.
        self._lock = threading.RLock()
        os.register_at_fork(
            before=self._lock.acquire,
            after_in_parent=self._lock.release,
            after_in_child=self._forked,
        )

    def _forked(self) -> None:
        # A child starts from files of its own, in which nothing is counted yet; the time that its
        # parent spent is in the parent's.
        self._counted_ns = _elapsed_ns()
        self._lock.release()

    def write(self) -> None:
        """Writes the values of now."""
        with self._lock:
            stats = pyhugetext.stats()
            series = _series(stats)
            # What is gone cannot be taken out of the file.
            for gone in self._written.difference(series):
                self._set(gone, 0)
            for one, value in series.items():
                self._set(one, value)
            self._written.update(series)
            self._counter.inc(max(stats.elapsed_ns - self._counted_ns, 0) / 1e9)
            self._counted_ns = stats.elapsed_ns

    def _set(self, series: Series, value: float) -> None:
        gauge, labels = series
        metric = self._gauges[gauge]
        (metric.labels(*labels) if labels else metric).set(value)


def _multiprocess() -> bool:
    """As prometheus-client decided when it was imported."""
    return bool(values.ValueClass._multiprocess)


_worker: _Worker | None = None
_worker_lock = threading.Lock()


def update() -> None:
    """In multiprocess mode, writes this process's values as they are now; OSError where
    PROMETHEUS_MULTIPROC_DIR cannot be written to. In the normal mode values are taken at the
    scrape, and there is nothing to do. Reads /proc/self/smaps; see proc_pid_smaps(5)."""
    global _worker
    if _multiprocess():
        with _worker_lock:
            if _worker is None:
                _worker = _Worker()
        _worker.write()


class HugeTextCollector(registry.Collector):
    """Takes the values at each scrape. In multiprocess mode it yields nothing itself but writes
    this process's values, for a MultiProcessCollector registered behind it."""

    def collect(self) -> Iterable[core.Metric]:
        if _multiprocess():
            update()
            return ()
        return _families(pyhugetext.stats())

    def describe(self) -> Iterable[core.Metric]:
        """The metrics without values: nothing is read only to register."""
        return () if _multiprocess() else _families(None)


def register(
    registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY,
) -> HugeTextCollector:
    """Registers a collector and returns it, for `registry.unregister()`. In multiprocess mode this
    process's values are written at once, too, and at each scrape of this registry.

    ValueError where the registry has these metrics already.
    """
    collector = HugeTextCollector()
    registry.register(collector)
    update()
    return collector


class _Ticker:
    """The thread of update_every(), one in a process."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._pid = 0
        self._changed = threading.Event()

    def start(self, seconds: float) -> None:
        self.seconds = seconds
        if self._pid == os.getpid():
            self._changed.set()
            return
        # A child of fork() has no thread of its parent's, nor may it use its events.
        self._pid = os.getpid()
        self._changed = threading.Event()
        threading.Thread(target=self._run, name="pyhugetext-metrics", daemon=True).start()

    def _run(self) -> None:
        while True:
            if self._changed.wait(self.seconds):
                self._changed.clear()
                continue
            try:
                update()
            except OSError as error:
                _log.warning("the metrics of process %d are not up to date: %s", self._pid, error)


_ticker = _Ticker()


def update_every(seconds: float) -> None:
    """In multiprocess mode, update() now, and then again every so many seconds from a daemon
    thread of this process; another call changes the interval. fork() does not copy threads: call
    it in each worker, as gunicorn's `post_worker_init` does. What fails later is logged.

    ValueError for an interval that is not above 0. In the normal mode it does nothing.
    """
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"seconds: {seconds!r} is no interval; allowed: a number above 0")
    if _multiprocess():
        update()
        _ticker.start(seconds)
