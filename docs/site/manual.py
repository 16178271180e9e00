"""Writes the manual page pyhugetext(1) from the help texts of the command line, in the language of
man(7). Nothing but the sources is needed:

    PYTHONPATH=src python docs/site/manual.py build/pyhugetext.1
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyhugetext
from pyhugetext.cli import main

NAME = "runs the machine code of every Python process from 2 MiB pages"
SEE = (
    "madvise(2), mremap(2), memfd_create(2), proc_pid_smaps(5), perf-stat(1)",
    "https://github.com/pyhugetext/pyhugetext/tree/main/docs",
)
_FIRST_COLUMN = re.compile(r"(\S.*?) {2,}(\S.*)")


def escaped(text: str) -> str:
    """Text that troff prints as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("~", "\\(ti").replace("^", "\\(ha")
    return re.sub(r"(?m)^\.", r"\\&.", text)


def date() -> str:
    """The day of the release, or of the build where nothing says which (SOURCE_DATE_EPOCH)."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def page() -> str:
    modules = main.load()
    parser, parsers = main.make_parsers(modules)
    lines = [
        f'.TH PYHUGETEXT 1 "{date()}" "pyhugetext {pyhugetext.__version__}" "User Commands"',
        ".nh",
        ".SH NAME",
        f"pyhugetext \\- {escaped(NAME)}",
        ".SH SYNOPSIS",
        ".nf",
        *(escaped(usage) for one in (parser, *parsers.values()) for usage in synopsis(one)),
        ".fi",
        ".SH DESCRIPTION",
        *prose(parser.description or ""),
        ".SH COMMANDS",
    ]
    for name, module in modules.items():
        lines += [".TP", f".B {escaped(name)}", escaped(module.SUMMARY)]
    for name, one in parsers.items():
        lines += [f'.SH "{escaped("pyhugetext " + name).upper()}"', *prose(one.description or "")]
        lines += [*options(one), *manual(one.epilog or "")]
    lines += [
        re.sub(r"^\.SS (.*)", lambda title: f".SH {title[1].upper()}", line)
        for line in manual(parser.epilog or "")
    ]
    lines += [".SH SEE ALSO", escaped(SEE[0]), ".PP", escaped(SEE[1])]
    text = "\n".join(lines) + "\n"
    # A paragraph behind a heading needs no sign of its own.
    return re.sub(r"(?m)(^\.S[HS] .*\n)\.PP\n", r"\1", text)


def synopsis(parser: argparse.ArgumentParser) -> list[str]:
    usage = parser.format_usage()[len("usage: ") :]
    lines = [line.strip() for line in usage.splitlines() if line.strip()]
    return [line if line.startswith("pyhugetext") else f"    {line}" for line in lines]


def prose(text: str) -> list[str]:
    """Paragraphs, which troff fills."""
    out = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        out += [".PP", escaped("\n".join(line.strip() for line in paragraph.splitlines()))]
    return out


def options(parser: argparse.ArgumentParser) -> list[str]:
    out: list[str] = []
    formatter = argparse.HelpFormatter(parser.prog)
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                out += [".TP", f".B {escaped(choice.dest)}", escaped(choice.help or "")]
            for name, sub in action.choices.items():
                inner = options(sub)
                if inner:
                    out += [".PP", escaped(f"Options of {name}:"), *inner]
            continue
        head = formatter._format_action_invocation(action)
        out += [".TP", f".B {escaped(head)}", escaped(formatter._expand_help(action))]
    return out


def manual(epilog: str) -> list[str]:
    """What follows the options: sections with a title at the margin, whose lines are terms with a
    text, paragraphs, or examples, which stay as they are."""
    out: list[str] = []
    for title, lines in sections(epilog):
        if title:
            out.append(f'.SS "{escaped(title)}"')
        if title.startswith("example"):
            shown = "\n".join(line[2:] for line in lines).strip("\n")
            out += [".nf", escaped(shown), ".fi"]
        else:
            for entry in entries(lines):
                out += told(entry)
    return out


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    title, lines = "", list[str]()
    for line in text.rstrip().splitlines():
        if re.match(r"\S.*:$", line):
            if title or any(lines):
                yield title, lines
            title, lines = line[:-1], []
        else:
            lines.append(line)
    if title or any(lines):
        yield title, lines


def entries(lines: list[str]) -> Iterator[list[str]]:
    """Lines that belong together: those that are indented further go with the one before."""
    current: list[str] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if current and line.strip() and indent > len(current[0]) - len(current[0].lstrip()):
            current.append(line)
            continue
        # Plain lines one after the other are a paragraph.
        if (
            current
            and line.strip()
            and not any(_FIRST_COLUMN.match(x.strip()) for x in (line, *current))
        ):
            current.append(line)
            continue
        if current:
            yield current
        current = [line] if line.strip() else []
    if current:
        yield current


def told(entry: list[str]) -> list[str]:
    """A term with its text, which begins where the lines that follow do; or a paragraph."""
    first, rest = entry[0].strip(), [line.strip() for line in entry[1:]]
    parts = _FIRST_COLUMN.fullmatch(first)
    column = len(entry[1]) - len(entry[1].lstrip()) if rest else 0
    if not parts and any(_FIRST_COLUMN.fullmatch(line) for line in rest):
        inner = [part for one in entries(entry[1:]) for part in told(one)]
        return [".PP", escaped(first), *inner]
    if parts:
        term, text = parts[1], [parts[2], *rest]
    elif column > len(entry[0]) - len(entry[0].lstrip()):
        cut = column if entry[0][column - 1 : column] == " " else len(entry[0])
        term, text = entry[0][:cut].strip(), [entry[0][cut:], *rest]
    else:
        return [".PP", escaped("\n".join([first, *rest]))]
    return [".TP", f".B {escaped(term)}", escaped("\n".join(filter(None, text)))]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
