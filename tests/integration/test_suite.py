"""The benchmark suite: a short run of it, and table, JSON and plot from recorded figures."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.common import ROOT, clean_environment

BENCHMARKS = ROOT / "benchmarks"
SUITE = BENCHMARKS / "suite.py"
sys.path.insert(0, str(BENCHMARKS))

import suite_report  # noqa: E402
import workloads  # noqa: E402


def suite(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SUITE), *map(str, arguments)],
        env=clean_environment(PYHUGETEXT="0"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """A result of the interpreter's loop alone, as short as can be."""
    output = tmp_path_factory.mktemp("results")
    result = suite("--only", "interpreter_loop", "--seconds", "0.6", "--processes", "2",
                   "--output", output)  # fmt: skip
    assert result.returncode == 0, result.stderr
    (path,) = output.glob("*.json")
    return result, path, json.loads(path.read_text())


def test_short_run_tells_ratio_interval_and_control(short_run):
    result, _, document = short_run
    (workload,) = document["workloads"]
    assert workload["skipped"] is None
    assert list(workload["sides"]) == ["auto", "thp", "inward"]
    lines = result.stdout.splitlines()
    for side, found in workload["sides"].items():
        (line,) = (line for line in lines if re.match(rf"interpreter loop +{side} ", line))
        if found.get("skipped"):
            assert found["skipped"] in line
            continue
        for kind in ("effect", "control"):
            ratio = found[kind]
            assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
            assert ratio["median"] == pytest.approx(
                statistics.median(itertools.chain(*found["quads"][kind])), rel=1e-4
            )
            assert ratio["pairs"] == sum(map(len, found["quads"][kind]))
            assert len(found["quads"][kind]) == 2
            assert f"{ratio['median']:.4f}  {ratio['low']:.4f} to {ratio['high']:.4f}" in line
        assert found["text"]["huge_bytes"] > 0
        assert found["iteration_ns"] > 0
    assert any(not found.get("skipped") for found in workload["sides"].values())


def test_sides_differ_in_what_they_cost_and_cover(short_run):
    _, _, document = short_run
    sides = {
        side: found["text"]
        for side, found in document["workloads"][0]["sides"].items()
        if not found.get("skipped")
    }
    if "thp" in sides:
        assert sides["thp"]["private_bytes"] >= sides["thp"]["huge_bytes"] > 0
        assert sides["thp"]["backing"] == "thp"
    if {"thp", "inward"} <= set(sides):
        assert sides["inward"]["mapped_bytes"] <= sides["thp"]["mapped_bytes"]
    if "auto" in sides and sides["auto"]["backing"] in ("file", "store", "shm"):
        assert sides["auto"]["private_bytes"] == 0


def test_result_is_named_after_the_machine_and_not_its_host(short_run):
    _, path, document = short_run
    machine = document["machine"]
    assert path.stem == suite_report.machine_name(machine["processor"], machine["kernel"])
    assert machine["kernel"] == os.uname().release
    if len(os.uname().nodename) > 3:
        assert os.uname().nodename not in path.read_text()


def test_result_can_be_shown_again(short_run, tmp_path):
    result, path, document = short_run
    again = suite("--show", path)
    assert (again.returncode, again.stdout) == (0, result.stdout)
    assert json.loads(suite("--show", path, "--json").stdout) == document


def test_workload_that_needs_what_is_not_installed(tmp_path):
    known = {"torch": "torch_mlp", "django": "django_templates"}
    absent = [module for module in known if importlib.util.find_spec(module) is None]
    if not absent:
        pytest.skip("torch and Django are both installed here")
    module, name = absent[0], known[absent[0]]
    result = suite("--only", name, "--seconds", "0.1", "--json", "--output", tmp_path)
    assert result.returncode == 1
    assert "nothing was measured" in result.stderr
    (workload,) = json.loads(result.stdout)["workloads"]
    assert f"No module named '{module}'" in workload["skipped"]
    assert list(tmp_path.iterdir()) == []


