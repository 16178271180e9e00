"""A store that somebody tampered with, or that the disk damaged: never mapped, the reason told,
and written anew where it is ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.common import HUGE, STRANGER
from support.poisons import (
    Poison,
    empty,
    extend,
    fill_with_zeros,
    forbid_reading,
    give_away,
    grow_to_a_gigabyte,
    let_group_write,
    let_others_write,
    remove,
    replace_by_device,
    replace_by_directory,
    replace_by_fifo,
    replace_by_link,
    replace_by_socket,
    rewrite,
    truncate,
)
from support.record import BOOT_ID, Record, sign
from support.store import Refilled, Store, require_huge_disk
from support.users import namespace, require_root

NOT_TRUSTED = "somebody else could have written it"
DAMAGED = "not what was written"
STALE = "the machine was started since"
NO_ENTRY = "has no entry"


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Refilled:
    area = tmp_path_factory.mktemp("area")
    require_huge_disk(area)
    return Refilled(area, Store(area / "way" / "store"))


@pytest.fixture(scope="module")
def in_shared_memory() -> Iterator[Refilled]:
    with namespace() as space:
        yield Refilled(space.sees("/dev/shm"), space.shm_store())


@pytest.fixture(params=["on_disk", "in_shared_memory"])
def store(request: pytest.FixtureRequest) -> Store:
    """A store with the interpreter's entry: on disk, and in shared memory of its own."""
    filled: Store = request.getfixturevalue(request.param).get()
    return filled


@pytest.fixture
def disk_store(on_disk: Refilled) -> Store:
    return on_disk.get()


@pytest.fixture
def way(disk_store: Store) -> Path:
    """A directory on the way to the store."""
    return disk_store.root.parent


TAMPERED: list[tuple[Poison, str]] = [
    (give_away, NOT_TRUSTED),
    (let_group_write, NOT_TRUSTED),
    (let_others_write, NOT_TRUSTED),
    (replace_by_link, NOT_TRUSTED),
    (replace_by_directory, NOT_TRUSTED),
    (replace_by_fifo, NOT_TRUSTED),
    (replace_by_socket, NOT_TRUSTED),
    (replace_by_device, NOT_TRUSTED),
    (forbid_reading, NOT_TRUSTED),
    (truncate, DAMAGED),
    (empty, DAMAGED),
    (extend, DAMAGED),
    (fill_with_zeros, DAMAGED),
    (grow_to_a_gigabyte, DAMAGED),
]


def ids(poisons: list[tuple[Poison, str]]) -> list[str]:
    return [poison.__name__ for poison, _ in poisons]


@pytest.mark.parametrize(("poison", "reason"), [*TAMPERED, (remove, NO_ENTRY)],
                         ids=[*ids(TAMPERED), "remove"])  # fmt: skip
def test_tampered_record_is_not_believed(store: Store, poison: Poison, reason: str) -> None:
    record = store.record
    poison(record)
    assert reason in store.refuses()
    store.recovers()
    assert record.is_file()
    assert len(store.copies) == 1


@pytest.mark.parametrize(("poison", "reason"), [*TAMPERED, (remove, DAMAGED)],
                         ids=[*ids(TAMPERED), "remove"])  # fmt: skip
def test_tampered_copy_is_not_mapped(store: Store, poison: Poison, reason: str) -> None:
    poison(store.copy)
    assert reason in store.refuses()
    store.recovers()
    assert len(store.copies) == 1, "the bad copy is left"


def test_copy_that_a_profiler_linked_elsewhere_stays_in_use(store: Store) -> None:
    """perf record links what it saw into its build-id cache; owner and mode are the file's own."""
    os.link(store.copy, store.copy.parents[2] / "linked")
    inode = store.copy.stat().st_ino
    store.recovers()
    assert store.copy.stat().st_ino == inode


@pytest.mark.parametrize("byte", [0, 8, 12, 16, 24, 48, 64, 72, 88, 96, 108, 120, 140, 200, -1])
def test_record_with_a_flipped_bit_is_not_believed(disk_store: Store, byte: int) -> None:
    rewrite(disk_store.record, lambda data: data.__setitem__(byte, data[byte] ^ 4))
    assert DAMAGED in disk_store.refuses()
    disk_store.recovers()


