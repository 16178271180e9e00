"""pyhugetext.metrics in one process: names, values at the scrape, bounded labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.cli import Library, make_library
from support.common import HUGE, Run

pytestmark = pytest.mark.quick

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

# Prints the exposition and stats(), of the same moment: text that is used for the first time
# changes them.
SCRAPE = """
    import json
    import pyhugetext, pyhugetext.metrics
    from prometheus_client import REGISTRY, generate_latest
    pyhugetext.metrics.register()
    %s
    stats = pyhugetext.stats()
    pyhugetext.stats = lambda: stats
    text = generate_latest(REGISTRY).decode()
    print(json.dumps([text, stats.as_dict()]))
"""

BYTES = ("text", "coverable", "mapped", "huge", "private")


def scrape(python: Run, code: str = "", **env: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics by name, ours only, and stats()."""
    from prometheus_client.parser import text_string_to_metric_families

    text, stats = json.loads(python(SCRAPE % code, env=env).stdout.splitlines()[-1])
    families = {f.name: f for f in text_string_to_metric_families(text)}
    return {n: f for n, f in families.items() if n.startswith("pyhugetext")}, stats


def value(families: dict[str, Any], name: str) -> float:
    (sample,) = families[name].samples
    return float(sample.value)


def test_values_are_those_of_stats(python: Run) -> None:
    families, stats = scrape(python)
    assert value(families, "pyhugetext_active") == stats["active"]
    assert value(families, "pyhugetext_processes") == 1
    assert value(families, "pyhugetext_problems") == 0
    uncovered = stats["coverable_bytes"] - stats["mapped_bytes"]
    assert value(families, "pyhugetext_uncovered_bytes") == uncovered
    for name in BYTES:
        samples = families[f"pyhugetext_{name}_bytes"].samples
        assert sum(s.value for s in samples) == stats[f"{name}_bytes"], name
    seconds = value(families, "pyhugetext_remap_seconds")
    assert seconds == pytest.approx(stats["elapsed_ns"] / 1e9)
    (info,) = families["pyhugetext_info"].samples
    assert info.value == 1
    assert info.labels["kernel"] == stats["kernel"]["release"]
    assert info.labels["version"]


def test_an_object_has_its_backing_and_its_sizes(
    python: Run, compile_library: Library, tmp_path: Path
) -> None:
    library = make_library(compile_library)
    families, stats = scrape(
        python,
        f"import ctypes; ctypes.CDLL({str(library)!r}); pyhugetext.remap()",
        PYHUGETEXT_BACKING="memfd",
    )
    (region,) = [r for r in stats["regions"] if r["path"] == str(library)]
    for name in BYTES:
        found = {
            sample.labels["backing"]: sample.value
            for sample in families[f"pyhugetext_{name}_bytes"].samples
            if sample.labels["object"] == library.name
        }
        assert found == {region["backing"]: region[f"{name}_bytes"]}, name
    assert region["text_bytes"] >= 2 * HUGE


def test_problems_are_counted(python: Run) -> None:
    families, stats = scrape(python, PYHUGETEXT_BACKING="tpyo", PYHUGETEXT_MIN_TEXT="-1")
    assert value(families, "pyhugetext_problems") == len(stats["problems"]) == 2


def test_inactive_is_0_and_not_missing(python: Run) -> None:
    families, stats = scrape(python, PYHUGETEXT="0")
    assert value(families, "pyhugetext_active") == 0
    assert value(families, "pyhugetext_uncovered_bytes") == stats["coverable_bytes"] > 0
    backings = {s.labels["backing"] for s in families["pyhugetext_text_bytes"].samples}
    assert backings == {"none"}


def test_names_and_types_follow_the_conventions(python: Run) -> None:
    families, _ = scrape(python)
    for name, family in families.items():
        assert family.documentation.endswith("."), name
        if family.type == "gauge":
            plain = ("_active", "_processes", "_problems", "_info")
            assert name.endswith(("_bytes", *plain)), name
        else:
            assert (family.type, name) == ("counter", "pyhugetext_remap_seconds")
            assert [s.name for s in family.samples] == ["pyhugetext_remap_seconds_total"]
        series = [tuple(sorted(s.labels.items())) for s in family.samples]
        assert len(set(series)) == len(series), name


