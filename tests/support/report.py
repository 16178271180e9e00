"""What the tests of the report share: made-up processes, and a strict reader of HTML."""

from __future__ import annotations

import functools
import json
import random
from html.parser import HTMLParser
from typing import Any

from pyhugetext._stats.kernel import Kernel
from pyhugetext._stats.model import SUMMED, Region, Stats
from pyhugetext.cli.reporting import model
from pyhugetext.cli.reporting.benchfile import Bench
from pyhugetext.measure.measurement import Measurement, Quad

HUGE = 2 << 20

KERNEL = Kernel(
    release="6.18.0",
    thp_enabled="madvise",
    thp_defrag="madvise",
    shmem_enabled="never",
    huge_page_bytes=HUGE,
    hugetlb_total=0,
    hugetlb_free=0,
    max_map_count=65530,
)


class Cell:
    """As process.cells.Cell, which needs the native part."""

    def __init__(self, address: int, path: str, huge_bytes: int, kind: str) -> None:
        self.address = address
        self.path = path
        self.text_bytes = HUGE
        self.huge_bytes = huge_bytes
        self.kind = kind


def region(path: str, pages: int = 4, covered: int | None = None, **fields: Any) -> Region:
    """An object with so many 2 MiB of coverable text; none of it too small to cover."""
    covered = pages if covered is None else covered
    values: dict[str, Any] = {
        "path": path,
        "build_id": "ab12",
        "start": 0x7F0000000000,
        "end": 0x7F0000000000 + pages * HUGE,
        "text_bytes": pages * HUGE or 4096,
        "coverable_bytes": pages * HUGE,
        "mapped_bytes": covered * HUGE,
        "swapped_bytes": covered * HUGE,
        "huge_bytes": covered * HUGE,
        "private_bytes": 0,
        "backing": "store" if covered else "none",
        "status": "huge" if covered == pages else "partial" if covered else "small",
        "reason": None,
        "fallbacks": (),
        "elapsed_ns": 1000,
    }
    return Region(**{**values, **fields})


def stats(*regions: Region, **fields: Any) -> Stats:
    def total(name: str) -> int:
        return sum(getattr(one, name) for one in regions)

    backings = sorted({one.backing for one in regions} - {"none"})
    values: dict[str, Any] = {
        "active": any(one.huge_bytes for one in regions),
        "reason": None,
        "backing": "+".join(backings) or "none",
        "regions": regions,
        **{name: total(name) for name in SUMMED},
        "elapsed_ns": 1_500_000,
        "kernel": KERNEL,
        "problems": (),
    }
    return Stats(**{**values, **fields})


def cells_of(found: Stats) -> list[Cell]:
    """A cell for each 2 MiB, huge as far as the object is covered."""
    out, at = [], 0x7F0000000000
    for one in found.regions:
        count = max(one.coverable_bytes // HUGE, 1)
        covered = one.mapped_bytes // HUGE
        for number in range(count):
            huge = number < covered
            out.append(Cell(at, one.path, HUGE * huge, "huge" if huge else "small"))
            at += HUGE
    return out


def report(
    found: Stats, *benches: Bench, name: str = "python3.11", cells: list[Any] | None = None
) -> model.Report:
    subject = model.Subject(name, "/usr/bin/python3.11", 4242)
    shown = cells_of(found) if cells is None else cells
    return model.build(subject, found, shown, benches, "1.2.3", "2026-01-01 00:00 UTC")


def close(
    found: Stats, pid: int = 4242, *, loaded: bool = True, program: str = "python3.11"
) -> Any:
    """A process as the page of a machine shows it."""
    from pyhugetext.cli.processes import Close  # needs the native part
    from pyhugetext.process.inspect import Held

    held = Held(found.text_bytes, found.text_bytes // 2, found.private_bytes)
    return Close(pid, "nobody", program, loaded, found, held)


def measurement(effect: float = 0.93, noise: float = 0.02, quads: int = 40) -> Measurement:
    """One as the switcher makes it, a quad of the control for each of the effect."""
    rng = random.Random(1)

    def quad(kind: str) -> Quad:
        ratio = effect if kind == "effect" else 1.0
        a, b, c, d = (int(4e7 * m * rng.lognormvariate(0, noise)) for m in (1, ratio, ratio, 1))
        return Quad(kind, (a, b, c, d), (a, b, c, d), (a, b, c, d), (0, 0, 0, 0))

    both = [quad(kind) for _ in range(quads) for kind in ("effect", "control")]
    return Measurement("statement", tuple(both), settings={"stmt": "sorted(data)"})


@functools.cache
def _document(effect: float) -> str:
    return json.dumps(measurement(effect).as_dict())


def document(effect: float = 0.93) -> dict[str, Any]:
    """What `pyhugetext bench --json` printed."""
    found: dict[str, Any] = json.loads(_document(effect))
    return found


_VOID = {"meta"}
# Of HTML and SVG, all that a page is made of. No script, no link, no image, no form.
ELEMENTS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "footer",
        "section",
        "article",
        "div",
        "p",
        "h1",
        "h2",
        "h3",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "b",
        "code",
        "span",
        "table",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "svg",
        "desc",
        "g",
        "path",
        "rect",
        "circle",
        "text",
    ]
)


class Page(HTMLParser):
    """Reads a page, and fails where it is not well-formed or has an element it should not."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []  # element, name, value
        self.texts: list[tuple[str, str]] = []  # element, text
        self.feed(content)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS, tag
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def text(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]
