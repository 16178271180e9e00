"""Reading a measurement for a report: what is none is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhugetext.cli.outcome import Failure
from pyhugetext.cli.reporting import benchfile, page
from support.report import Page, document, report, stats

Change = Callable[[dict[str, Any]], Any]
Factory = pytest.TempPathFactory


def assert_refused(directory: Path, content: bytes) -> None:
    path = directory / "bench.json"
    path.write_bytes(content)
    with pytest.raises(Failure) as told:
        benchfile.read(str(path))
    assert str(told.value).startswith(f"{path}: not the JSON of pyhugetext bench")
    assert len(str(told.value).splitlines()) == 1
    assert told.value.status == 1


def _lap(value: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        document["samples"]["quads"][0]["lap"] = value

    return change


def _quads(value: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        document["samples"]["quads"] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: d.update(format="pyhugetext-bench-9"), id="format"),
        pytest.param(lambda d: d.update(kind="dream"), id="kind"),
        pytest.param(lambda d: d.pop("samples"), id="nothing measured"),
        pytest.param(lambda d: d.update(samples=None), id="null"),
        pytest.param(lambda d: d.update(settings=7), id="settings"),
        pytest.param(_quads([]), id="no quads"),
        pytest.param(_quads({}), id="no list"),
        pytest.param(_quads([[]]), id="no quad"),
        pytest.param(_lap([1, 2, 3]), id="three times"),
        pytest.param(_lap([0, 0, 0, 0]), id="zero"),
        pytest.param(_lap([1, -1, 1, 1]), id="negative"),
        pytest.param(_lap([1, 1e30, 1e30, 1]), id="absurd"),
        pytest.param(_lap([10**400, 1, 1, 1]), id="huge"),
        pytest.param(_lap([1, 10**400, 10**400, 1]), id="huge ratio"),
        pytest.param(_lap([float("nan")] * 4), id="NaN"),
        pytest.param(_lap([float("inf")] * 4), id="Infinity"),
        pytest.param(_lap(["x"] * 4), id="words"),
    ],
)
def test_a_measurement_that_is_none_is_told(tmp_path: Path, change: Change) -> None:
    found = document()
    change(found)
    assert_refused(tmp_path, json.dumps(found).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"null",
        b"\xff\xfe\x00",
        b"\x89PNG\r\n",
        b"[" * 100_000,
        b'{"format": "pyhugetext-bench-1"}',
        b'{"benchmarks": [], "metadata": {}, "version": "1.0"}',
        b"9" * 5000,
    ],
)
def test_a_foreign_file_is_told(tmp_path: Path, content: bytes) -> None:
    assert_refused(tmp_path, content)


@settings(max_examples=60)
@given(data=st.data())
def test_a_truncated_measurement_is_told(tmp_path_factory: Factory, data: st.DataObject) -> None:
    content = json.dumps(document()).encode()
    end = data.draw(st.integers(0, len(content) - 1))
    assert_refused(tmp_path_factory.getbasetemp(), content[:end])


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=150)
@given(data=st.data())
def test_a_measurement_with_anything_in_it_is_read_or_told(
    tmp_path_factory: Factory, data: st.DataObject
) -> None:
    """Any value in any place: a page can be made of what is taken."""
    found = document()
    found["samples"]["quads"] = found["samples"]["quads"][:4]
    places = [found, found["samples"], found["samples"]["quads"][0], found["settings"]]
    place = data.draw(st.sampled_from(places))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(_VALUES)
    path = tmp_path_factory.getbasetemp() / "bench.json"
    path.write_text(json.dumps(found))
    try:
        one = benchfile.read(str(path))
    except Failure as failure:
        told = str(failure)
    else:
        told = one.title
        Page(page.page(report(stats(), one)))
    assert len(told.splitlines()) <= 1


def test_a_file_without_end_is_not_read_to_it() -> None:
    with pytest.raises(Failure, match="larger than any output"):
        benchfile.read("/dev/zero")


def test_the_title_is_what_was_measured() -> None:
    found = document()
    assert benchfile._bench(found, "file").title == "sorted(data)"
    found["settings"] = {"command": ["python", "-m", "json.tool"]}
    assert benchfile._bench(found, "file").title == "python -m json.tool"
    found["settings"] = {"stmt": " " * 7 + "x = 1\n" * 100}
    title = benchfile._bench(found, "file").title
    assert title.startswith("x = 1 x = 1")
    assert len(title) <= 160
    found["settings"] = {"stmt": 7}
    assert benchfile._bench(found, "file").title == "file"
