"""The page in a real browser: nothing to complain of, readable on a phone, in the dark, on paper."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyhugetext.cli.processes import Unread
from pyhugetext.cli.reporting import (
    benchfile,
    benchpage,
    comparepage,
    drawing,
    machinepage,
    page,
)
from pyhugetext.cli.reporting.machine import build
from support.browser import Browser, browser
from support.cli import Cli, Library, make_library, make_module
from support.report import close, document, measurement, region, report, stats

SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it: long names, many objects, reasons, measurements."""
    long = "_an_extension_module_with_a_long_name.cpython-311-x86_64-linux-gnu.so"
    objects = [
        region("/usr/bin/python3.11", 2),
        region("/site-packages/torch/lib/libtorch_cpu.so", 162, 120, reason="modified in memory"),
        region(f"/site-packages/package/{long}", 3, 0, reason="r" * 150),
        *(region(f"/lib/lib{i}.so", 1 + i) for i in range(12)),
        *(region(f"/lib/small{i}.so", 0, reason="too small") for i in range(60)),
    ]
    found = stats(*objects, problems=("PYHUGETEXT_" + "X" * 120 + " is not known",))
    benches = [benchfile._bench(document(effect), "bench.json") for effect in (0.93, 1.0)]
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page.page(report(found, *benches)))
    path.with_suffix(".svg").write_text(drawing.alone(report(found)))
    before = stats(*(one._replace(mapped_bytes=0, swapped_bytes=0) for one in objects[1:]))
    names = ("in process 123456", "in process 1234567")
    pair = comparepage.Pair(report(before), report(found), names)
    path.with_name("compared.html").write_text(comparepage.page(pair, benches, "1.2.3", "now"))
    all_of_them = [close(found, 4242 + i, loaded=i % 3 > 0) for i in range(40)]
    unread = [Unread(1, "process 1: " + "w" * 100, "another user's; root may read it", False)]
    machine = build(all_of_them, unread)
    path.with_name("machine.html").write_text(machinepage.page(machine, "Linux", "1.2.3", "now"))
    told = "hardly a gain is to be expected: it touches 688.0 KiB of text"
    measured = replace(
        measurement(0.93),
        settings={"name": "a_name_" * 30, "stmt": "x", "looks": 3, "ended": "narrow"},
        machine={"processor": "AMD EPYC", "kernel": "6.18.0", "executable": "/long" * 30},
        counters={"iTLB misses": {"unavailable": "ENOENT (no such counter)"}},
        expectation={"word": "unlikely", "sentence": told},
    )
    path.with_name("bench.html").write_text(benchpage.page(measured, "1.2.3", "now"))
    return path


PAGES = ("page.html", "compared.html", "machine.html", "bench.html")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_browser_has_no_complaints_and_loads_nothing(
    chromium: Browser, example: Path, scheme: str
) -> None:
    for path in (example.with_suffix(".svg"), *(example.with_name(name) for name in PAGES)):
        chromium.open(path, scheme=scheme)
        assert chromium.complaints() == []
        assert chromium.requests() == [path.as_uri()]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_is_wider_than_the_screen(
    chromium: Browser, example: Path, width: int, name: str
) -> None:
    chromium.open(example.with_name(name), width)
    chromium.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    # Neither is anything cut off: what is too wide scrolls in a box of its own.
    cut = """
        [...document.querySelectorAll("body *")].filter(element => {
            const box = element.getBoundingClientRect();
            return box.right > innerWidth + 0.5 && !element.closest(".box");
        }).map(element => element.outerHTML.slice(0, 80))
    """
    assert chromium.evaluate(cut) == []


@pytest.mark.parametrize("name", PAGES)
def test_wide_tables_scroll_with_the_keyboard(chromium: Browser, example: Path, name: str) -> None:
    chromium.open(example.with_name(name), 360)
    boxes = """
        [...document.querySelectorAll(".box")].map(
            box => [box.tabIndex, box.getAttribute("role"), box.getAttribute("aria-label") !== ""])
    """
    assert chromium.evaluate(boxes)
    assert all(box == [0, "region", True] for box in chromium.evaluate(boxes))