def children(pid: int) -> list[str]:
    """The command lines of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found.append((path / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_interrupted_run_prints_what_there_is_and_writes_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, SUITE, "--only", "interpreter_loop", "--seconds", "60",
         "--output", str(tmp_path)],
        env=clean_environment(PYHUGETEXT="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any("suite_child" in child for child in children(process.pid)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "workload" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [("--only", "nothing"), ("--sides", "auto,both"), ("--seconds", "0"), ("--seconds", "nan"),
     ("--seconds", "soon"), ("--processes", "0"), ("more",)],
)  # fmt: skip
def test_wrong_usage(arguments):
    result = suite(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "another-1"}', "\0"])
def test_showing_what_is_no_result(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_text(content)
    result = suite("--show", path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert suite("--show", tmp_path / "none").returncode == 1


# --- recorded figures ---


def recorded(*medians: float) -> dict[str, Any]:
    """A document with a workload for each median, one that was skipped, and one side that was."""

    def ratio(median: float, width: float, confidence: float) -> dict[str, Any]:
        low, high = median - width, median + width
        return {"median": median, "low": low, "high": high, "pairs": 40, "confidence": confidence}

    def result(median: float, backing: str) -> dict[str, Any]:
        return {
            "effect": ratio(median, 0.01, 0.95),
            "control": ratio(1.0, 0.004, 0.99),
            "verdict": {"word": "faster" if median < 0.99 else "no difference", "sentence": ""},
            "text": {"backing": backing, "huge_bytes": 8 << 20, "private_bytes": 0},
        }

    found = [
        {
            "name": f"work_{i}",
            "title": f"work no. {i}",
            "versions": {},
            "skipped": None,
            "sides": {
                "auto": result(median, "store"),
                "thp": result(median, "thp"),
                "inward": {"skipped": "too small"},
            },
        }
        for i, median in enumerate(medians)
    ]
    left = {"name": "left", "title": "left out", "versions": {}, "skipped": "no wheel", "sides": {}}
    return {
        "format": "pyhugetext-suite-1",
        "machine": {"processor": "A Processor", "kernel": "6.18.1", "python": "3.11.2"},
        "seconds": 1,
        "workloads": [*found, left],
    }


def test_table_has_a_line_for_each_side_and_the_reasons(capsys):
    suite_report.print_table(recorded(0.92, 1.0))
    lines = capsys.readouterr().out.splitlines()
    table = lines[1:]
    assert len(table) == 1 + 2 * 3 + 1
    assert re.search(r"work no. 0 +auto +store +0\.9200 +0\.9100 to 0\.9300 .* faster$", table[1])
    assert re.search(r"work no. 0 +inward .*nothing on huge pages: too small$", table[3])
    assert re.search(r"left out .*skipped: no wheel$", table[-1])
    at = table[0].index("95 % interval")
    for line in (table[1], table[2], table[4], table[5]):
        assert re.match(r"\d\.\d{4} to \d\.\d{4}", line[at:])


@given(st.text(max_size=40), st.text(max_size=20))
def test_machine_name_is_a_plain_file_name(processor, release):
    name = suite_report.machine_name(processor, release)
    assert re.fullmatch(r"[a-z0-9.-]+", name)
    assert not name.startswith((".", "-"))
    assert "linux" in name


@pytest.mark.parametrize(
    ("processor", "name"),
    [
        ("AMD EPYC", "amd-epyc-linux-6.18.1"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c-linux-6.18.1"),
        ("aarch64", "aarch64-linux-6.18.1"),
    ],
)
def test_machine_name(processor, name):
    assert suite_report.machine_name(processor, "6.18.1") == name


def test_plot_shows_each_workload(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pyhugetext[bench])")
    paths = suite_report.plot(recorded(0.92, 0.97, 1.01), tmp_path / "machine-6.18")
    assert [path.name for path in paths] == ["machine-6.18.svg", "machine-6.18.png"]
    words = "".join(ElementTree.parse(paths[0]).getroot().itertext())
    for title in ("work no. 0", "work no. 2", "A Processor", "nothing on huge pages"):
        assert title in words
    assert "left out" not in words
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    # The same figures give the same picture.
    other = suite_report.plot(recorded(0.92, 0.97, 1.01), tmp_path / "again")
    assert other[0].read_text() == paths[0].read_text()


def test_plot_of_nothing(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pyhugetext[bench])")
    assert all(path.exists() for path in suite_report.plot(recorded(), tmp_path / "none"))


@pytest.mark.parametrize("name", workloads.NAMES)
def test_workload_does_the_same_each_time(name, python):
    module = {
        "torch_mlp": "torch", "pandas_groupby": "pandas", "sklearn_forest": "sklearn",
        "arrow_compute": "pyarrow", "sqlalchemy_orm": "sqlalchemy", "django_templates": "django",
        "sqlglot_parse": "sqlglot", "interpreter_loop": "json",
    }[name]  # fmt: skip
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    code = """
        import sys, threading
        sys.path.insert(0, sys.argv[1])
        import workloads
        run = workloads.prepare(sys.argv[2])
        first = repr(run())
        assert all(repr(run()) == first for _ in range(3))
        print(first)
    """
    env = {**workloads.THREADS, "PYHUGETEXT": "0", "PYTHONHASHSEED": "0"}
    outputs = {python(code, str(BENCHMARKS), name, env=env).stdout for _ in range(2)}
    assert len(outputs) == 1
