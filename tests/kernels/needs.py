"""What must be there before anything is claimed; where it is not, one sentence and a skip."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

SKIPPED = 77  # automake's word for it: neither passed nor failed


class Skip(Exception):
    """Why nothing can be said here, and what to do about it, as one sentence."""


class Failure(Exception):
    """What went wrong though all that is needed is there, as one sentence."""


# Programs by what they are needed for, and the Debian package that has them.
PROGRAMS = {
    "apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "tar": "tar", "cpio": "cpio",
    "depmod": "kmod", "modprobe": "kmod", "xz": "xz-utils", "zstd": "zstd",
    "mke2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs",
    "qemu-system-x86_64": "qemu-system-x86", "qemu-system-aarch64": "qemu-system-arm",
    "c++": "g++", "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "make": "make", "flex": "flex", "bison": "bison", "bc": "bc",
}  # fmt: skip
ALWAYS = ("apt-get", "apt-cache", "dpkg-deb", "tar", "cpio", "depmod", "modprobe", "xz", "zstd",
          "mke2fs", "mkfs.xfs", "mkfs.btrfs")  # fmt: skip
OF_ARCHITECTURE = {
    "amd64": ("qemu-system-x86_64", "c++"),
    "arm64": ("qemu-system-aarch64", "aarch64-linux-gnu-g++"),
}
TO_BUILD = ("make", "flex", "bison", "bc")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def require_programs(names: Iterable[str], path: str = PATH) -> None:
    """Skips where one is missing, with the packages that bring them all."""
    missing = [name for name in names if not shutil.which(name, path=path)]
    if missing:
        packages = sorted({PROGRAMS[name] for name in missing})
        raise Skip(
            f"{', '.join(missing)} is missing: install it (Debian: apt-get install"
            f" --no-install-recommends {' '.join(packages)})"
        )


def require_room(place: Path, gigabytes: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if free < gigabytes << 30:
        raise Skip(
            f"{place} has {free >> 30} GB free, and {gigabytes} are needed: set WORK=/a/folder"
        )


def run(command: Sequence[str | Path], what: str, **options: object) -> str:
    """What it printed; a failure is one sentence with the last line that it said."""
    arguments = [str(part) for part in command]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if result.returncode:
        said = (result.stderr.strip() or result.stdout.strip() or "nothing was said").splitlines()
        raise Failure(f"{what}: {arguments[0]} exited with {result.returncode}: {said[-1]}")
    return str(result.stdout)
