"""What somebody may do to a file or a directory of a store."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from support.common import STRANGER
from support.users import require_root

Poison = Callable[[Path], None]


def rewrite(path: Path, change: Callable[[bytearray], object]) -> None:
    """Changes a file's bytes in place, whatever its mode."""
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    path.chmod(mode)


def give_away(path: Path) -> None:
    require_root()
    os.chown(path, STRANGER, STRANGER)


def let_group_write(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o020)


def let_others_write(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o002)


def replace_by_link(path: Path) -> None:
    """A symbolic link to what was there: same content, and only the link is wrong."""
    elsewhere = path.with_name(path.name + ".elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere.name)


def truncate(path: Path) -> None:
    rewrite(path, lambda data: data.__delitem__(slice(len(data) // 2, None)))


def empty(path: Path) -> None:
    rewrite(path, bytearray.clear)


def extend(path: Path) -> None:
    rewrite(path, lambda data: data.extend(b"\0"))


def fill_with_zeros(path: Path) -> None:
    rewrite(path, lambda data: data.__setitem__(slice(None), bytes(len(data))))


def grow_to_a_gigabyte(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, 1 << 30)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)
    (path / "full").mkdir(0o700)


def replace_by_fifo(path: Path) -> None:
    remove(path)
    os.mkfifo(path, 0o600)


def replace_by_socket(path: Path) -> None:
    remove(path)
    # A socket's name is short: bound in its directory.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{directory}/{path.name}"[:107])
    except OSError as error:
        pytest.skip(f"no socket can be made of that name: {error}")
    finally:
        os.close(directory)
    assert stat.S_ISSOCK(path.lstat().st_mode)


def replace_by_device(path: Path) -> None:
    require_root()
    remove(path)
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("devices cannot be made here")


def forbid_reading(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path.chmod(0)
