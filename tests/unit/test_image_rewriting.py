"""A changed file takes the place of the old one whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyhugetext.cli import preparing
from pyhugetext.cli.preparing import Object
from pyhugetext.image import rewriting, rights, trial
from pyhugetext.image.alignment import Patch
from pyhugetext.image.record import Records
from pyhugetext.image.rights import Left
from support.raw_elf import PHDR, Part, blank_elf, small_elf

CONTENT = bytes(range(256)) * 64
PATCH = Patch(72, int.from_bytes(CONTENT[72:80], "little"), 0x200000)
CHANGED = CONTENT[:72] + PATCH.data + CONTENT[80:]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lib.so"
    path.write_bytes(CONTENT)
    return path


def change(path: Path, check: Callable[[str], None] = lambda name: None) -> None:
    with rewriting.directory_of(str(path)) as (directory, name), path.open("rb") as source:
        rewriting.change(directory, name, source.fileno(), PATCH, check)


def test_everything_but_the_content_stays(file: Path) -> None:
    file.chmod(0o640)
    os.utime(file, ns=(123_456_789_012, 1_234_567_890_123))
    os.setxattr(file, "user.some", b"thing")
    before = file.stat()
    change(file)
    after = file.stat()
    assert file.read_bytes() == CHANGED
    assert os.getxattr(file, "user.some") == b"thing"
    for name in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns"):
        assert getattr(before, name) == getattr(after, name), name
    assert after.st_ino != before.st_ino


def test_check_sees_the_new_file_with_its_mode_and_no_writer(file: Path) -> None:
    file.chmod(0o750)
    seen = []

    def check(name: str) -> None:
        path = file.parent / name
        seen.append((path.read_bytes(), path.stat().st_mode & 0o777, file.read_bytes()))
        assert not any(
            os.path.realpath(f"/proc/self/fd/{fd}") == str(path)
            and fcntl.fcntl(int(fd), fcntl.F_GETFL) & os.O_ACCMODE
            for fd in os.listdir("/proc/self/fd")
        ), "it could not be executed"

    change(file, check)
    assert seen == [(CHANGED, 0o750, CONTENT)]


def refuse(name: str) -> None:
    raise Left("it does not load")


def run_out(name: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("check", [refuse, run_out], ids=lambda check: check.__name__)
def test_what_is_refused_leaves_the_old_file_and_nothing_beside(
    file: Path, check: Callable[[str], None]
) -> None:
    before = file.stat()
    with pytest.raises((Left, OSError)):
        change(file, check)
    assert (file.read_bytes(), file.stat().st_ino) == (CONTENT, before.st_ino)
    assert os.listdir(file.parent) == ["lib.so"]


def overwritten(file: Path) -> None:
    file.write_bytes(CONTENT[::-1])


def exchanged(file: Path) -> None:
    (file.parent / "other").write_bytes(CONTENT[::-1])
    (file.parent / "other").rename(file)


@pytest.mark.parametrize("replace", [overwritten, exchanged], ids=lambda one: one.__name__)
def test_file_that_was_changed_meanwhile_stays(file: Path, replace: Callable[[Path], None]) -> None:
    with pytest.raises(Left, match="changed meanwhile"):
        change(file, lambda name: replace(file))
    assert file.read_bytes() == CONTENT[::-1]
    assert os.listdir(file.parent) == ["lib.so"]


def test_other_bytes_than_were_read_are_not_written_over(file: Path) -> None:
    file.write_bytes(CONTENT[::-1])
    with pytest.raises(Left, match="changed meanwhile"):
        change(file)
    assert file.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_that_cannot_copy_is_helped(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*arguments: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refused)
    monkeypatch.setattr(rewriting, "_CHUNK", 1000)
    change(file)
    assert file.read_bytes() == CHANGED


def test_leftovers_go_but_not_what_is_being_written(file: Path) -> None:
    dead, other = f".pyhugetext-image-{1:016x}.tmp", ".pyhugetext-image-mine.tmp"
    for name in (dead, other):
        (file.parent / name).touch()
    with rewriting.directory_of(str(file)) as (directory, name), file.open("rb") as source:
        with rewriting.Beside(directory, name, source.fileno()) as new:
            assert rewriting.sweep(directory) == 1
            assert sorted(os.listdir(directory)) == sorted([new.name, other, "lib.so"])
        assert rewriting.sweep(directory) == 0
    assert sorted(os.listdir(file.parent)) == sorted([other, "lib.so"])


def test_attribute_that_cannot_be_kept_leaves_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setxattr(file, "user.some", b"thing")

    def refused(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "setxattr", refused)
    with pytest.raises(Left, match=r"its attribute user\.some cannot be kept"):
        change(file)
    assert file.read_bytes() == CONTENT
    assert os.listdir(file.parent) == ["lib.so"]


@pytest.mark.parametrize("name", ["security.ima", "security.evm"])
def test_signed_file_is_told(file: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, "listxattr", lambda fd: ["user.some", name])
    with file.open("rb") as opened, pytest.raises(Left, match=f"signed .{name}"):
        rights.check_signatures(opened.fileno())


LIBRARY = blank_elf([Part(0, 0x1000, 0x1000, 4), Part(0x1000, 0x3000, 0x3000, 5)]).head


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([small_elf(), LIBRARY + bytes(0x4000 - len(LIBRARY))]),
    st.lists(st.tuples(st.integers(0, 64 + 6 * PHDR.size), st.integers(0, 255)), max_size=6),
    st.integers(0, 3 * len(LIBRARY)),
)
def test_broken_file_is_never_written(
    tmp_path: Path, data: bytes, edits: list[tuple[int, int]], cut: int
) -> None:
    """No file of these would load; what is tried does not."""
    broken = bytearray(data)
    for at, value in edits:
        if at < len(broken):
            broken[at] = value
    if cut < len(LIBRARY):
        del broken[cut:]
    path = tmp_path / "lib.so"
    path.unlink(missing_ok=True)
    path.write_bytes(broken)
    status = path.stat()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trial, "load", refuse)
        for do in (preparing.align, preparing.put_back):
            one = Object(str(path))
            do(one, Records([]))
            assert one.alignment in ("left", "already", "fixed", "own", "undone")
            if one.alignment == "undone":  # it asked for 2 MiB as if it had been changed
                return
            assert path.read_bytes() == broken
            assert path.stat().st_ino == status.st_ino
    assert os.listdir(tmp_path) == ["lib.so"]
