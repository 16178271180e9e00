"""What guests told, as tables: docs/platforms.md is made of it, and so is what the terminal shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kernels import kinds

Row = dict[str, Any]
STARTS = ("first", "second", "third", "warmed")
COLUMNS = {
    "first": "first start", "second": "second start", "third": "third start", "remap": "`remap()`",
    "warmed": "after `warm`", "memfd": "`memfd` asked for",
}  # fmt: skip
SYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "squashfs")
INTERPRETER = re.compile(r"^python3")
PLACES = re.compile(r"^2 MiB at 0x[0-9a-f]+(?: and \d+ more)?: ")  # other ones in each process

HEAD = """\
# What kernels and file systems give

Made by `make kernels` from what guests told that it booted under qemu (no KVM), with Debian 12's python3.11
and numpy on the file system that is asked, and the store in a home on it; nothing here is taken from
anywhere else. Do not edit: run it again.

A cell says what the text runs from after a start that imported numpy (in the column `remap()` it called that, too):
of the interpreter, then of the libraries (`none`: small pages; what is too small to be taken is left out). The
percentage is what `/proc/self/smaps` shows in 2 MiB pages of all text that can be covered, once every page of it
was used; a figure in MiB is memory of this process alone. `small` where smaps shows less than was put there.
A commit beside a file system is the one that it was asked with, where that is not the kernel's.

