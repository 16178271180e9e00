"""`pyhugetext bench` says what can be expected, draws what it found, and ends in one line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from support.bench import QUICK
from support.cli import Cli, assert_one_sentence
from support.report import Page

pytestmark = pytest.mark.usefixtures("huge_memfd")

_PAGES = 600
_JUMP = "b" if os.uname().machine == "aarch64" else "jmp"
# A function of so many pages, with one instruction in each.
_WALKER = f"""
__asm__(".text\\n.balign 4096\\n.globl walk\\n.type walk, %function\\nwalk:\\n"
        ".rept {_PAGES - 1}\\n{_JUMP} 1f\\n.balign 4096\\n1:\\n.endr\\nret\\n.size walk, .-walk\\n");
"""


def test_text_that_is_touched_is_counted_page_by_page(compile_library: Any, python: Any) -> None:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this kernel has no /proc/PID/clear_refs")
    library = compile_library(_WALKER, name="libwalker.so")
    code = f"""
        import ctypes, json
        from pyhugetext.measure import expectation
        walk = ctypes.CDLL({str(library)!r}).walk
        walk()
        touched = [expectation._touched(run)[0] for run in (int, walk)]
        print(json.dumps(touched))
    """
    idle, walked = json.loads(python(code, env={"PYHUGETEXT": "0"}).stdout)
    assert walked >= _PAGES * 4096
    assert 0 < idle < walked


def test_only_what_can_be_expected_is_told_when_asked(cli: Cli) -> None:
    result = cli("bench", *QUICK, "--expect", "sum(range(1000))")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    told = cli.json("bench", *QUICK, "--expect", "sum(range(1000))")
    assert set(told) == {"expectation"}
    found = told["expectation"]
    assert found["word"] in ("likely", "possible", "unlikely", "unknown")
    if found["method"] == "sampling":
        assert found["touched_bytes"] > 0
        assert found["reach_bytes"] > 0
    told = cli.json("bench", "--expect", "--", sys.executable, "-c", "1")
    assert told["expectation"]["method"] in ("", "counters")


def test_the_page_has_the_verdict_the_control_and_the_line(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "bench.html"
    hostile = "</title><script>alert(1)</script>"
    options = (*QUICK, "--name", hostile, "--html", str(out))
    told = cli.json("bench", *options, "sum(range(1000))")
    content = out.read_text()
    read = Page(content)
    sentence = told["verdict"]["sentence"]
    assert read.text("h1") == [sentence[:1].upper() + sentence[1:]]
    assert told["line"] in read.text("code")
    assert told["line"].startswith(hostile)
    assert "<script" not in content
    assert "control: 4 KiB / 4 KiB" in read.text("text")
    assert any(told["expectation"]["sentence"] in text for text in read.text("p"))
    result = cli("bench", *QUICK, "--html", "-", "sum(range(1000))")
    assert result.returncode == 0, result.stderr
    Page(result.stdout)


def test_measuring_ends_early_where_enough_is_known(cli: Cli) -> None:
    options = ("--backing", "memfd", "--processes", "8", "--slot", "0.002", "--seconds", "4")
    told = cli.json("bench", *options, "--precision", "50", "sum(range(1000))")
    assert told["settings"]["ended"] == "narrow"
    assert told["settings"]["looks"] == 2
    assert {quad["process"] for quad in told["samples"]["quads"]} == set(range(6))


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--precision", "-1", "1"], 2, "--precision '-1': allowed are 0 to 50 percent"),
        (["--precision", "x", "1"], 2, "--precision 'x'"),
        (["--html", "/no/such/x.html", "1"], 1, "--html /no/such/x.html"),
        (["--html", "/", "1"], 1, "--html /"),
        (["--json", "--html", "-", "1"], 2, "cannot both go to the standard output"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_measured(
    cli: Cli, arguments: list[str], status: int, words: str
) -> None:
    result = cli("bench", "--seconds", "600", *arguments)
    assert result.returncode == status
    assert_one_sentence(result, words)
