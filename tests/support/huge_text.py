"""Whether a process runs from huge pages of a store: what it tells of itself, against what the kernel
tells of it, read from outside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)\n?$")
FIELD = re.compile(r"(\w+): +(\d+) kB")


def mappings(pid: int) -> Iterator[tuple[int, int, str, str, dict[str, int]]]:
    """Start, end, permissions, path and fields in bytes of each mapping in smaps."""
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="surrogateescape") as file:
        current = None
        for line in file:
            head = HEAD.match(line)
            if head:
                if current:
                    yield current
                start, end, permissions, path = head.groups()
                current = (int(start, 16), int(end, 16), permissions, path, {})
            elif current and (found := FIELD.match(line)):
                current[4][found[1]] = int(found[2]) << 10
        if current:
            yield current


def interpreter(stats: dict[str, Any]) -> dict[str, Any]:
    """The region with the interpreter's text: of the executable or of libpython, whichever runs."""
    found: list[dict[str, Any]] = [
        region
        for region in stats["regions"]
        if re.match(r"(lib)?python\d", os.path.basename(region["path"]))
    ]
    return max(found, key=lambda region: region["coverable_bytes"])


def own(stats: dict[str, Any], but: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The regions that can be covered, but those of objects with these names."""
    return [
        region
        for region in stats["regions"]
        if region["coverable_bytes"] and os.path.basename(region["path"]) not in but
    ]


def assert_from_store(
    pid: int, stats: dict[str, Any], store: str, but: tuple[str, ...] = (), least: float = 0.95
) -> None:
    """At least that part of the coverable text is on the store's huge pages, the interpreter's all, with
    no private page, and smaps says so too. `but` are programs that no store can serve, since they
    lie at another address in each process."""
    regions = own(stats, but)
    why = [(r["path"], r["status"], r["reason"], r["fallbacks"]) for r in regions]
    assert stats["active"], (stats["reason"], stats["problems"])
    assert stats["problems"] == []
    assert interpreter(stats)["status"] == "huge", why
    mapped = sum(region["mapped_bytes"] for region in regions)
    assert mapped >= least * sum(region["coverable_bytes"] for region in regions), why
    assert {region["backing"] for region in regions if region["mapped_bytes"]} == {"store"}, why
    assert [region["private_bytes"] for region in regions] == [0] * len(regions), why
    lines = [line for line in mappings(pid) if line[3].startswith(f"{store}/")]
    for region in regions:
        inside = [
            fields for start, end, permissions, _, fields in lines
            if region["start"] <= start and end <= region["end"] and "x" in permissions
        ]  # fmt: skip
        assert sum(fields["Size"] for fields in inside) == region["swapped_bytes"], region["path"]
        # What it told, and the little that came in since then.
        assert sum(fields["FilePmdMapped"] for fields in inside) >= region["huge_bytes"]
        assert [fields["Anonymous"] for fields in inside] == [0] * len(inside)
    assert sum(region["huge_bytes"] for region in regions) > 0