def test_page_that_the_record_does_not_name_is_not_mapped(disk_store: Store) -> None:
    """The rest of the copy serves meanwhile; what is there in its place may be anything."""
    record = Record.read(disk_store.record)
    _, length, offset = record.ranges[0]
    if length < 2 * HUGE:
        pytest.skip("this interpreter has one page only")
    last = (offset + length) // HUGE - 1
    present = bytearray(record.present)
    present[last // 8] &= ~(1 << last % 8)
    disk_store.record.write_bytes(replace(record, present=bytes(present)).pack())
    mode = disk_store.copy.stat().st_mode
    disk_store.copy.chmod(0o600)
    with disk_store.copy.open("r+b") as copy:
        copy.seek(last * HUGE)
        copy.write(bytes(HUGE))
    disk_store.copy.chmod(mode)
    interpreter = disk_store.start(PYHUGETEXT_BUILD="never").interpreter
    assert interpreter["backing"] == "store"
    assert interpreter["status"] == "partial"
    assert interpreter["swapped_bytes"] == length - HUGE
    assert "the store has no copy of this page yet" in interpreter["reason"]
    disk_store.recovers()


@pytest.mark.parametrize("byte", [0, 4, 5, 17, 24, 32, 40, 54, 64 + 8, 64 + 56, 64 + 56 * 3 + 32])
def test_copy_with_a_flipped_bit_in_its_headers_is_not_mapped(disk_store: Store, byte: int) -> None:
    rewrite(disk_store.copy, lambda data: data.__setitem__(byte, data[byte] ^ 1))
    assert DAMAGED in disk_store.refuses()
    disk_store.recovers()
    assert len(disk_store.copies) == 1


def test_copy_with_another_build_id_is_not_mapped(store: Store) -> None:
    build_id = bytes.fromhex(store.start().interpreter["build_id"])
    if not build_id:
        pytest.skip("this interpreter has no build-id")

    def change(data: bytearray) -> None:
        at = data.index(build_id)
        data[at] ^= 1

    rewrite(store.copy, change)
    assert DAMAGED in store.refuses()
    store.recovers()


def test_entry_of_an_older_boot_is_not_mapped_and_counts_again_once_compared(store: Store) -> None:
    """What was never known to be on disk may be anything after a power cut."""
    rewrite(store.record, forge_boot)
    inode = store.copy.stat().st_ino
    assert STALE in store.refuses()
    store.recovers()
    assert store.copy.stat().st_ino == inode, "a good copy was written once more"


def test_entry_of_an_older_boot_whose_copy_was_lost_is_written_anew(store: Store) -> None:
    rewrite(store.record, forge_boot)
    rewrite(store.copy, lambda data: data.__setitem__(slice(4096, None), bytes(len(data) - 4096)))
    assert STALE in store.refuses()
    store.recovers()
    assert len(store.copies) == 1


def forge_boot(data: bytearray) -> None:
    assert any(data[BOOT_ID]), "the entry is tied to no boot"
    data[BOOT_ID] = os.urandom(16)
    sign(data)


def test_flipped_bit_in_the_content_is_found_by_comparing(store: Store) -> None:
    """Each start compares headers and build-id only; `store verify` compares all. The flipped
    copy is not executed here."""
    settings = store.environment(PYHUGETEXT="0")

    def verify() -> tuple[int, str]:
        command = [*store.prefix, sys.executable, "-m", "pyhugetext", "store", "verify"]
        result = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
        return result.returncode, result.stderr

    store.start()
    assert verify() == (0, "")
    at = (2 << 20) + 12345
    rewrite(store.copy, lambda data: data.__setitem__(at, data[at] ^ 1))
    status, errors = verify()
    assert status == 1
    assert f"in the 2 MiB at offset {2 << 20:#x}" in errors
    assert store.records == store.copies == []
    store.recovers()
    assert verify() == (0, "")
    assert len(store.copies) == 1


@pytest.mark.parametrize("path", ["objects/../../..", "/tmp", "../objects/x", "objects//x"])
def test_record_whose_path_leads_out_of_the_store_is_not_followed(
    disk_store: Store, path: str
) -> None:
    bystander = disk_store.root.with_name("precious")
    bystander.write_text("keep")

    def change(data: bytearray) -> None:
        at = data.index(b"objects/")
        end = data.index(b"\0", at)
        new = path.encode() + b"/"
        new += b"x" * (end - at - len(new))
        data[at:end] = new
        sign(data)

    rewrite(disk_store.record, change)
    assert DAMAGED in disk_store.refuses()
    disk_store.recovers()
    assert bystander.read_text() == "keep"


@pytest.mark.parametrize("poison", [give_away, let_group_write, let_others_write, replace_by_link],
                         ids=lambda poison: poison.__name__)  # fmt: skip
def test_tampered_directory_of_a_copy_is_not_entered(store: Store, poison: Poison) -> None:
    poison(store.copy.parent)
    assert NOT_TRUSTED in store.refuses()
    store.recovers()


@pytest.mark.parametrize("poison", [give_away, let_group_write, let_others_write, replace_by_link,
                                    replace_by_fifo], ids=lambda poison: poison.__name__)  # fmt: skip
@pytest.mark.parametrize("step", ["index", "objects", "."])
def test_tampered_directory_of_the_store_is_not_entered(
    store: Store, step: str, poison: Poison
) -> None:
    """Anybody may have put anything there, so nothing of it is repaired either."""
    path = Path(os.path.normpath(store.base / step))
    poison(path)
    before = listing(path.parent)
    assert NOT_TRUSTED in store.refuses()
    report = store.start()
    assert report.mapped_below(store.root) == []
    assert NOT_TRUSTED in report.reasons
    assert not report.built, "every start would try in vain"
    assert listing(path.parent) == before


@pytest.mark.parametrize("poison", [give_away, let_group_write, let_others_write],
                         ids=lambda poison: poison.__name__)  # fmt: skip
@pytest.mark.parametrize("step", ["store", "."])
def test_store_below_a_tampered_directory_is_not_entered(
    disk_store: Store, way: Path, step: str, poison: Poison
) -> None:
    poison(Path(os.path.normpath(way / step)))
    assert NOT_TRUSTED in disk_store.refuses()
    report = disk_store.start()
    assert report.mapped_below(disk_store.root) == []
    assert not report.built


def test_own_link_on_the_way_is_followed(disk_store: Store, way: Path) -> None:
    link = way.with_name("link")
    link.symlink_to("way")
    disk_store.root = link / "store"
    report = disk_store.start()
    assert report.interpreter["backing"] == "store"


def test_link_of_somebody_else_on_the_way_is_not_followed(disk_store: Store, way: Path) -> None:
    require_root()
    link = way.with_name("link")
    link.symlink_to("way")
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    disk_store.root = link / "store"
    assert NOT_TRUSTED in disk_store.refuses()
    report = disk_store.start()
    assert report.mapped_below(way.parent) == []
    assert not report.built


def test_own_link_to_where_others_write_is_not_followed(disk_store: Store, way: Path) -> None:
    """The directories behind the link belong to the way as well."""
    link = way.with_name("link")
    link.symlink_to("way/store")
    way.chmod(0o777)
    disk_store.root = link
    assert NOT_TRUSTED in disk_store.refuses()
    report = disk_store.start()
    assert report.mapped_below(way.parent) == []
    assert not report.built


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo], ids=["file", "fifo"])
def test_store_that_is_no_directory_is_told(tmp_path: Path, make: Poison) -> None:
    place = tmp_path / "store"
    make(place)
    report = Store(place).start()
    assert report.interpreter["backing"] == "none"
    assert "there is no store" in report.reasons
    assert "ENOTDIR" in report.reasons
    assert not report.built


@pytest.mark.parametrize(
    "poison", [replace_by_fifo, replace_by_link, replace_by_directory, fill_with_zeros, give_away]
)
def test_tampered_verdict_is_given_anew(tmp_path: Path, poison: Poison) -> None:
    """What the file system can do was found out once; a start must not wait for a FIFO's writer."""
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    store.fill()
    verdict = store.base / "verdict"
    good = verdict.read_bytes()
    poison(verdict)
    store.record.unlink()
    store.recovers()
    assert verdict.is_file()
    assert verdict.read_bytes() == good


def listing(directory: Path) -> list[tuple[str, int, int]]:
    """Names, modes and owners below a directory."""
    found = []
    for place, directories, files in os.walk(directory):
        for name in directories + files:
            status = os.lstat(os.path.join(place, name))
            found.append((os.path.join(place, name), status.st_mode, status.st_uid))
    return sorted(found)
