"""Records tie an original file, by its identity, to its copy. The core reads them (store.h)."""

import binascii
import os
import struct

from pyhugetext.store.elf import Layout

MAGIC = b"PHTREC1\n"
NOTE_MAGIC = b"PHTNONE\n"  # in place of a record: the kernel's release and why there is none
_HEAD = struct.Struct("<8sII IIQQQQII Q 16s QQ IIII".replace(" ", ""))
_COVERED = 16  # the checksum covers what is behind it
_RANGE = struct.Struct("<QQQ")
LIMIT = 16 * 1024
_PATHS = 1024  # the core takes no more

assert _HEAD.size == 120


class Damaged(Exception):
    """A record that is not what was written."""


def key(status: os.stat_result, bias: int) -> str:
    """The name of the record of a file: what the kernel knows it by, and where it is loaded."""
    mtime, mtime_ns = divmod(status.st_mtime_ns, 10**9)
    ctime, ctime_ns = divmod(status.st_ctime_ns, 10**9)
    parts = (
        os.major(status.st_dev),
        os.minor(status.st_dev),
        status.st_ino,
        status.st_size,
        mtime & (1 << 64) - 1,
        mtime_ns,
        ctime & (1 << 64) - 1,
        ctime_ns,
        bias,
    )
    return "-".join(f"{part:x}" for part in parts)


def image_key(status: os.stat_result, bias: int, build_id: bytes) -> str:
    """The name of the record by which a file of a container image is known wherever the image is
    unpacked: there device, inode and change time are new."""
    mtime = status.st_mtime_ns // 10**9 & (1 << 64) - 1
    return f"image-{status.st_size:x}-{mtime:x}-{build_id.hex()}-{bias:x}"


