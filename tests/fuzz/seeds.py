"""Inputs for the targets to begin with: seeds.py DIRECTORY makes a folder for each. Those of ELF files
are made of what is mapped into this process: of each file only what its layout depends on: the
headers, the notes, the dynamic section and the first of the section table."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
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


def layouts(*files: str) -> Iterator[bytes]:
    inputs = [(made.size, [(0, made.head)]) for made in shapes()]
    inputs.append((len(raw.small_elf()), [(0, raw.small_elf())]))
    for file in files or mapped():
        data = Path(file).read_bytes()
        parts = parts_of(data)
        if parts:
            inputs.append((len(data), parts))
    for size, parts in inputs:
        for bias in range(BIASES):
            yield pack(size, parts, bias)


def maps() -> Iterator[bytes]:
    for name in ("maps", "smaps", "status"):
        text = Path("/proc/self", name).read_bytes()[:1900]
        start = int(text.split(b"-")[0], 16) if name != "status" else 0
        for kind in (0, 2, 4, 8):
            yield struct.pack("<BBQB", kind, 4, start, 8) + text
    yield struct.pack("<BBQB", 4, 255, 0x400000, 8) + HOSTILE_MAPS


HOSTILE_MAPS = b"""\
00400000-00401000 r-xp 00000000 08:01 42 /usr/bin/x\\012y (deleted)
Anonymous: 4 kB
Swap: 0 kB
Rss: 18446744073709551615 kB
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
"""


def objects() -> Iterator[bytes]:
    for file in mapped():
        data = Path(file).read_bytes()
        parts = parts_of(data)
        if parts:
            phoff, phnum = (
                struct.unpack_from("<Q", data, 32)[0],
                struct.unpack_from("<H", data, 56)[0],
            )
            headers = data[phoff : phoff + 56 * min(phnum, 24)]
            notes = [part for at, part in parts if at not in (0, phoff)]
            for kind in (0, 1):
                yield bytes((kind, len(headers) // 56)) + headers + b"".join(notes)[:2048]
    yield bytes((1, 0)) + struct.pack("<III4s", 4, 20, 3, b"GNU\0") + bytes(20)


def plans() -> Iterator[bytes]:
    def span(pages: int) -> bytes:
        return struct.pack("<BH", 1, pages - 1)

    for kind in range(20):
        # Constants, text, constants, data; and the same as mappings, of the file, next to each other.
        shape = [(300, 0, 0x0A), (1300, 2, 0x2A), (500, 0, 0x0A), (200, 1, 0x1A)]
        segments = b"".join(b"\0" + span(n) + bytes((flags,)) for n, flags, _ in shape)
        mappings = b"".join(bytes((flags | 4,)) + span(n) for n, _, flags in shape)
        yield bytes((kind, len(shape))) + segments + bytes((0x41,)) + span(512) + span(1) + mappings


def records() -> Iterator[bytes]:
    for count, size in ((1, 6 << 21), (2, 1 << 33)):
        bitmap = bytes(((size + (2 << 20) - 1) // (2 << 20) + 7) // 8)
        paths, header = b"objects/01/libx.so\0/lib/libx.so\0", bytes(400)
        head = struct.pack(
            "<8sIIIIQQQQIIQ16s16sQQQQQIIII", b"PHTREC5\n", 0, 0, 8, 1, 7, 1 << 20, 0, 0, 0, 0, 0,
            bytes(16), bytes(16), size, 0, 0, 0, 64, 20, len(header), count, len(paths),
        )  # fmt: skip
        ranges = struct.pack("<QQQ", 0, 4 << 21, 0) * count
        for kind in (0, 1, 5, 17):
            yield bytes((kind, 3)) + head + ranges + paths + header + bitmap
    yield bytes((0, 7)) + b"PHTNONE\n\na reason\n/lib/libx.so\n"


def entries() -> Iterator[bytes]:
    for kind in (4, 5, 6, 7, 21):
        front = struct.pack("<BBIBBIB", kind, 6, 4096, 0, 64, 12 << 21, 1)
        copy = b"\x05\x05" * 12 + b"\x3f"
        ranges = bytes((2, 0, 4, 0, 4, 4, 6))
        yield front + copy + ranges + b"\xff\x0f"


def environments() -> Iterator[bytes]:
    values = [
        "PYHUGETEXT=off", "PYHUGETEXT_BACKING=memfd", "PYHUGETEXT_BUILD=always",
        "PYHUGETEXT_BUILD_TIME=250ms", "PYHUGETEXT_PRIVATE_LIMIT=64M", "PYHUGETEXT_STORE=/a/../b//c/",
        "PYHUGETEXT_INCLUDE=*/libx*:[!a-c]?", "PYHUGETEXT_NOSUCH=1", "XDG_CACHE_HOME=/x/",
        "HOME=/home/somebody", "PYHUGETEXT_MIN_TEXT=\u00e9\x1b[31m'", "PYHUGETEXT_STORE=relative",
    ]  # fmt: skip
    for text in (*values, "\0".join(values)):
        yield b"\0" + text.encode()
    yield b"\1" + "\0".join(values).encode()


def control_groups() -> Iterator[bytes]:
    limit, usage, stat = (
        b"67108864\n",
        b"33554432\n",
        b"anon_thp 0\nshmem 4096\ninactive_file 8192\n",
    )
    old = b"total_rss_huge 0\ntotal_shmem 4096\nhierarchical_memory_limit 67108864\n"

    def text(value: bytes) -> bytes:
        return bytes((len(value),)) + value

    second = b"".join(text(one) for one in (limit, b"max\n", usage, stat))
    yield b"\0\1" + b"\x0f" + second + b"\x0f" + second + b"0::/a\n"
    yield b"\4\0" + b"\x0f" + second + b"0::/elsewhere/docker-1\n1:name=systemd:/\n"
    first = b"".join(text(one) for one in (old, limit, usage))
    yield b"\x08\1" + b"\x38" + first + b"\x38" + first + b"9:cpu,memory:/a\n0::/\n"


TARGETS = {
    "entry": entries,
    "groups": control_groups,
    "layout": layouts,
    "maps": maps,
    "object": objects,
    "plan": plans,
    "record": records,
    "settings": environments,
}


def write(directory: Path) -> None:
    for target, make in TARGETS.items():
        place = directory / target
        place.mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(make()):
            (place / f"seed-{i}").write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
