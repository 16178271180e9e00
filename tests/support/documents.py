"""The README and the pages of docs: their links, headings, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.common import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]
)

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Command(NamedTuple):
    """A command of a page, which may have several lines, and what the page shows of its output."""

    page: Path
    line: int
    text: str
    shown: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def quick(self) -> bool:
        """Whether it only starts a python or two."""
        return bool(re.match(r"(\w+=\S+ )*python (-S )?-c ", self.text))


def commands(page: Path) -> Iterator[Command]:
    """Those behind a `$ ` in blocks that say ```console. What cannot be run anywhere is ```text."""
    text = page.read_text()
    for block in _FENCE.finditer(text):
        if block[2] != "console":
            continue
        first = text.count("\n", 0, block.start(3)) + 1
        lines = [line[len(block[1]) :] for line in block[3].splitlines()]
        at = 0
        while at < len(lines):
            begun = at
            if not lines[at].startswith("$ "):
                raise AssertionError(f"{page.name}:{first + at}: output without a command")
            command = lines[at][2:]
            at += 1
            while not _whole(command):
                command += "\n" + lines[at]
                at += 1
            shown = []
            while at < len(lines) and not lines[at].startswith("$ "):
                shown.append(lines[at])
                at += 1
            yield Command(page, first + begun, command, tuple(shown))


def _whole(command: str) -> bool:
    """Whether no quotation is open at the end."""
    if command.endswith("\\"):
        return False
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


def looks_like(shown: tuple[str, ...], printed: str) -> bool:
    """Whether the lines shown came in this order, whatever the figures and the spaces between are;
    `...` stands for any lines."""
    rest = iter([_shape(line) for line in printed.splitlines()])
    wanted = [_shape(line) for line in shown if line.strip() and line != "..."]
    return all(any(line == have for have in rest) for line in wanted)


def _shape(line: str) -> str:
    line = re.sub(r"Linux \S+?(?=[,;]|$)", "Linux N", line)
    return " ".join(re.sub(r"[0-9][0-9.,]*", "N", line).split())


def links(page: Path) -> list[str]:
    """Of all kinds; what blocks show is none."""
    return targets(page.read_text())


def targets(text: str) -> list[str]:
    """Where the links and pictures of a page's text lead."""
    return _LINK.findall(_FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub and mkdocs have it."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())
        for heading in headings
    }
