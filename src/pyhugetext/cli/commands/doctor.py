"""Tells what this machine can do and what limits it: kernel and settings, container and hypervisor,
whether huge pages reach the hardware, and which backing the machine code of a new python runs
from. What can be tried is tried; nothing is left behind, and no setting is changed.

With a COMMAND: what that would get from pyhugetext run, object by object. It is not run."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from pyhugetext.cli import text
from pyhugetext.cli.outcome import FAILED, OK
from pyhugetext.cli.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhugetext.doctor.examination import Examination

    Write = Callable[[str, str], None]  # a line, and the mark at its beginning

SUMMARY = "what this machine can do, and what limits it; what a program would get"
TAKES_COMMAND = True

MANUAL = """\
marks:
  ok       as it should be
  limit    it costs something: a backing less, a smaller gain, a longer first start
  problem  nothing runs from huge pages because of it
  info     neither good nor bad
  unknown  the kernel does not tell

what is tried:
  kernel, process, machine
           Read from /proc and /sys and asked by prctl(2) and perf_event_open(2). page_walk is a
           random walk over 32 MiB, one cell a page, timed on small and on huge pages in turns, and
           without page walks. Where a host backs its guests with 4 KiB pages, huge pages save less
           than 75 % of the time for walks, and programs gain less.
  tried    A file without a name in the store's file system, one in shared memory, a memory file,
           anonymous memory, the interpreter's own file: which of them the kernel gives 2 MiB pages.
  start    A new python of this interpreter, in this environment: whether the hook runs there
           and what it comes to. With PYHUGETEXT=0 it is told, and tried without.
  backings Each is tried in a python of its own, on the interpreter's text, with temporary stores
           where the stores are or would be. `auto` takes an entry of the store that is there;
           else the first that works of file, store (an entry is built), shm, memfd, thp; hugetlb
           only when asked for.

of a COMMAND:
  What it starts is looked up (of a script the interpreter) and the libraries that it has from its
  start on, as the dynamic linker looks for them, by reading files. For each object: how much of its
  text can lie on 2 MiB pages, and the backing that it would get: of a copy in a store, of one that
  is still to be made, or private memory where its address is another one at each start.

keys of --json, without a COMMAND:
  works            true where a new python runs from huge pages, or would but for PYHUGETEXT=0
  reason           why not; null where it works
  backing          what its text runs from: file, store, shm, memfd, thp, hugetlb; none
  checks           [{group, name, state, text, facts}]: state is one of the marks, facts are plain
                   values (sizes in bytes, times in nanoseconds, null where unknown). Names are
                   kernel: release, thp, khugepaged, hugetlb_pool, max_map_count; process:
                   thp_disable, mdwe, seccomp, limits, cgroup; machine: processor, hypervisor,
                   container, itlb_multihit, perf, page_walk; tried: large_folios, shm_collapse,
                   memfd_collapse, anonymous_thp, file_collapse; start: settings, switch, hook,
                   process
  backings         [{backing, works, taken, reason, huge_bytes, private_bytes}], best first; taken
                   by auto
  stores           [{kind, path, exists, trusted, writable, reason, entries, used, limit, free,
                   file_system, remembered}]: kind is system, user or shm; free is what copies may
                   still take; remembered the verdict on the file system kept in the store (written,
                   evicted, collapsed, never)
  recommendations  [{text, command}]; empty where nothing is to be done

keys of --json, of a COMMAND:
  file, program    what is started: of a script, `program` is its interpreter
  python           whether that is a Python, by its name
  covered, reason  whether anything would be on huge pages; why not
  covered_bytes    how much
  objects          [{path, text_bytes, coverable_bytes, bias, backing, note}]: bias is null where it
                   is another one at each start

examples:
  pyhugetext doctor
  pyhugetext doctor -- node
  pyhugetext doctor >/dev/null || echo "no huge pages here"
  pyhugetext doctor --json | jq -r '.checks[] | select(.state != "ok") | .text'
  docker run --rm IMAGE pyhugetext doctor      what a container allows

exit status:
  0 a new python, or the COMMAND, would run from huge pages; 1 it would not, and the first line says
  why; 2 wrong usage; 130 interrupted
