"""The documents say what is so: links lead somewhere, tables have what the sources have."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

import pyhugetext
from pyhugetext._stats.kernel import Kernel
from pyhugetext._stats.model import Region, Stats
from support import documents
from support.common import ROOT
from support.facts import VARIABLES

DOCS = ROOT / "docs"
ASSETS = DOCS / "assets"


def tables(page: str) -> list[str]:
    """The names in code at the beginning of the rows."""
    first = re.findall(r"^\| (`[^|]+`) \|", (DOCS / page).read_text(), re.MULTILINE)
    return [name for cell in first for name in re.findall(r"`([^`]+)`", cell)]


def test_readme_is_a_page_that_begins_with_demo_and_test() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    commands = [
        line.split("#")[0].strip() for line in re.findall(r"^    (.+)$", text, re.MULTILINE)
    ]
    assert commands[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in documents.links(page):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = (page.parent / target).resolve() if target else page
        known = path.suffix == ".md" and path.exists() and documents.anchors(path)
        if not path.exists() or (known and anchor and anchor not in known):
            broken.append(link)
    assert broken == []


def test_every_page_has_its_place_in_the_site() -> None:
    navigation = set(
        re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    )
    assert {page.name for page in DOCS.glob("*.md")} <= navigation


def test_settings_are_those_of_the_native_part() -> None:
    named = [name for name in tables("settings.md") if name.startswith("PYHUGETEXT")]
    assert sorted(named) == sorted(VARIABLES)


def test_no_document_names_a_setting_that_is_none() -> None:
    known = {*VARIABLES, "PYHUGETEXT_"}
    for page in documents.PAGES:
        # What is of the past, and what builds of the package ask for.
        if page.name not in ("CHANGELOG.md", "CONTRIBUTING.md"):
            named = set(re.findall(r"\bPYHUGETEXT(?:_[A-Z_]+)?\b", page.read_text()))
            assert named <= known, page.name


def test_api_has_every_name_and_signature() -> None:
    text = (DOCS / "api.md").read_text()
    for name in pyhugetext.__all__:
        assert f"`pyhugetext.{name}" in text or f"## `{name}`" in text, name
    for function in (pyhugetext.stats, pyhugetext.remap, pyhugetext.restore):
        signature = inspect.signature(function)
        plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        arguments = str(signature.replace(parameters=plain, return_annotation=signature.empty))
        assert f"### `pyhugetext.{function.__name__}{arguments} -> Stats`" in text


def test_api_has_every_field() -> None:
    named = tables("api.md")
    for kind in (Stats, Region, Kernel):
        assert set(kind._fields) <= set(named), kind.__name__
    known = {*Stats._fields, *Region._fields, *Kernel._fields, "backing", "include", "exclude"}
    assert set(named) <= known


def exported() -> set[str]:
    """The names of the metrics, as they are scraped."""
    metrics = pytest.importorskip("pyhugetext.metrics", reason="prometheus-client is not installed")
    return {gauge.name for gauge in metrics._GAUGES} | {f"{metrics._REMAP}_total"}


def test_metrics_are_those_of_the_exporter() -> None:
    named = {name for name in tables("metrics.md") if name.startswith("pyhugetext_")}
    assert named == exported()


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yml"])
def test_dashboard_and_alerts_ask_for_metrics_that_there_are(file: str) -> None:
    text = (ASSETS / file).read_text()
    if file.endswith(".json"):
        panels = json.loads(text)["panels"]
        text = "\n".join(target["expr"] for panel in panels for target in panel["targets"])
    else:
        text = "\n".join(re.findall(r"expr: (.+)", text))
    asked = set(re.findall(r"\bpyhugetext_\w+", text))
    assert asked
    assert asked <= exported()


def test_alerts_are_valid_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    done = subprocess.run(
        [promtool, "check", "rules", ASSETS / "alerts.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("drawing", sorted(ASSETS.glob("*.svg")), ids=lambda path: path.name)
def test_drawings_are_legible_in_the_dark_and_say_what_they_show(drawing: Path) -> None:
    root = ElementTree.parse(drawing).getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title")
    assert "prefers-color-scheme: dark" in (root.findtext(f"{space}style") or "")
    text = drawing.read_text()
    assert "<script" not in text
    assert "href" not in text


def test_commands_of_the_documents_are_found() -> None:
    found = [command for page in documents.PAGES for command in documents.commands(page)]
    assert len(found) > 20
    assert sum(command.quick for command in found) > 8


def test_output_is_compared_but_for_figures() -> None:
    assert documents.looks_like(("total 5,216 KiB", "..."), "a\ntotal   12 KiB\nb")
    assert not documents.looks_like(("first", "second"), "second\nfirst")
    assert not documents.looks_like(("False",), "True")
