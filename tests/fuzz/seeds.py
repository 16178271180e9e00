"""Inputs for layout.cpp to begin with: seeds.py DIRECTORY [ELF files]. Without files those that are
mapped into this process. Of each only what its layout depends on: the headers, the notes, the dynamic
section and the first of the section table."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import raw_elf as raw

BIASES = 4
MOST_BYTES = 12 << 10  # of an input
PT_DYNAMIC, PT_NOTE = 2, 4
PF_R, PF_W, PF_X = raw.PF_R, raw.PF_W, raw.PF_X


def pack(size: int, parts: list[tuple[int, bytes]], bias: int) -> bytes:
    head = struct.pack("<BBBB4xQ", bias, 0, 0, 0, size)
    return head + b"".join(struct.pack("<QH", at, len(data)) + data for at, data in parts)


def parts_of(data: bytes) -> list[tuple[int, bytes]] | None:
    """What of an ELF file its layout depends on."""
    if len(data) < 64 or data[:5] != b"\x7fELF\x02":
        return None
    fields = raw.EHDR.unpack(data[:64])
    phoff, shoff, phnum, shnum = fields[5], fields[6], fields[10], fields[12]
    spans = [(0, 64), (phoff, phnum * 56)]
    for row in raw.PHDR.iter_unpack(data[phoff : phoff + phnum * 56]):
        if row[0] in (PT_DYNAMIC, PT_NOTE):
            spans.append((row[2], min(row[5], 1024)))
    spans.append((shoff, min(shnum, 60) * 64))
    parts = [(at, data[at : at + n]) for at, n in spans if n]
    return parts if sum(len(part) + 10 for _, part in parts) < MOST_BYTES else None


def shapes() -> list[raw.RawElf]:
    """Segments as no linker lays them out, too."""
    text, data, constants = PF_R | PF_X, PF_R | PF_W, PF_R
    rows = [
        [(0, 0x1000, 0x1000, constants), (0x1000, 0x500000, 0x500000, text)],
        [(0, 0x700123, 0x700123, text), (0x701000, 0x1000, 0x9000, data)],
        [(0x110000, 0x400000, 0x400000, text), (0x510000, 0x1000, 0x1000, data)],
        [(0, 0x1000, 0x1000, constants), (0x400000, 0x300000, 0x300000, text),
         (0x800000, 0x300000, 0x300000, text)],
        [(0x1000, 0x250000, 0x250000, text), (0x260000, 0x10, 0x400000, constants),
         (0x900000, 0x250000, 0x250000, text)],
        [(0, 0x200000, 0x200000, PF_X), (0x200000, 0x200000, 0x200000, text),
         (0x400000, 0x200000, 0x200000, 0), (0x600000, 0x200000, 0x200000, text)],
        [(0, 0, 0x1000, constants), (0x200000, 0x400000, 0x400000, text)],
        [(0, 0x500123, 0x500123, text)],
    ]  # fmt: skip
    return [
        raw.blank_elf([raw.Part(*row) for row in r], program) for r in rows for program in (0, 1)
    ]


def mapped() -> set[str]:
    with open("/proc/self/maps") as lines:
        found = {line.split(None, 5)[5].strip() for line in lines if " /" in line}
    return {file for file in found if Path(file).is_file()}


def main(directory: str, *files: str) -> None:
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    inputs = [(made.size, [(0, made.head)]) for made in shapes()]
    inputs.append((len(raw.small_elf()), [(0, raw.small_elf())]))
    for file in files or mapped():
        data = Path(file).read_bytes()
        parts = parts_of(data)
        if parts:
            inputs.append((len(data), parts))
    for i, (size, parts) in enumerate(inputs):
        for bias in range(BIASES):
            (target / f"seed-{i}-{bias}").write_bytes(pack(size, parts, bias))


if __name__ == "__main__":
    main(*sys.argv[1:])
