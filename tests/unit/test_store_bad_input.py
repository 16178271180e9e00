"""What is no ELF file, or a broken one: a copy that passes the checks or a clear refusal, never
another exception, and nothing left in the store."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyhugetext.store import places, upkeep, warm
from support.copies import Layout, Refused, copy_into, lay_out_bytes, store_at
from support.raw_elf import (
    BUILD_ID,
    HUGE,
    PAGE,
    PF_R,
    PF_X,
    Part,
    blank_elf,
    check_layout,
    copy_read,
    reader,
    small_elf,
)

WHOLE = small_elf()
SECTIONS = struct.unpack_from("<Q", WHOLE, 40)[0]
HEADERS = 64 + 5 * 56

# Where it hurts: counts, sizes and offsets at the edges of what fits.
EDGES = [
    0, 1, 63, 64, 4095, 4096, HUGE - 1, HUGE, 1 << 31, (1 << 32) - 1, 1 << 46, (1 << 47) - 1,
    1 << 47, (1 << 63) - 1, 1 << 63, (1 << 64) - PAGE, (1 << 64) - 1,
]  # fmt: skip


def lay_out(data: bytes, bias: int = 0) -> Layout | None:
    """The layout, checked; None where the file is refused."""
    try:
        layout = lay_out_bytes(data, bias)
    except Refused:
        return None
    check_layout(layout, reader(data), len(data), bias)
    return layout


def test_small_file_is_no_bad_input() -> None:
    layout = lay_out(WHOLE)
    assert layout is not None
    assert layout.ranges == [(0, HUGE, 0)]
    assert layout.build_id == BUILD_ID
    read = copy_read(layout, reader(WHOLE))
    assert read(len(BUILD_ID), layout.build_id_at) == BUILD_ID
    assert struct.unpack_from("<H", read(64, 0), 60)[0] == 7


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is no ELF file"),
        (b"\x7fELF", "is no ELF file"),
        (b"#!/bin/sh\n" * 100, "is no ELF file"),
        (bytes(1 << 16), "is no ELF file"),
        (WHOLE[:4] + b"\x01" + WHOLE[5:], "is no 64-bit little-endian ELF file"),
        (WHOLE[:5] + b"\x02" + WHOLE[6:], "is no 64-bit little-endian ELF file"),
        (WHOLE[:16] + b"\x01\0" + WHOLE[18:], "is neither an executable nor a shared object"),
        (WHOLE[:16] + b"\x04\0" + WHOLE[18:], "is neither an executable nor a shared object"),
        (WHOLE[:56] + b"\0\0" + WHOLE[58:], "has no usable program headers"),
        (WHOLE[:56] + b"\xff\xff" + WHOLE[58:], "has no usable program headers"),
        (WHOLE[: 2 * PAGE], "is truncated: a segment ends behind the file"),
        (WHOLE[:100], "has no usable program headers"),
    ],
)
def test_refusal_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        lay_out_bytes(data)


def test_file_truncated_anywhere() -> None:
    needed = 2 * PAGE + 64  # the last loaded byte
    for size in range(len(WHOLE)):
        assert (lay_out(WHOLE[:size]) is None) == (size < needed), size


def test_any_single_bit_of_the_headers_flipped() -> None:
    for at in [*range(HEADERS), *range(SECTIONS, len(WHOLE))]:
        for bit in range(8):
            data = bytearray(WHOLE)
            data[at] ^= 1 << bit
            lay_out(bytes(data))


@pytest.mark.parametrize("value", EDGES, ids=hex)
def test_any_field_of_the_headers_at_an_edge(value: int) -> None:
    fields = [*range(24, 48, 8), *range(64, HEADERS, 8), *range(SECTIONS, len(WHOLE), 8)]
    for at in fields:
        lay_out(WHOLE[:at] + struct.pack("<Q", value) + WHOLE[at + 8 :])


FIELD = st.one_of(
    st.integers(0, HEADERS // 8 - 1).map(lambda i: i * 8),
    st.integers(0, (len(WHOLE) - SECTIONS) // 8 - 1).map(lambda i: SECTIONS + i * 8),
)


@given(
    st.lists(st.tuples(FIELD, st.sampled_from(EDGES) | st.integers(0, 1 << 14)), max_size=6),
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), max_size=6),
    st.integers(0, len(WHOLE)),
    st.sampled_from([0, PAGE, 0x155000, HUGE - PAGE]),
)
@settings(max_examples=1500)
def test_anything_broken_at_once(
    fields: list[tuple[int, int]], flips: list[tuple[int, int]], cut: int, bias: int
) -> None:
    data = bytearray(WHOLE)
    for at, value in fields:
        struct.pack_into("<Q", data, at, value)
    for at, mask in flips:
        data[at] ^= mask
    lay_out(bytes(data[: len(data) - cut]), bias)


@pytest.fixture
def store(tmp_path: Path) -> places.Store:
    return store_at(tmp_path / "store")


def contents(store: places.Store) -> list[str]:
    return [
        os.path.join(directory, name)
        for directory in (store.records, store.objects, store.tmp)
        for name in os.listdir(directory)
    ]


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), max_size=3),
    st.one_of(st.just(0), st.integers(0, len(WHOLE))),
)
@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_store_takes_a_good_copy_or_nothing(
    store: places.Store, tmp_path: Path, flips: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(WHOLE)
    for at, mask in flips:
        data[at] ^= mask
    original = tmp_path / "libbroken.so"
    original.write_bytes(data[: len(data) - cut])
    layout = lay_out(original.read_bytes())
    made = warm.Warmer(store).prepare(str(original), 0)
    if layout is None:
        assert (made.status, made.failed) == (warm.REFUSED, False)
        assert contents(store) == []
        return
    ((entry,), notes) = upkeep.contents(store)
    assert notes == []
    assert entry.state == upkeep.READY
    copy = Path(entry.copy)
    assert made.written == copy.stat().st_size
    assert copy.read_bytes() == layout.compose(original.read_bytes())
    found, _ = upkeep.verify(store, entry)
    assert found is not None
    assert found._replace(used=entry.used) == entry  # mapping it, as some kernels count, is use
    upkeep.clear(store)


def test_directory_is_refused(store: places.Store, tmp_path: Path) -> None:
    made = warm.Warmer(store).prepare(str(tmp_path), 0)
    assert made.status == warm.REFUSED
    assert made.reason
    assert contents(store) == []


@pytest.mark.parametrize("size", [0, PAGE, PAGE + 100])
def test_file_that_shrinks_while_its_copy_is_compared_is_no_damage(
    size: int, store: places.Store, tmp_path: Path
) -> None:
    original = tmp_path / "libshrinking.so"
    original.write_bytes(WHOLE)
    copy = copy_into(Path(store.root), original)
    os.truncate(original, size)
    ((entry,), _) = upkeep.contents(store)
    found, removed = upkeep.verify(store, entry)
    assert found is not None
    assert (found.state, removed) == (upkeep.STALE, False)
    assert copy.exists()


@pytest.mark.parametrize("at", [0, 77, HUGE - 1, HUGE, 2 * HUGE + 77])
def test_copy_that_differs_is_told_by_where(at: int, store: places.Store, tmp_path: Path) -> None:
    parts = [Part(0, 3 * HUGE, 3 * HUGE, PF_R | PF_X)]
    original = tmp_path / "lib.so"
    original.write_bytes(blank_elf(parts).head)
    os.truncate(original, 3 * HUGE)
    copy = copy_into(Path(store.root), original)
    ((entry,), _) = upkeep.contents(store)
    assert upkeep.verify(store, entry) == (entry, False)
    copy.chmod(0o600)
    with copy.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    copy.chmod(0o400)
    found, removed = upkeep.verify(store, entry)
    assert found is not None
    assert (found.state, removed) == (upkeep.DAMAGED, True)
    where = f"in the 2 MiB at offset {at // HUGE * HUGE:#x}"
    assert found.reason is not None
    assert where in found.reason or "begins with other headers" in found.reason
    assert contents(store) == []


def test_blank_data_outside_the_ranges_takes_no_room(store: places.Store, tmp_path: Path) -> None:
    text = Part(0, HUGE, HUGE, PF_R | PF_X)
    blank = Part(2 * HUGE, 1 << 31, 1 << 31, PF_R)
    original = tmp_path / "lib.so"
    made = blank_elf([text, blank])
    original.write_bytes(made.head)
    os.truncate(original, made.size)
    layout = lay_out_bytes(made.head, 0, made.size)
    check_layout(layout, made.read, made.size, 0)
    status = copy_into(Path(store.root), original).stat()
    assert status.st_size == layout.size > 1 << 31
    assert status.st_blocks * 512 <= 2 * HUGE
    ((entry,), _) = upkeep.contents(store)
    assert upkeep.verify(store, entry) == (entry, False)


ABSURD: dict[str, Callable[[bytearray], None]] = {
    "sections": lambda data: struct.pack_into("<H", data, 60, 0xFFFF),
    "sections beyond counting": lambda data: (
        struct.pack_into("<H", data, 60, 0),
        struct.pack_into("<Q", data, SECTIONS + 32, (1 << 64) - 1),
    )[0],
    "section of 2^64 bytes": lambda data: struct.pack_into(
        "<Q", data, SECTIONS + 5 * 64 + 32, (1 << 64) - 1
    ),
    "segment of 2^46 bytes": lambda data: struct.pack_into("<Q", data, 64 + 56 + 40, 1 << 46),
    "distant segment": lambda data: struct.pack_into("<Q", data, 64 + 112 + 16, 1 << 46),
    "alignment of 2^63": lambda data: struct.pack_into("<Q", data, 64 + 56 + 48, 1 << 63),
    "note of 2^40 bytes": lambda data: struct.pack_into("<QQ", data, 64 + 168 + 32, 1 << 40, 1),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_numbers_cost_neither_memory_nor_time(name: str, tmp_path: Path) -> None:
    data = bytearray(WHOLE)
    ABSURD[name](data)
    file = tmp_path / "libabsurd.so"
    file.write_bytes(data)
    code = """if True:
        import resource, sys
        from pyhugetext.store import places, warm
        warmer = warm.Warmer(places.Store(sys.argv[2], 1 << 30))
        resource.setrlimit(resource.RLIMIT_AS, (256 << 20, 256 << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
        made = warmer.prepare(sys.argv[1], 0)
        assert not made.failed, made
    """
    subprocess.run(
        [sys.executable, "-c", code, file, tmp_path / "store"],
        env={**os.environ, "PYHUGETEXT": "0"},
        check=True,
        timeout=60,
    )
