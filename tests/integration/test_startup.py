"""The hook: what happens in a plain python without a line of code."""

from __future__ import annotations

import pytest

from support.common import HUGE

pytestmark = pytest.mark.quick


def test_interpreter_runs_from_huge_pages_without_a_line_of_code(stats_of):
    stats = stats_of()
    assert stats["active"], stats["reason"]
    # Less than PYHUGETEXT_MIN_TEXT of an object is left alone: of a tiny executable that uses a
    # shared libpython, where its data happens to begin in another 2 MiB than its text.
    assert 0 <= stats["coverable_bytes"] - stats["mapped_bytes"] < 256 << 10
    assert stats["mapped_bytes"] > 0
    interpreter = max(stats["regions"], key=lambda region: region["coverable_bytes"])
    assert interpreter["status"] == "huge"
    assert interpreter["huge_bytes"] == interpreter["swapped_bytes"] >= HUGE


def test_nothing_is_printed(python):
    result = python("print('hello')")
    assert (result.stdout, result.stderr) == ("hello\n", "")
