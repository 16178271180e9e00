"""What is in a store's index, read and written here once more: the format as it is on disk."""

from __future__ import annotations

import binascii
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from support.common import HUGE

MAGIC, NOTE_MAGIC = b"PHTREC5\n", b"PHTNONE\n"
_HEAD = struct.Struct("<8sIIIIQQQQIIQ16s16sQQQQQIIII")
_COVERED = 16  # the checksum covers what is behind it
_RANGE = struct.Struct("<QQQ")
BOOT_ID = slice(72, 88)
CHECKSUM = slice(12, 16)

assert _HEAD.size == 160


@dataclass(frozen=True)
class Identity:
    """What the kernel knows a file by."""

    major: int
    minor: int
    inode: int
    size: int
    mtime: int
    ctime: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        mtime, mtime_ns = divmod(status.st_mtime_ns, 10**9)
        ctime, ctime_ns = divmod(status.st_ctime_ns, 10**9)
        device = os.major(status.st_dev), os.minor(status.st_dev)
        times = mtime & (1 << 64) - 1, ctime & (1 << 64) - 1
        return cls(*device, status.st_ino, status.st_size, *times, mtime_ns, ctime_ns)

    def key(self, bias: int) -> str:
        """The name of the record."""
        parts = (
            self.major, self.minor, self.inode, self.size, self.mtime, self.mtime_ns, self.ctime,
            self.ctime_ns, bias,
        )  # fmt: skip
        return "-".join(f"{part:x}" for part in parts)


@dataclass(frozen=True)
class Record:
    """One record: the copy of the file with this identity for this load bias modulo 2 MiB."""

    identity: Identity
    bias: int
    boot_id: bytes  # zero when the copy is known to be on disk
    made_in: bytes  # the boot in which it was made
    object_size: int
    lacking: int  # how many 2 MiB of it are to be there and are not
    rests_until: int  # seconds since the epoch: nothing is added before
    refused_by: int  # the kernel that could not take the original itself; 0: none was asked
    build_id_at: int
    build_id_size: int
    ranges: tuple[tuple[int, int, int], ...]
    path: str  # below v1
    origin: str
    header: bytes  # the first bytes of the copy
    present: bytes  # which 2 MiB of the copy are there, a bit each

    @classmethod
    def read(cls, path: Path) -> Record:
        return cls.unpack(path.read_bytes())

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        magic, total, crc, *rest = _HEAD.unpack_from(data)
        assert magic == MAGIC
        assert total == len(data)
        assert crc == binascii.crc32(data[_COVERED:])
        identity = Identity(*rest[:8])
        bias, boot_id, made_in, object_size, lacking, rests_until, refused_by = rest[8:15]
        build_id_at, build_id_size, header_size, range_count, path_size = rest[15:]
        at = _HEAD.size + range_count * _RANGE.size
        ranges = tuple(_RANGE.iter_unpack(data[_HEAD.size : at]))
        path, origin, end = data[at : at + path_size].split(b"\0")
        assert end == b""
        at += path_size
        header, present = data[at : at + header_size], data[at + header_size :]
        assert len(present) == len(all_present(object_size))
        return cls(
            identity, bias, boot_id, made_in, object_size, lacking, rests_until, refused_by,
            build_id_at, build_id_size, ranges, os.fsdecode(path), os.fsdecode(origin), header, present,
        )  # fmt: skip

    def pack(self) -> bytes:
        paths = os.fsencode(self.path) + b"\0" + os.fsencode(self.origin) + b"\0"
        tail = b"".join(_RANGE.pack(*r) for r in self.ranges) + paths + self.header + self.present
        i = self.identity
        head = _HEAD.pack(
            MAGIC, _HEAD.size + len(tail), 0, i.major, i.minor, i.inode, i.size, i.mtime, i.ctime,
            i.mtime_ns, i.ctime_ns, self.bias, self.boot_id, self.made_in, self.object_size,
            self.lacking, self.rests_until, self.refused_by, self.build_id_at, self.build_id_size,
            len(self.header), len(self.ranges), len(paths),
        )  # fmt: skip
        data = bytearray(head + tail)
        sign(data)
        return bytes(data)

    def of_another_boot(self) -> Record:
        return replace(self, boot_id=b"\1" * 16)


def all_present(object_size: int) -> bytes:
    """The bits of a copy in which nothing is left out."""
    pages = -(-object_size // HUGE)
    return ((1 << pages) - 1).to_bytes(-(-pages // 8), "little")


def used(uses: bytes) -> bytes:
    """The bits of a copy in which only what nobody uses is left out."""
    bits = sum(1 << chunk for chunk, use in enumerate(uses) if use)
    return bits.to_bytes(-(-len(uses) // 8), "little")


def sign(data: bytearray) -> None:
    """Makes the checksum of a forged record right."""
    data[CHECKSUM] = struct.pack("<I", binascii.crc32(data[_COVERED:]))


def boot_id() -> bytes:
    """The 16 bytes that name this boot; see random(4)."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text()
    return bytes.fromhex(text.strip().replace("-", ""))


@dataclass(frozen=True)
class Note:
    """In place of a record: why a file has none."""

    kernel: str
    reason: str
    origin: str

    @classmethod
    def read(cls, path: Path) -> Note:
        data = path.read_bytes()
        assert data.startswith(NOTE_MAGIC)
        assert data.endswith(b"\n")
        kernel, reason, origin = os.fsdecode(data[len(NOTE_MAGIC) : -1]).split("\n", 2)
        return cls(kernel, reason, origin)

    def pack(self) -> bytes:
        return NOTE_MAGIC + os.fsencode(f"{self.kernel}\n{self.reason}\n{self.origin}\n")
