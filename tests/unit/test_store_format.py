"""What a store's index holds, byte for byte: it is read by whatever version comes next."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pyhugetext.store import places, upkeep
from support.copies import copy_into, lay_out, store_at
from support.raw_elf import small_elf
from support.record import Identity, Note, Record, boot_id, used

RECORD = Record(
    identity=Identity(
        major=0xFD,
        minor=0x2,
        inode=0x123456789A,
        size=0x654321,
        mtime=1700000000,
        ctime=1700000001,
        mtime_ns=123456789,
        ctime_ns=987654321,
    ),
    bias=0x155000,
    boot_id=bytes(range(1, 17)),
    made_in=bytes(range(17, 33)),
    object_size=0x800000,
    lacking=1,
    rests_until=0x6553F200,
    refused_by=0x1122334455667788,
    build_id_at=0x3A8,
    build_id_size=20,
    ranges=((0xAB000, 0x200000, 0x200000), (0x4AB000, 0x400000, 0x400000)),
    path="objects/000102-654321-155000-0/libsmall.so",
    origin="/opt/lib/libsmall.so",
    header=bytes(range(64)),
    present=bytes([0b1011]),
)
NAME = "fd-2-123456789a-654321-6553f100-75bcd15-6553f101-3ade68b1-155000"
GOLDEN = bytes.fromhex(
    """
    504854524543350a51010000d30405ccfd000000020000009a78563412000000214365000000000000f15365
    0000000001f153650000000015cd5b07b168de3a00501500000000000102030405060708090a0b0c0d0e0f10
    1112131415161718191a1b1c1d1e1f200000800000000000010000000000000000f253650000000088776655
    44332211a8030000000000001400000040000000020000004000000000b00a00000000000000200000000000
    000020000000000000b04a0000000000000040000000000000004000000000006f626a656374732f30303031
    30322d3635343332312d3135353030302d302f6c6962736d616c6c2e736f002f6f70742f6c69622f6c696273
    6d616c6c2e736f00000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
    2425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f0b
    """
)


@pytest.fixture
def store(tmp_path: Path) -> places.Store:
    made = store_at(tmp_path / "store")
    places.open_store(made, make=True)
    return made


def test_record_is_the_bytes_that_were_agreed_upon() -> None:
    assert RECORD.pack() == GOLDEN
    assert Record.unpack(GOLDEN) == RECORD
    assert RECORD.identity.key(RECORD.bias) == NAME


def test_record_is_read_as_agreed_upon(store: places.Store) -> None:
    Path(store.records, NAME).write_bytes(GOLDEN)
    ((entry,), notes) = upkeep.contents(store)
    assert notes == []
    assert entry.name == NAME
    assert entry.original == RECORD.origin
    assert entry.copy == f"{store.base}/{RECORD.path}"
    assert entry.bias == RECORD.bias
    assert not entry.durable
    assert not entry.image
    assert entry.state == upkeep.EXPIRED


def test_any_changed_byte_of_a_record_is_noticed(store: places.Store) -> None:
    for at in range(len(GOLDEN)):
        data = bytearray(GOLDEN)
        data[at] ^= 0x10
        Path(store.records, f"{at}").write_bytes(data)
    for size in range(0, len(GOLDEN), 7):
        Path(store.records, f"cut-{size}").write_bytes(GOLDEN[:size])
    entries, notes = upkeep.contents(store)
    assert notes == []
    assert len(entries) == len(os.listdir(store.records)) > len(GOLDEN)
    told = {(entry.state, entry.reason) for entry in entries}
    assert told == {(upkeep.DAMAGED, "its record is not what was written")}


def test_record_that_is_written_says_what_is_on_disk(store: places.Store, tmp_path: Path) -> None:
    original = tmp_path / "libsmall.so"
    original.write_bytes(small_elf())
    copy = copy_into(Path(store.root), original)
    (path,) = Path(store.records).iterdir()
    layout = lay_out(original)
    identity = Identity.of(original.stat())
    name = f"{layout.build_id.hex()}-{identity.size:x}-0-0"
    expected = Record(
        identity=identity,
        bias=0,
        boot_id=bytes(16),  # pyhugetext warm puts it on disk
        made_in=boot_id(),
        object_size=layout.size,
        lacking=0,
        rests_until=0,
        refused_by=0,
        build_id_at=layout.build_id_at,
        build_id_size=len(layout.build_id),
        ranges=tuple(layout.ranges),
        path=f"objects/{name}/libsmall.so",
        origin=str(original),
        header=copy.read_bytes()[: layout.header_size],
        present=used(layout.uses),
    )
    assert Record.read(path) == expected
    assert path.read_bytes() == expected.pack()
    assert path.name == identity.key(0)
    assert copy == Path(store.base, expected.path)
    modes = [stat.S_IMODE(file.stat().st_mode) for file in (path, copy, Path(store.base, "lock"))]
    assert modes == [0o600, 0o400, 0o600]


@pytest.mark.parametrize("origin", ["/opt/lib/lib.so", "/with\nline\n\nends/lib.so\n", "/\udcff"])
def test_note_is_read_as_agreed_upon(store: places.Store, origin: str) -> None:
    path = Path(store.records, NAME)
    path.write_bytes(Note(os.uname().release, "it cannot be", origin).pack())
    (entries, (note,)) = upkeep.contents(store)
    assert entries == []
    assert (note.name, note.original, note.bias) == (NAME, origin, RECORD.bias)
    assert (note.reason, note.kernel) == ("it cannot be", os.uname().release)
    assert note.state == upkeep.STALE  # its original is not there
