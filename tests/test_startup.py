"""The hook: what happens in a plain python without a line of code."""

from __future__ import annotations

from conftest import HUGE


def test_interpreter_runs_from_huge_pages_without_a_line_of_code(stats_of):
    stats = stats_of()
    assert stats["active"], stats["reason"]
    assert stats["mapped_bytes"] == stats["coverable_bytes"] > 0
    interpreter = max(stats["regions"], key=lambda region: region["coverable_bytes"])
    assert interpreter["status"] == "huge"
    assert interpreter["huge_bytes"] == interpreter["swapped_bytes"] >= HUGE


def test_nothing_is_printed(python):
    result = python("print('hello')")
    assert (result.stdout, result.stderr) == ("hello\n", "")