"""

_GROUPS = {
    "kernel": "kernel",
    "process": "this process and what it starts",
    "machine": "machine",
    "tried": "tried",
    "start": "a new python",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON; keys below")


def run(options: argparse.Namespace) -> int:
    # First, that an absent native part is told in one sentence by main().
    from pyhugetext import _boot, _native  # noqa: F401, I001
    from pyhugetext import _settings
    from pyhugetext.doctor import examination

    if options.command:
        return _program(options.command, options.json)
    with Progress() as progress:
        progress.begin("looking")
        found = examination.examine(_settings.current(), progress.label)
    if options.json:
        print(json.dumps(_document(found), indent=2))
    else:
        _print(found)
    return OK if found.works else FAILED


def _program(command: list[str], as_json: bool) -> int:
    from pyhugetext.cli import prospect, stores

    with Progress() as progress:
        progress.begin("looking")
        found = prospect.of(command, os.environ, stores.settings())
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        print("\n".join(prospect.lines(found, text.width_of(sys.stdout))))
    return OK if found.covered else FAILED


def _document(found: Examination) -> dict[str, Any]:
    return {
        "works": found.works,
        "reason": found.reason,
        "backing": found.backing,
        "checks": [check._asdict() for check in found.checks],
        "backings": [rung._asdict() for rung in found.ladder.rungs],
        "stores": [store._asdict() for store in found.stores],
        "recommendations": [item._asdict() for item in found.advice],
    }


def _print(found: Examination) -> None:
    write = _writer()
    write(_summary(found), "title")
    for group, title in _GROUPS.items():
        write("", "")
        write(title, "title")
        shown = [check for check in found.checks if check.group == group]
        width = max(len(check.name) for check in shown)
        for check in shown:
            write(f"{check.state:7}  {check.name:{width}}  {check.text}", check.state)
    write("", "")
    write("backings, best first", "title")
    for rung in found.ladder.rungs:
        mark = "ok" if rung.works else "limit"
        word = "taken" if rung.taken else "works" if rung.works else "no"
        write(f"{word:7}  {rung.backing:7}  {rung.reason or ''}".rstrip(), mark)
    write("", "")
    write("stores", "title")
    for store in found.stores:
        state = _store_state(store)
        write(f"{state:7}  {store.kind:7}  {_store(store)}", state)
    write("", "")
    write("recommendations", "title")
    for item in found.advice:
        write(f"- {item.text}" + (f": {item.command}" if item.command else ""), "advice")
    if not found.advice:
        write("- nothing to do", "advice")


def _summary(found: Examination) -> str:
    if not found.works:
        return f"a new python does not run from huge pages: {found.reason}"
    wanted = found.ladder.wanted
    by = "auto takes" if wanted == "auto" else f"PYHUGETEXT_BACKING={wanted}:"
    off = any(check.name == "switch" and check.facts["off"] for check in found.checks)
    would = "would run (it is turned off by PYHUGETEXT)" if off else "runs"
    return f"a new python {would} from huge pages: {by} {found.backing}"


def _store_state(store: Any) -> str:
    if store.kind == "system" and store.trusted:
        # Few machines have one, and few users may write it.
        return "ok" if store.exists else "info"
    return "limit" if store.reason else "ok"


def _store(store: Any) -> str:
    if store.path is None:
        return str(store.reason)
    parts = [store.path]
    if store.exists:
        used, limit = text.size(store.used), text.size(store.limit)
        parts.append(f"{text.count(store.entries, 'entry', 'entries')}, {used} of {limit}")
    else:
        parts.append("not there yet" if store.writable and store.kind != "system" else "not there")
    if store.free is not None:
        free = text.size(max(store.free, 0))
        parts.append(f"{free} free on {store.file_system or 'an unknown file system'}")
    if store.reason and (store.kind != "system" or not store.trusted):
        parts.append(store.reason)
    return "; ".join(text.printable(part) for part in parts)


_COLOURS = {"ok": "green", "limit": "yellow", "problem": "red", "title": "bold"}


def _writer() -> Write:
    """Prints lines, wrapped and coloured where stdout is a terminal that can show it."""
    width = text.width_of(sys.stdout)
    console: Any = None
    if width is not None:
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.text import Text

            console = Console()

    def write(line: str, mark: str) -> None:
        for part in _wrap(text.printable(line), width):
            if console is None:
                print(part)
                continue
            styled = Text(part)
            # The mark alone, or the whole of a title.
            end = len(part) if mark == "title" else part.find(" ")
            styled.stylize(_COLOURS.get(mark, ""), 0, max(end, 0))
            console.print(styled, soft_wrap=True)
            mark = ""

    return write


def _wrap(line: str, width: int | None) -> list[str]:
    """A line in pieces of `width` columns; the pieces behind the first are indented to the last
    column of the table."""
    if width is None or len(line) <= width:
        return [line]
    indent = 2
    if "  " in line:
        head = line.rstrip()
        at = head.rfind("  ", 0, 30) + 2
        indent = at if at < width // 2 else 9 if width > 30 else 2
    return textwrap.wrap(line, max(width, 20), subsequent_indent=" " * indent,
                         break_long_words=False, break_on_hyphens=False,
                         drop_whitespace=True) or [""]  # fmt: skip