def boot_id() -> bytes:
    """The 16 bytes that name this boot; see random(4)."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return bytes.fromhex(file.read().decode().strip().replace("-", ""))


class Record:
    """One record. `durable` when its copy is known to be on disk."""

    __slots__ = (
        "bias",
        "boot_id",
        "build_id_at",
        "build_id_size",
        "file_size",
        "header",
        "identity",
        "object_size",
        "origin",
        "path",
        "ranges",
    )

    def __init__(
        self,
        identity: "tuple[int, ...]",
        bias: int,
        boot: bytes,
        object_size: int,
        build_id_at: int,
        build_id_size: int,
        ranges: "list[tuple[int, ...]] | list[tuple[int, int, int]]",
        path: str,
        header: bytes,
        origin: str = "",
    ) -> None:
        self.identity = identity  # major, minor, inode, size, mtime, ctime, mtime_ns, ctime_ns
        self.bias = bias
        self.boot_id = boot
        self.object_size = object_size
        self.build_id_at = build_id_at
        self.build_id_size = build_id_size
        self.ranges = ranges
        self.path = path
        self.header = header
        self.origin = origin  # where the original was when the copy was made; for people only

    @property
    def durable(self) -> bool:
        return self.boot_id == bytes(16)

    def counts(self) -> bool:
        """Whether its copy is on disk, or was made in this boot."""
        return self.durable or self.boot_id == boot_id()

    def is_named(self, name: str) -> bool:
        """Whether this is the record that the name stands for: what it says is what key() and
        image_key() are made of."""
        major, minor, inode, size, mtime, ctime, mtime_ns, ctime_ns = self.identity
        if name.startswith("image-"):
            parts = name.split("-")
            own = (size, mtime, self.bias)
            return (
                len(parts) == 5
                and inode == 0
                and ([f"{part:x}" for part in own] == [parts[1], parts[2], parts[4]])
            )
        parts_of = (major, minor, inode, size, mtime, mtime_ns, ctime, ctime_ns, self.bias)
        return name == "-".join(f"{part:x}" for part in parts_of)

    @classmethod
    def make(
        cls,
        status: os.stat_result,
        bias: int,
        layout: Layout,
        path: str,
        header: bytes,
        durable: bool,
        origin: str = "",
    ) -> "Record":
        """The record of the copy at `path` (relative to v1) of the file that `status` tells of,
        found at `origin`."""
        mtime, mtime_ns = divmod(status.st_mtime_ns, 10**9)
        ctime, ctime_ns = divmod(status.st_ctime_ns, 10**9)
        identity = (
            os.major(status.st_dev),
            os.minor(status.st_dev),
            status.st_ino,
            status.st_size,
            mtime & (1 << 64) - 1,
            ctime & (1 << 64) - 1,
            mtime_ns,
            ctime_ns,
        )
        boot = bytes(16) if durable else boot_id()
        size = len(layout.build_id)
        return cls(
            identity, bias, boot, layout.size, layout.build_id_at, size, layout.ranges, path, header,
            origin,
        )  # fmt: skip

    def of_image(self) -> "Record":
        """The same entry without what a container image does not keep."""
        identity = (0, 0, 0, self.identity[3], self.identity[4], 0, 0, 0)
        return Record(
            identity, self.bias, self.boot_id, self.object_size, self.build_id_at,
            self.build_id_size, self.ranges, self.path, self.header, self.origin,
        )  # fmt: skip

    def pack(self) -> bytes:
        path = os.fsencode(self.path) + b"\0"
        origin = os.fsencode(self.origin) + b"\0"
        # The core reads up to the first NUL.
        if self.origin and len(path) + len(origin) <= _PATHS:
            path += origin
        tail = b"".join(_RANGE.pack(*r) for r in self.ranges) + path + self.header
        total = _HEAD.size + len(tail)

        def head(crc: int) -> bytes:
            return _HEAD.pack(
                MAGIC, total, crc, *self.identity, self.bias, self.boot_id, self.object_size,
                self.build_id_at, self.build_id_size, len(self.header), len(self.ranges), len(path),
            )  # fmt: skip

        return head(binascii.crc32(head(0)[_COVERED:] + tail)) + tail

    @classmethod
    def unpack(cls, data: bytes) -> "Record":
        """Reads a record; Damaged where it is none."""
        if len(data) < _HEAD.size or len(data) > LIMIT:
            raise Damaged("its size is impossible")
        fields = _HEAD.unpack_from(data)
        magic, total, crc = fields[:3]
        if magic != MAGIC or total != len(data):
            raise Damaged("it is no record")
        if crc != binascii.crc32(data[_COVERED:]):
            raise Damaged("its checksum is wrong")
        identity, (bias, boot, object_size, build_id_at) = fields[3:11], fields[11:15]
        build_id_size, header_size, range_count, path_size = fields[15:]
        at = _HEAD.size
        if at + range_count * _RANGE.size + path_size + header_size != total:
            raise Damaged("its parts do not add up")
        ranges = [_RANGE.unpack_from(data, at + i * _RANGE.size) for i in range(range_count)]
        at += range_count * _RANGE.size
        named, _, origin = data[at : at + path_size].rstrip(b"\0").partition(b"\0")
        path = os.fsdecode(named)
        steps = path.split("/")
        if len(steps) != 3 or steps[0] != "objects" or {"", ".", ".."} & set(steps):
            raise Damaged("its path leads out of the store")
        header = data[at + path_size :]
        return cls(
            identity, bias, boot, object_size, build_id_at, build_id_size, ranges,
            path, header, os.fsdecode(origin),
        )  # fmt: skip


class Note:
    """In place of a record: why a file has no entry. The core reads the kernel's release only."""

    __slots__ = ("kernel", "origin", "reason")

    def __init__(self, kernel: str, reason: str, origin: str) -> None:
        self.kernel = kernel
        self.reason = reason
        self.origin = origin

    def pack(self) -> bytes:
        reason = self.reason.replace("\n", " ")
        text = f"{self.kernel}\n{reason}\n{self.origin}\n"
        return NOTE_MAGIC + os.fsencode(text)

    @classmethod
    def unpack(cls, data: bytes) -> "Note":
        """Reads a note; Damaged where it is none."""
        if not data.startswith(NOTE_MAGIC) or len(data) > LIMIT:
            raise Damaged("it is no note")
        kernel, _, rest = os.fsdecode(data[len(NOTE_MAGIC) :]).partition("\n")
        reason, _, origin = rest.partition("\n")
        return cls(kernel, reason, origin[:-1])