# Texts against the colour behind them, WCAG 2's contrast.
CONTRAST = """
    (() => {
        const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
        const rgb = colour => {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data];
        };
        const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = element => {
            for (; element; element = element.parentElement) {
                const colour = rgb(getComputedStyle(element).backgroundColor);
                if (colour[3]) return colour;
            }
            return [255, 255, 255];
        };
        const out = [];
        const compare = (element, colour, least) => {
            const [a, b] = [luminance(rgb(colour)), luminance(behind(element))].sort((x, y) => y - x);
            const ratio = (a + 0.05) / (b + 0.05);
            if (ratio < least) out.push(`${element.outerHTML.slice(0, 80)} ${ratio.toFixed(2)}`);
        };
        let texts = 0;
        for (const element of document.body.querySelectorAll("*")) {
            const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
            const style = getComputedStyle(element);
            if (own && element.closest("svg") === null) { compare(element, style.color, 4.5); texts++; }
            else if (element.tagName === "text") { compare(element, style.fill, 4.5); texts++; }
            else if (element.matches(".full, .covered, .missed")) compare(element, style.fill, 3);
            else if (element.matches(".frame, .interval")) compare(element, style.stroke, 3);
        }
        return [texts, out];
    })()
"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_have_contrast(chromium: Browser, example: Path, scheme: str, name: str) -> None:
    chromium.open(example.with_name(name), scheme=scheme)
    texts, weak = chromium.evaluate(CONTRAST)
    assert texts > 50
    assert weak == []


def test_light_and_dark_differ(chromium: Browser, example: Path) -> None:
    for path, what in (
        (example, "getComputedStyle(document.body).backgroundColor"),
        (
            example.with_suffix(".svg"),
            "getComputedStyle(document.querySelector('.ground')).fill",
        ),
    ):
        seen = []
        for scheme in SCHEMES:
            chromium.open(path, scheme=scheme)
            seen.append(chromium.evaluate(what))
        assert len(set(seen)) == 2, seen


def test_squares_differ_by_more_than_their_colour(chromium: Browser, example: Path) -> None:
    """Each way of drawing is its own on a screen without colours, too."""
    chromium.open(example)
    fills = """
        ["full", "frame", "lines"].map(name => {
            const path = document.querySelector(`svg.cells .${name}`);
            const style = getComputedStyle(path);
            return [style.fill === "none", path.getAttribute("d").length > 0];
        })
    """
    assert chromium.evaluate(fills) == [[False, True], [True, True], [True, True]]
    titles = "[...document.querySelectorAll('svg[role=img]')].every(s => s.querySelector('title'))"
    assert chromium.evaluate(titles)


def test_it_prints_on_white(chromium: Browser, example: Path) -> None:
    chromium.open(example, 680, scheme="dark")  # A4 with margins
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    chromium.call("Emulation.setEmulatedMedia", media="print", features=dark)
    ground = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    ink = chromium.evaluate("getComputedStyle(document.querySelector('h1')).color")
    assert ink == "rgb(0, 0, 0)"
    blue = chromium.evaluate("getComputedStyle(document.querySelector('.c1 .full')).fill")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 680
    pdf = base64.b64decode(chromium.call("Page.printToPDF", printBackground=False)["data"])
    chromium.call("Emulation.setEmulatedMedia", media="")
    assert pdf.startswith(b"%PDF")
    assert blue == "rgb(43, 105, 177)"


def test_a_hostile_library_of_a_real_process_does_nothing(
    chromium: Browser, compile_library: Library, tmp_path: Path
) -> None:
    cli = Cli(tmp_path / "store")
    name = "<img src=x onerror='document.title=1'><script>document.title=2<"
    directory = tmp_path / name
    directory.mkdir()
    hostile = directory / "script>&\"'.so"
    os.rename(make_library(compile_library), hostile)
    make_module(tmp_path, "hostile", hostile)
    out = tmp_path / "page.html"
    result = cli(
        "report",
        "-m",
        "hostile",
        str(out),
        PYTHONPATH=str(tmp_path),
        PYHUGETEXT_BACKING="thp",
        PYHUGETEXT="1",
    )
    assert result.returncode == 0, result.stderr
    content = out.read_text()
    assert "<script" not in content
    assert "<img" not in content
    chromium.open(out)
    assert chromium.evaluate("document.title").endswith("with hostile imported")
    assert chromium.evaluate("document.querySelectorAll('script, img').length") == 0
    shown = chromium.evaluate(
        "[...document.querySelectorAll('.label b')].map(element => element.textContent)"
    )
    assert hostile.name in shown
    titles = chromium.evaluate("[...document.querySelectorAll('[title]')].map(e => e.title)")
    assert str(hostile) in titles
    assert chromium.complaints() == []


def test_the_policy_stops_what_should_have_slipped_through(
    chromium: Browser, example: Path, tmp_path: Path
) -> None:
    """Were anything not escaped, the browser would still not run or load it."""
    evil = tmp_path / "evil.html"
    inserted = (
        "<script>document.title='run'</script><p style='color: red' id=evil>x</p>"
        "<img src='http://127.0.0.1:9/x' onerror=\"document.title='run'\">"
    )
    evil.write_text(example.read_text().replace("<h1>", inserted + "<h1>"))
    chromium.open(evil)
    assert chromium.evaluate("document.title") != "run"
    colour = chromium.evaluate("getComputedStyle(document.getElementById('evil')).color")
    assert colour != "rgb(255, 0, 0)"
    assert chromium.complaints() != []