An emulated processor is many times slower than a real one, and what a start may spend on copies is a time
(`PYHUGETEXT_BUILD_TIME`): how much the first starts cover here says nothing of a real machine; which backing
they take, and what is covered after `warm`, does.
"""


def read(file: Path) -> list[Row]:
    """The rows of one kernel; the first one tells when, and from which commit."""
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


def merge(before: Sequence[Row], now: Sequence[Row]) -> list[Row]:
    """What was told now, and of other file systems what the same kernel told before: of another
    commit with its name."""
    booted = [(find(found, "booted") or {}).get("release") for found in (before, now)]
    asked = {row.get("fs") for row in now}
    kept = [row for row in before if row.get("fs") and row["fs"] not in asked]
    if not kept or booted[0] != booted[1]:
        return [*now]
    commit = before[0].get("commit")
    if commit != now[0].get("commit"):
        kept = [{"commit": commit, **row} for row in kept]
    return [*now, *kept]


def find(rows: Sequence[Row], step: str, fs: str | None = None) -> Row | None:
    for row in rows:
        if row.get("step") == step and (fs is None or row.get("fs") == fs):
            return row
    return None


def cell(row: Row | None) -> str:
    """One start, in a few words."""
    if row is None:
        return "not asked"
    seen = row.get("seen")
    if not isinstance(seen, dict):
        return f"failed (exit status {row.get('exit')})"
    objects = seen["objects"]
    groups = [
        [o for o in objects if bool(INTERPRETER.match(o["name"])) is own] for own in (True, False)
    ]
    words = " / ".join(_backings(group) for group in groups if group)
    coverable = sum(o["coverable"] for o in objects)
    swapped, huge = sum(o["swapped"] for o in objects), sum(o["smaps"] for o in objects)
    # Swapped pages hold read-only content beside the text: of each object the smaller one counts.
    covered = sum(min(o["mapped"], o["smaps"]) for o in objects)
    text = f"{words}, {100 * covered // coverable if coverable else 0} %"
    if huge < swapped:
        text += f", small {(swapped - huge) >> 20} of {swapped >> 20} MiB"
    if seen["private"] >> 20:
        text += f", {seen['private'] >> 20} MiB"
    return text


def _backings(objects: Iterable[Row]) -> str:
    """Of what is large enough to be taken."""
    taken = {o["backing"] for o in objects if not str(o["reason"]).startswith("too small")}
    return "+".join(sorted(taken)) or "none"


def reasons(rows: Iterable[Row]) -> list[str]:
    """Why no better backing was taken, each sentence once, without what differs from object to object."""
    found: dict[str, None] = {}
    for row in rows:
        for item in (row.get("seen") or {}).get("objects", ()):
            for sentence in [*item["why"], *([item["reason"]] if item["reason"] else [])]:
                sentence = PLACES.sub("2 MiB here and there: ", sentence)
                found.setdefault(_short(sentence))
    return list(found)


def faults(rows: Sequence[Row]) -> list[str]:
    """What must not be, on any kernel: each as a sentence."""
    found = []
    for row in rows:
        step, where = str(row.get("step")), f"{row.get('fs')}, {row.get('step')}"
        if step in ("did not boot", "did not end"):
            found.append(f"{step} in {row['limit']} s; the last it said: {row['said']}")
        elif step == "damaged":
            found.append(f"a line of the guest was damaged: {row['text'][:60]}")
        elif step == "failed":
            found.append(f"{row.get('fs')}: {row['error']}")
        elif step == "log":
            found += [f"the kernel's log: {line}" for line in row["lines"]]
        elif isinstance(row.get("seen"), dict):
            found += [f"{where}: {fault}" for fault in _of_start(row, rows)]
        elif step in (*STARTS, "without", "remap", "restore", "memfd") or _died(row):
            found.append(f"{where}: exit status {row.get('exit')}: {row.get('stderr', '')[-200:]}")
    if not find(rows, "booted") and not find(rows, "did not boot"):
        found.append("the guest told nothing")
    return found


def _died(row: Row) -> bool:
    """Whether `warm` ended otherwise than with a sentence about what was not prepared."""
    return row.get("step") == "warm" and (
        row.get("exit") not in (0, 1) or "Traceback" in row.get("stderr", "")
    )


def _of_start(row: Row, rows: Sequence[Row]) -> Iterable[str]:
    seen = row["seen"]
    if row["exit"] or row["stderr"]:
        yield f"exit status {row['exit']}, stderr {row['stderr'][-200:]!r}"
    if row["step"] in STARTS and not seen["objects"]:
        yield f"nothing was looked at: {seen['reason']}"
    without = find(rows, "without", row["fs"])
    if (
        without
        and isinstance(without.get("seen"), dict)
        and without["seen"]["result"] != seen["result"]
    ):
        yield "computed something else than without"
    for item in seen["objects"]:
        if item["says"] > item["smaps"]:
            name = item["name"]
            yield f"{name}: stats() says {item['says']} bytes are huge, smaps says {item['smaps']}"
    # Huge the object's own file may be, which the kernel took itself.
    if row["step"] == "restore" and any(item.get("swapped_text") for item in seen["objects"]):
        yield "swapped text is left after restore()"


def table(rows: Sequence[Row]) -> str:
    """One kernel: its file systems and starts."""
    lines = [
        "| file system | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for fs in SYSTEMS:
        if any(row.get("fs") == fs for row in rows):
            failed = find(rows, "failed", fs)
            cells = [cell(find(rows, step, fs)) for step in COLUMNS]
            if failed and cells == ["not asked"] * len(cells):
                cells = [f"failed: {failed['error']}", *[""] * (len(COLUMNS) - 1)]
            commit = next(row.get("commit") for row in rows if row.get("fs") == fs)
            name = fs if commit in (None, rows[0].get("commit")) else f"{fs} ({commit})"
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def section(rows: Sequence[Row]) -> str:
    """One kernel of docs/platforms.md."""
    about, booted, settings = rows[0], find(rows, "booted"), find(rows, "settings")
    release = booted["release"] if booted else f"{about['kernel']}: did not boot"
    parts = [
        f"## {release}, {about['architecture']}",
        f"{about['what']}; {about['date']}, commit {about['commit']}.",
    ]
    if settings:
        parts[-1] += (
            f" THP {_chosen(settings['enabled'])}, in shared memory {_chosen(settings['shmem_enabled'])}."
        )
    if booted:
        parts.append(table(rows))
        parts += filter(None, [_also(rows)])
        starts = [row for row in rows if row.get("step") in STARTS]
        parts.append("Why not better:\n\n" + _list(reasons(starts)))
    wrong = faults(rows)
    parts.append("Wrong:\n\n" + _list(wrong) if wrong else "Results, exit status, stderr as without; `stats()` "
                 "never says more than smaps.")  # fmt: skip
    return "\n\n".join(parts)


def _also(rows: Sequence[Row]) -> str:
    """What `warm` said, and what shared memory and stores took, a line for each file system."""
    lines = []
    for fs in SYSTEMS:
        warm, last = find(rows, "warm", fs), find(rows, "warmed", fs)
        starts = [row for row in rows if row.get("fs") == fs and row.get("step") in STARTS]
        if warm and last:
            shm = ", ".join(str(row["shm"] >> 20) for row in starts)
            disk = ", ".join(str(row["store"] >> 20) for row in starts)
            lines.append(
                f"{fs}: `warm` exits {warm['exit']}{_said(warm)}; after each start {shm} MiB in /dev/shm,"
                f" {disk} MiB in the home"
            )
    return _list(lines) if lines else ""


def _said(warm: Row) -> str:
    """Why it does not exit with 0: the last that it said."""
    lines = (warm["stderr"] if warm["exit"] else "").strip().splitlines()
    sentence = lines[-1].partition(": ")[2] or lines[-1] if lines else ""
    return f" ({_short(sentence)})" if sentence else ""


def _short(sentence: str) -> str:
    """Without folders, which are the guest's."""
    return re.sub(r"/\S*/(?=\S+)", ".../", sentence)


def _chosen(text: str) -> str:
    found = re.search(r"\[(\w+)\]", text)
    return f"`{found[1] if found else text}`"


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences) or "- nothing"


def document(results: Mapping[str, Sequence[Row]], before: str = "") -> str:
    """docs/platforms.md, of the results that there are by kernel; of other kernels what it said before."""
    made = {name: section(rows) for name, rows in results.items() if rows}
    for part in before.split("\n## ")[1:]:
        name = kinds.of_section(part.partition("\n")[0])
        if name and name not in made:
            made[name] = f"## {part.strip()}"
    ordered = [made[name] for name in kinds.KINDS if name in made]
    return "\n\n".join([HEAD.rstrip("\n"), *ordered]) + "\n"
