"""pyhugetext report of two processes, of two files, and of all processes of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import Cli, assert_one_sentence, make_module, started
from support.report import Page

REMAPPED = {"PYHUGETEXT": "1", "PYHUGETEXT_BACKING": "thp"}
CODE = "import sample, pyhugetext, signal; print(pyhugetext.remap(), flush=True); signal.pause()"


@pytest.fixture
def modules(tmp_path: Path, library: Path) -> dict[str, str]:
    make_module(tmp_path, "sample", library)
    return {"PYTHONPATH": str(tmp_path)}


def sleeper(cli: Cli, code: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """A process that has told something and sleeps; for `with started(...)`."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=cli.environment(**env), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.fixture
def two(cli: Cli, modules: dict[str, str]) -> tuple[int, int]:
    """A process without the package, and one that was remapped."""
    plain = CODE.replace("pyhugetext.remap()", "1").replace(", pyhugetext", "")
    processes = [
        sleeper(cli, plain, {**modules, "PYHUGETEXT": "0"}),
        sleeper(cli, CODE, {**modules, **REMAPPED}),
    ]
    yield processes[0].pid, processes[1].pid
    for process in processes:
        process.kill()
        process.communicate()


def test_two_running_processes_are_shown_side_by_side(
    cli: Cli, tmp_path: Path, two: tuple[int, int], library: Path
) -> None:
    out = tmp_path / "page.html"
    told = cli.json("report", "--pid", str(two[0]), "--pid", str(two[1]), str(out))
    assert [side["process"]["pid"] for side in told["sides"]] == list(two)
    (one,) = [one for one in told["objects"] if one["path"] == str(library)]
    left, right = one["sides"]
    assert left["mapped_bytes"] == 0 < right["mapped_bytes"]
    assert left["coverable_bytes"] == right["coverable_bytes"]
    sizes = [side["stats"]["mapped_bytes"] for side in told["sides"]]
    assert told["difference"]["mapped_bytes"] == sizes[1] - sizes[0]
    read = Page(out.read_text())
    assert f"In process {two[1]}" in read.text("h2")
    assert library.name in read.text("b")


def test_two_files_are_shown_side_by_side(
    cli: Cli, tmp_path: Path, modules: dict[str, str], library: Path
) -> None:
    files = []
    for name, env in (("before", {"PYHUGETEXT": "0"}), ("after", REMAPPED)):
        files.append(tmp_path / f"{name}.json")
        told = cli.json("report", "-m", "sample", str(tmp_path / "x.html"), **modules, **env)
        files[-1].write_text(json.dumps(told))
    out = tmp_path / "page.html"
    result = cli("report", "--compare", *map(str, files), str(out))
    assert result.returncode == 0, result.stderr
    assert "Coverable text on huge pages: 0 % before," in result.stdout
    assert library.name in Page(out.read_text()).text("b")
    files[1].write_text("{}")
    result = cli("report", "--compare", *map(str, files), str(out))
    assert result.returncode == 1
    assert_one_sentence(result, str(files[1]), "not the JSON of pyhugetext report")


def test_new_processes_are_shown_without_and_with_it(
    cli: Cli, tmp_path: Path, modules: dict[str, str]
) -> None:
    out = tmp_path / "page.html"
    env = {**modules, "PYHUGETEXT_BACKING": "thp"}
    told = cli.json("report", "--without", "-m", "sample", str(out), PYHUGETEXT="1", **env)
    without, with_it = (side["stats"] for side in told["sides"])
    assert not without["active"]
    assert with_it["mapped_bytes"] > without["mapped_bytes"] == 0
    assert Page(out.read_text()).text("h2")[:2] == ["Without pyhugetext", "With it"]


def test_all_python_processes_are_on_one_page(
    cli: Cli, tmp_path: Path, two: tuple[int, int], library: Path
) -> None:
    out = tmp_path / "machine.html"
    secret = [sys.executable, "-c", "import time; time.sleep(60)", "--password=geheim"]
    with started(secret, env=cli.environment()):
        told = cli.json("report", "--all", str(out))
    seen = {one["pid"]: one for one in told["processes"]}
    plain, remapped = (seen[pid] for pid in two)
    assert (plain["loaded"], remapped["loaded"]) == (False, True)
    assert plain["left_bytes"] == plain["coverable_bytes"] > 0
    assert 0 < plain["share_bytes"] <= plain["resident_bytes"]
    (one,) = [one for one in told["objects"] if one["path"] == str(library)]
    assert (one["processes"], one["huge_in"]) == (2, 1)
    assert told["total"]["processes"] == len(seen)
    assert os.getpid() in seen
    content = out.read_text()
    assert "geheim" not in content
    assert "geheim" not in json.dumps(told)
    assert f"{Path(sys.executable).resolve().name} {two[0]}" in Page(content).text("span")


def test_the_manual_names_every_key_of_all_of_them(cli: Cli, tmp_path: Path) -> None:
    manual = cli("report", "--help").stdout
    out = str(tmp_path / "page.html")
    for arguments in (("--all",), ("--without",)):
        told = cli.json("report", *arguments, out)
        for key in (*told, *told.get("total", ()), *told.get("difference", ())):
            assert key in manual, key
