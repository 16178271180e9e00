"""The manual page is made of the help texts, and man(1) has nothing against it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.cli import main
from support.common import ROOT, script


@pytest.fixture(scope="module")
def manual() -> Any:
    return script(ROOT / "docs" / "site" / "manual.py")


@pytest.fixture(scope="module")
def page(manual: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("manual") / "pyhugetext.1"
    path.write_text(manual.page(), "utf-8")
    return path


def shown(page: Path) -> str:
    """As a terminal shows it, in words with one space between."""
    if shutil.which("groff") is None:
        pytest.skip("groff (Debian: groff-base) is not installed")
    command = ["groff", "-ww", "-man", "-Tutf8", "-P-cbou", page]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return " ".join(done.stdout.split())


def test_it_has_every_command_option_and_section(page: Path) -> None:
    text = page.read_text()
    for name, parser in main.make_parsers(main.load())[1].items():
        title = f"PYHUGETEXT {name.upper()}".replace("-", "\\-")
        assert f'.SH "{title}"' in text
        for action in parser._actions:
            for option in action.option_strings[-1:]:
                if option != "--help":
                    assert option.replace("-", "\\-") in text
        sections = re.findall(r"(?m)^(\S.*):$", parser.epilog or "")
        for section in sections:
            assert f'.SS "{section.replace("-", chr(92) + "-")}"' in text


def test_no_help_shows_a_template() -> None:
    """argparse leaves the texts before and behind the options as they are."""
    parser, parsers = main.make_parsers(main.load())
    for one in (parser, *parsers.values()):
        assert "%%" not in one.format_help()


def test_terminals_show_what_the_help_says(page: Path) -> None:
    words = shown(page)
    for parser in main.make_parsers(main.load())[1].values():
        description = " ".join((parser.description or "").split())
        assert description in words


def test_mandoc_has_nothing_against_it(page: Path) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    command = ["mandoc", "-Tlint", "-Wwarning", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_the_same_sources_make_the_same_page(manual: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert manual.page() == manual.page()
    assert '"1970-01-02"' in manual.page()
