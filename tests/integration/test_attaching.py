"""Tools that attach see a static, a shared and a PIE Python that run from the store as they see one
that runs without us, where the table of docs/tools.md says so. All of the table: `make tools`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import attaching as attaching
from support.common import ROOT, tool

PAGE = ROOT / "docs" / "tools.md"
# test_tools.py has perf; the others are not among what is installed for the tests.
QUICK = ("gdb", "eu-stack", "py-spy", "py-spy --native")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[attaching.Workplace]:
    path = tmp_path_factory.mktemp("attaching")
    yield attaching.Workplace.make(path, tool("cc", "gcc", "clang"))
    shutil.rmtree(path, ignore_errors=True)  # pytest keeps the directories of its last runs


@pytest.fixture(scope="module")
def rows(
    request: pytest.FixtureRequest, place: attaching.Workplace
) -> dict[str, attaching.Measured]:
    """What each tool says of a Python of one kind."""
    return ask(place, request.param, "store")


def ask(place: attaching.Workplace, kind: str, backing: str) -> dict[str, attaching.Measured]:
    python = attaching.build(kind, place.path, tool("cc", "gcc", "clang"))
    if isinstance(python, str):
        pytest.skip(python)
    tools = {}
    places = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    for one in attaching.TOOLS:
        path = shutil.which(one.command[0], path=places)
        if path and one.name in QUICK:
            tools[one.name] = path
    measured = attaching.measure(place, kind, python, tools, backings=(backing,))
    return {row.tool: row for row in measured}


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("rows", attaching.KINDS, indirect=True)
def test_tool_sees_a_python_on_the_store(rows: dict[str, attaching.Measured], name: str) -> None:
    if name not in rows:
        pytest.skip(f"{name} is not installed")
    row = rows[name]
    if row.skipped:
        pytest.skip(f"{name}: {row.skipped}")
    if row.cells["store"] == "not covered":
        pytest.skip("the file system of the temporary directory gives no huge pages to files")
    assert not row.unexpected(), row.output


def test_tools_see_a_copy_that_was_deleted_as_a_memfd(place: attaching.Workplace) -> None:
    for row in ask(place, attaching.kind_of_this(), attaching.GONE).values():
        if "not covered" in row.cells.values():
            pytest.skip("the file system of the temporary directory gives no huge pages to files")
        assert row.skipped or not row.unexpected(), row.output


def test_page_has_the_table() -> None:
    assert attaching.table() in PAGE.read_text()
