"""Two reports side by side, and all Python processes of a machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.cli.commands.report import _document
from pyhugetext.cli.outcome import Failure
from pyhugetext.cli.processes import Unread
from pyhugetext.cli.reporting import comparepage, machine, machinepage, model, reportfile
from support.report import HUGE, Cell, Page, close, region, report, stats

HOSTILE = "/lib/</style></title><script>alert(1)</script>\"'&--><b>.so"
BEFORE = stats(region("/usr/bin/python3.11", 2, 0), region("/lib/libold.so", 4, 4))
AFTER = stats(
    region("/usr/bin/python3.11", 2, 2, backing="memfd", private_bytes=2 * HUGE),
    region("/lib/libnew.so", 8, 6, reason="2 MiB at 0x7f1234560000: modified in memory"),
)


def pair(before: Any = BEFORE, after: Any = AFTER) -> comparepage.Pair:
    return comparepage.Pair(report(before), report(after), ("before", "after"))


def compared(one: comparepage.Pair) -> str:
    return comparepage.page(one, (), "1.2.3", "2026-01-01")


def test_both_sides_are_told_with_the_difference() -> None:
    read = Page(compared(pair()))
    assert read.text("h1") == ["Coverable text on huge pages: 66 % before, 80 % after"]
    cells = read.text("td", "th", "span")
    at = cells.index("On huge pages")
    assert cells[at + 1 : at + 4] == ["8.0 MiB", "16.0 MiB", "+8.0 MiB"]
    at = cells.index("Coverable text")
    assert cells[at + 1 : at + 4] == ["12.0 MiB", "20.0 MiB", "+8.0 MiB"]
    assert {"libold.so", "libnew.so", "python3.11"} <= set(cells)
    assert "after: not loaded" in cells
    assert "\u22128.0 MiB" in cells  # what is gone with libold.so


def test_of_two_alike_nothing_differs() -> None:
    read = Page(compared(pair(AFTER, AFTER)))
    cells = read.text("td")
    assert "same" in cells
    assert not [cell for cell in cells if cell.startswith(("+", "\u2212"))]
    empty = Page(compared(pair(stats(), stats())))
    assert "nothing coverable before, nothing coverable after" in empty.text("h1")[0]


def test_a_file_gives_back_the_report_that_it_was_written_for(tmp_path: Path) -> None:
    cells = [
        Cell(0x7F0000000000 + i * HUGE, "/lib/libnew.so", huge, kind)
        for i, (huge, kind) in enumerate([(0, "huge"), (HUGE, "huge"), (0, "mixed"), (0, "small")])
    ]
    cells.append(Cell(0x400000, "/lib/tiny.so", 0, "small"))
    made = report(AFTER, cells=cells)
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"version": "1.2.3", "taken": made.taken, **_document(made)}))
    back = reportfile.read(str(path))
    assert (back.subject, back.stats, back.taken) == (made.subject, made.stats, made.taken)
    assert back.small_cells == made.small_cells
    (block,) = (one for one in back.blocks if one.name == "libnew.so")
    assert sorted(block.cells) == sorted(model.STATES)
    assert "0x7f" not in compared(comparepage.Pair(back, back, ("a", "b")))


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: d.update(format="pyhugetext-bench-1"), id="format"),
        pytest.param(lambda d: d.pop("stats"), id="no stats"),
        pytest.param(lambda d: d.update(stats=7), id="a number"),
        pytest.param(lambda d: d["stats"].update(text_bytes="9"), id="a word"),
        pytest.param(lambda d: d["stats"].update(text_bytes=-1), id="negative"),
        pytest.param(lambda d: d["stats"].update(text_bytes=10**30), id="huge"),
        pytest.param(lambda d: d["stats"].update(text_bytes=float("nan")), id="NaN"),
        pytest.param(lambda d: d["stats"]["regions"][0].update(path=None), id="no path"),
        pytest.param(lambda d: d["stats"]["regions"][0].update(fallbacks=[1]), id="fallbacks"),
        pytest.param(lambda d: d["stats"]["kernel"].pop("release"), id="no kernel"),
        pytest.param(lambda d: d["stats"]["kernel"].update(hugetlb_total="x"), id="pool"),
        pytest.param(lambda d: d["map"][0]["cells"].update(huge=1 << 40), id="squares"),
        pytest.param(lambda d: d.update(map=[{}]), id="no map"),
        pytest.param(lambda d: d["process"].update(pid="x"), id="pid"),
        pytest.param(lambda d: d.update(taken=[]), id="taken"),
    ],
)
def test_a_report_that_is_none_is_told(tmp_path: Path, change: Change) -> None:
    found = json.loads(json.dumps({"version": "1", "taken": "now", **_document(report(AFTER))}))
    change(found)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(found))
    with pytest.raises(Failure) as told:
        reportfile.read(str(path))
    assert str(told.value).startswith(f"{path}: not the JSON of pyhugetext report")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b"9" * 5000]
)
def test_a_foreign_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(Failure, match="not the JSON of pyhugetext report"):
        reportfile.read(str(path))


# The machine.


def test_the_machine_is_told_with_what_huge_text_would_save() -> None:
    small = stats(region("/usr/bin/python3.11", 2, 0), region("/lib/big.so", 8, 0))
    copy = stats(region("/lib/copied.so", 4, 4, backing="memfd", private_bytes=4 * HUGE))
    found = machine.build(
        [close(AFTER, 1), close(small, 2, loaded=False), close(copy, 3), close(copy, 4)],
        [Unread(9, "process 9 cannot be read", "another user's", False)],
    )
    total = found.total
    assert total["left_bytes"] == (2 + 10) * HUGE
    assert total["page_table_bytes"] == 12 * 4096
    assert total["spare_bytes"] == 4 * HUGE  # one of the two copies
    assert [one.pid for one in found.processes][:2] == [2, 1]
    assert [one.path for one in found.objects][:1] == ["/lib/big.so"]
    read = Page(machinepage.page(found, "Linux 6.18", "1.2.3", "now"))
    assert read.text("h1") == ["4 Python processes, 57 % of their coverable text on huge pages"]
    items = " ".join(read.text("li"))
    assert "24.0 MiB of coverable text run from small pages, in 2 processes" in items
    assert "8.0 MiB are private copies" in items
    assert "In 1 process the package is not loaded" in items
    assert "python3.11 (2)." in items
    assert "Not read: 1 process (another user's)" in items
    told = machine.as_dict(found)
    assert json.loads(json.dumps(told))["total"] == total
    assert [one["loaded"] for one in told["processes"]] == [False, True, True, True]


def test_a_machine_without_python_has_a_page() -> None:
    read = Page(machinepage.page(machine.build([], []), "Linux 6.18", "1.2.3", "now"))
    assert read.text("h1") == ["No Python process was seen"]
    full = machine.build([close(stats(region("/lib/a.so", 4)))], [])
    assert "Nothing: all" in " ".join(Page(machinepage.page(full, "", "", "")).text("p"))


def test_a_hostile_name_does_nothing_and_addresses_are_not_told() -> None:
    evil = stats(region(HOSTILE, 2, 0, reason="2 MiB at 0x7f1234560000: " + HOSTILE))
    evil = evil._replace(reason=f"{HOSTILE}: 2 MiB at 0x7f1234560000", active=False)
    one = close(evil, program=HOSTILE)._replace(user=HOSTILE)
    found = machine.build([one], [Unread(1, HOSTILE, HOSTILE, False)])
    for content in (
        machinepage.page(found, HOSTILE, HOSTILE, HOSTILE),
        compared(comparepage.Pair(report(evil, name=HOSTILE), report(evil), (HOSTILE, HOSTILE))),
    ):
        Page(content)  # fails for any element that is not the page's
        assert "0x7f" not in content
        assert f"{evil.regions[0].start:x}" not in content
