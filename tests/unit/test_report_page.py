"""The page and the map of a report: well-formed whatever is on them, nothing loaded, no figures
that are not so."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhugetext._stats.model import Stats
from pyhugetext.cli import text
from pyhugetext.cli.reporting import benchfile, chart, drawing, model, page, words
from pyhugetext.measure.statistics import Ratio
from support.report import (
    HUGE,
    Cell,
    Page,
    document,
    region,
    report,
    stats,
)

HOSTILE = "/lib/</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&--><b>.so"


def bench() -> benchfile.Bench:
    return benchfile._bench(document(), "bench.json")


@pytest.fixture
def found() -> Stats:
    return stats(
        region("/usr/bin/python3.11", 2),
        region("/lib/libbig.so", 40, 30, reason="2 MiB at 0x7f1234560000: modified in memory"),
        region("/lib/libsmall.so", 0, reason="too small"),
    )


def test_the_page_says_what_stats_say(found: Stats) -> None:
    read = Page(page.page(report(found)))
    assert read.text("h1") == ["76 % of the coverable text is on huge pages"]
    figures = read.text("dt", "dd")
    for name, size in (
        ("Machine code", found.text_bytes),
        ("Coverable", found.coverable_bytes),
        ("On huge pages", found.mapped_bytes),
        ("Private memory", 0),
    ):
        assert figures[figures.index(name) + 1] == text.size(size)
    cells = read.text("td", "th", "span")
    assert "libbig.so" in cells
    assert "75 %" in cells
    assert "Modified in memory" not in cells


def test_nothing_is_loaded_and_nothing_runs(found: Stats) -> None:
    content = page.page(report(found, bench()))
    read = Page(content)
    for tag, name, value in read.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "href", "style", "action", "srcdoc", "xlink:href"), (tag, name)
        assert "javascript:" not in value
        assert "url(" not in value
    (style,) = re.findall(r"<style>(.*?)</style>", content, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in content.replace('http-equiv="Content-Security-Policy"', "")
    (policy,) = [v for t, n, v in read.attributes if n == "content" and "default-src" in v]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy


def test_addresses_are_not_told(found: Stats) -> None:
    """Whoever gets the page learns nothing that helps to attack the process."""
    told = found._replace(reason="/lib/x.so: 2 MiB at 0x7f1234560000: modified", active=False)
    for shown in (found, told):
        for content in (page.page(report(shown)), drawing.alone(report(shown))):
            assert "0x7f" not in content
            assert str(found.regions[0].start) not in content
            assert f"{found.regions[0].start:x}" not in content


def test_a_hostile_name_is_shown_and_does_nothing() -> None:
    found = stats(
        region(HOSTILE, 2, reason=HOSTILE, fallbacks=(HOSTILE,), backing=HOSTILE),
        region(HOSTILE + "2", 0, reason=HOSTILE),
        problems=(HOSTILE,),
        kernel=stats().kernel._replace(release=HOSTILE, thp_enabled=HOSTILE),
    )
    shown = report(found, replace(bench(), title=HOSTILE, sentence=HOSTILE), name=HOSTILE)
    read = Page(page.page(shown))  # fails for any element that is not the page's
    assert HOSTILE in read.text("b")
    assert HOSTILE in read.text("code")
    assert model.name_of(HOSTILE) in read.text("span")
    tree = ET.fromstring(drawing.alone(shown))
    assert HOSTILE in [element.text for element in tree.iter()]
    assert {element.tag.partition("}")[2] for element in tree.iter()} <= {
        *("svg", "title", "desc", "style", "rect", "text", "g", "path"),
    }


_ANY = st.text(st.characters(), max_size=40)


@settings(max_examples=60)
@given(path=_ANY, reason=_ANY, name=_ANY)
def test_any_text_is_escaped(path: str, reason: str, name: str) -> None:
    found = stats(region("/x/" + path, 2, reason=reason), region(path, 0), problems=(name,))
    shown = report(found, name=name)
    content = page.page(shown)
    content.encode("utf-8")
    read = Page(content)
    (seen,) = [t for tag, t in read.texts if tag == "title" and "is on huge pages" in t]
    assert seen.endswith(text.printable(name))
    drawn = drawing.alone(shown)
    ET.fromstring(drawn.encode("utf-8"))
    assert all(c.isprintable() or c == "\n" for c in drawn)


def test_a_square_for_each_2_mib_by_state() -> None:
    cells = [
        Cell(0x400000, "/lib/a.so", HUGE, "huge"),
        Cell(0x600000, "/lib/a.so", 0, "huge"),
        Cell(0x800000, "/lib/a.so", 0, "mixed"),
        Cell(0xA00000, "/lib/a.so", 0, "small"),
        Cell(0x200000, "/lib/b.so", HUGE, "huge"),
        Cell(0xC00000, "/lib/tiny.so", 0, "small"),
    ]
    found = stats(region("/lib/a.so", 4), region("/lib/b.so", 1), region("/lib/tiny.so", 0))
    shown = report(found, cells=cells)
    assert [block.name for block in shown.blocks] == ["b.so", "a.so"]  # by address
    assert shown.blocks[1].cells == (model.HUGE, model.WAITING, model.MIXED, model.SMALL)
    assert shown.small_cells == (model.SMALL,)
    squares = drawing.cells(shown.blocks[1].cells)
    tree = ET.fromstring(f"<svg>{squares}</svg>")
    paths = {path.get("class"): path.get("d", "") for path in tree}
    assert paths["full"].count("M") == 2  # one whole, half of another
    assert paths["pale"].count("M") == 1
    assert paths["frame"].count("M") == 3
    told = Page(page.page(shown)).text("title")
    assert any(all(meaning in one for meaning in model.STATES.values()) for one in told)


def test_squares_are_drawn_within_the_picture() -> None:
    for count in (1, drawing.COLUMNS, drawing.COLUMNS + 1, 1000):
        picture = ET.fromstring(drawing.picture(["huge"] * count, 1))
        _, _, width, height = map(float, picture.get("viewBox", "").split())
        (path,) = picture.iter("path")
        starts = re.findall(r"M(\d+) (\d+)h10", path.get("d", ""))
        assert len(starts) == count
        assert max(int(x) + 10 for x, _ in starts) <= width
        assert max(int(y) + 10 for _, y in starts) == height


def test_the_largest_objects_and_the_program_have_a_colour_each() -> None:
    objects = [region(f"/lib/lib{i}.so", i + 2) for i in range(12)]
    shown = report(stats(region("/usr/bin/python3.11", 1), *objects))
    colours = {block.name: block.colour for block in shown.blocks}
    assert sorted(colours.values()) == [0] * 5 + list(range(1, 9))
    assert colours["python3.11"]
    assert colours["lib11.so"] == 1
    assert not colours["lib0.so"]


def test_a_process_of_many_objects_makes_a_small_page() -> None:
    objects = [
        region(f"/site-packages/package/_module{i}.cpython-311-x86_64-linux-gnu.so", pages)
        for i, pages in enumerate([4000, *[10] * 100, *[0] * 1000])
    ]
    content = page.page(report(stats(*objects), bench()))
    assert len(content.encode()) < 300 << 10
    assert len(drawing.alone(report(stats(*objects))).encode()) < 300 << 10


def test_a_process_without_coverable_text_or_mappings_has_a_page() -> None:
    for found in (stats(), stats(region("/lib/a.so", 0), reason="it does not run Python")):
        shown = report(found)
        assert Page(page.page(shown)).text("h1") == ["No text of this process fills a 2 MiB page"]
        ET.fromstring(drawing.alone(shown))
    assert "it does not run Python" in page.page(shown)


@given(whole=st.integers(1, 1 << 50), data=st.data())
def test_a_share_is_never_rounded_up(whole: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, whole))
    shown = float(model.percent(part, whole).removesuffix(" %"))
    assert shown <= 100 * part / whole * (1 + 1e-12)
    assert (shown == 100) == (part == whole)
    assert model.percent(0, 0) == ""


def test_the_sentence_says_what_it_costs(found: Stats) -> None:
    assert "no memory of the process's own" in words.explanation(report(found))
    costs = stats(region("/lib/a.so", 4, backing="memfd", private_bytes=4 * HUGE))
    told = words.explanation(report(costs))
    assert "8.0 MiB of memory that no other process shares" in told
    assert "more comes in" not in told
    waits = [Cell(HUGE, "/lib/a.so", HUGE, "huge"), Cell(2 * HUGE, "/lib/a.so", 0, "huge")]
    assert "more comes in" in words.explanation(report(costs, cells=waits))


def test_a_measurement_is_shown_with_its_control(found: Stats) -> None:
    one = bench()
    read = Page(page.page(report(found, one)))
    assert any(h.startswith("Faster by") for h in read.text("h3"))
    cells = read.text("td")
    assert one.control is not None
    for ratio in (one.effect, one.control):
        for value in (ratio.median, ratio.low, ratio.high):
            assert f"{value:.4f}" in cells
    assert "sorted(data)" in read.text("code")


def _ratio(values: list[float]) -> Ratio:
    return Ratio(sorted(values)[len(values) // 2], min(values), max(values), len(values))


_RATIOS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=80) | st.lists(
    st.floats(0.9, 1.1), min_size=1, max_size=400
)


@settings(max_examples=100)
@given(effect=_RATIOS, control=st.none() | _RATIOS)
def test_a_distribution_is_drawn_within_its_picture(
    effect: list[float], control: list[float] | None
) -> None:
    one = benchfile.Bench(
        title="x",
        sentence="no difference shown",
        effect=_ratio(effect),
        control=None if control is None else _ratio(control),
        effect_ratios=tuple(effect),
        control_ratios=tuple(control or ()),
    )
    picture = ET.fromstring(chart.chart(one))
    _, _, width, height = map(float, picture.get("viewBox", "").split())
    for element in picture.iter():
        for name in ("x", "y", "cx", "cy"):
            value = float(element.get(name, "0"))
            assert math.isfinite(value)
            assert 0 <= value <= (width if "x" in name else height)
        for x, y in re.findall(r"M(-?[\d.]+) (-?[\d.]+)", element.get("d", "")):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height
    bars = [p for p in picture.iter("path") if p.get("class") == "bars"]
    assert len(bars) == 1 + (control is not None)
    numbers = [t.text for t in picture.iter("text") if t.get("class") == "number"]
    assert 2 <= len(numbers) <= 7
    assert len(set(numbers)) == len(numbers)
    assert 0 <= chart.outside(one) <= len(one.effect_ratios) + len(one.control_ratios)