def test_openmetrics_reads_them_too(python: Run) -> None:
    code = """
        import pyhugetext.metrics
        from prometheus_client import CollectorRegistry
        from prometheus_client.openmetrics.exposition import generate_latest
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
        registry = CollectorRegistry()
        pyhugetext.metrics.register(registry)
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            print(family.name)
    """
    assert "pyhugetext_huge_bytes" in python(code).stdout.split()


def test_the_number_of_series_is_bounded_and_nothing_is_lost(python: Run) -> None:
    """Forty libraries with coverable text of different sizes, one of them from two directories,
    one deleted since."""
    code = """
        import json, pyhugetext, pyhugetext.metrics as metrics
        from prometheus_client import CollectorRegistry
        real = pyhugetext.stats()
        one = real.regions[0]._replace(backing="store")
        more = [
            one._replace(path=f"/lib/lib{i}.so", coverable_bytes=(i + 1) << 40)
            for i in range(40)
        ]
        more.append(more[-1]._replace(path="/elsewhere/lib39.so"))
        more.append(one._replace(path="/lib/lib38.so (deleted)"))
        stats = real._replace(regions=(*real.regions, *more))
        pyhugetext.stats = lambda: stats
        registry = CollectorRegistry()
        metrics.register(registry)
        out = {}
        for family in registry.collect():
            for sample in family.samples:
                if family.name == "pyhugetext_coverable_bytes":
                    out[sample.labels["object"], sample.labels["backing"]] = sample.value
        total = sum(region.coverable_bytes for region in stats.regions)
        print(json.dumps([sorted(out), sum(out.values()) == total, out["lib39.so", "store"]]))
    """
    series, complete, twice = json.loads(python(code).stdout)
    assert len({name for name, _ in series}) == 33
    assert ["(other)", "store"] in series
    assert ["(other)", "none"] in series
    assert ["lib8.so", "store"] in series
    assert ["lib7.so", "store"] not in series
    assert not [name for name, _ in series if "deleted" in name]
    assert twice == 2 * (40 << 40)
    assert complete


def test_a_name_of_any_bytes_is_exposed(
    python: Run, compile_library: Library, tmp_path: Path
) -> None:
    library = make_library(compile_library)
    strange = tmp_path / 'x"\\\n\udcff{}.so'
    library.rename(strange)
    families, _ = scrape(python, f"import ctypes; ctypes.CDLL({str(strange)!r})")
    names = {s.labels["object"] for s in families["pyhugetext_text_bytes"].samples}
    assert any("\\xff{}.so" in name for name in names), names


def test_registering_reads_nothing_and_twice_is_told(python: Run) -> None:
    code = """
        import pyhugetext, pyhugetext.metrics
        def stats():
            raise AssertionError("called")
        pyhugetext.stats = stats
        collector = pyhugetext.metrics.register()
        try:
            pyhugetext.metrics.register()
        except ValueError as error:
            print("pyhugetext_text_bytes" in str(error))
        from prometheus_client import REGISTRY
        REGISTRY.unregister(collector)
        pyhugetext.metrics.register()
        pyhugetext.metrics.update()
        pyhugetext.metrics.update_every(60)
        import threading
        print(threading.active_count())
    """
    assert python(code).stdout.split() == ["True", "1"]


@pytest.mark.parametrize("seconds", ["0", "-1", "float('nan')", "float('inf')"])
def test_an_interval_must_be_above_0(python: Run, seconds: str) -> None:
    code = f"""
        import pyhugetext.metrics
        try:
            pyhugetext.metrics.update_every({seconds})
        except ValueError as error:
            print(error)
    """
    assert "is no interval" in python(code).stdout


def test_costs_nothing_where_it_is_not_imported(python: Run) -> None:
    code = """
        import sys, pyhugetext
        pyhugetext.stats(); pyhugetext.remap()
        print([name for name in sys.modules if "prometheus" in name or "metrics" in name])
    """
    assert python(code).stdout.strip() == "[]"


def test_without_prometheus_client_the_error_says_what_to_install(python: Run) -> None:
    code = """
        import sys
        sys.modules["prometheus_client"] = None
        try:
            import pyhugetext.metrics
        except ImportError as error:
            print(error)
    """
    assert "pip install 'pyhugetext[metrics]'" in python(code).stdout
