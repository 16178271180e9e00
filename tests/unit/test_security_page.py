"""SECURITY.md names the tests that show each defence: they exist."""

from __future__ import annotations

import ast
import re

from support.common import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
# Nobody is kept from that.
UNTESTED = "Whoever may write to site-packages"


def test_every_test_that_is_named_exists():
    named = re.findall(r"`(tests/[\w/]+\.(?:py|cpp))(?:::(\w+))?`", TEXT)
    assert len(named) > 40
    for file, function in named:
        path = ROOT / file
        assert path.is_file(), file
        if not function:
            continue
        names = {
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        assert function in names, f"{file} has no {function}"


def test_every_threat_names_a_test():
    threats = re.split(r"^### ", TEXT.split("## What holds throughout")[0], flags=re.M)[1:]
    assert len(threats) > 12
    for threat in threats:
        title = threat.splitlines()[0]
        assert "`tests/" in threat or title.startswith(UNTESTED), title
