"""Containers as far as the package can tell: an overlay over all of this machine's files, its upper
layer on a file system of its own, entered by chroot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cli import Cli, need_root, need_tool, public_directory
from support.store import require_huge_disk
from support.users import Namespace, namespace

SETUP = """
truncate -s {size}M "{place}/disk"
mkfs.ext4 -q "{place}/disk"
mkdir "{place}/layers"
mount -o loop "{place}/disk" "{place}/layers"
"""
CONTAINER = """
set -e
cd "$1"
mkdir -p "layers/$2" "layers/$2.work" "root-$2"
mount -t overlay -o "lowerdir=$3/,upperdir=$PWD/layers/$2,workdir=$PWD/layers/$2.work" \
    overlay "root-$2"
mount -t proc proc "root-$2/proc"
mount --rbind /dev "root-$2/dev"
mount -t tmpfs -o mode=1777 tmpfs "root-$2/dev/shm"
mount --rbind /sys "root-$2/sys"
"""


class Containers:
    """Makes containers in one mount namespace, from layers of one another."""

    def __init__(self, space: Namespace, place: Path) -> None:
        self.space, self.place = space, place

    def make(self, name: str, *below: str) -> Container:
        """A new container above these layers, the upper ones first, and all of this machine."""
        layers = "".join(f"{self.place}/layers/{layer}:" for layer in below)
        command = ["sh", "-c", CONTAINER, "sh", str(self.place), name, layers]
        done = subprocess.run(
            [*self.space.prefix, *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"there are no overlays to be made here: {done.stderr.strip()}")
        prefix = (*self.space.prefix, "chroot", str(self.place / f"root-{name}"))
        probe = [*prefix, sys.executable, "-c", "import pyhugetext._boot"]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            pytest.skip("the interpreter of these tests lies on another file system than /")
        return Container(self, name, prefix)

    def repack(self, layer: str, name: str) -> None:
        """Packs a layer and unpacks it under another name, as a registry and a pull do."""
        script = 'mkdir "$2" && tar -C "$1" -cf - . | tar -C "$2" --same-owner -xpf -'
        layers = self.place / "layers"
        self.space.run("sh", "-c", script, "sh", str(layers / layer), str(layers / name))


class Container:
    """A running one."""

    def __init__(self, among: Containers, name: str, prefix: tuple[str, ...]) -> None:
        self.among, self.name, self.prefix = among, name, prefix

    def cli(self, *before: str) -> Cli:
        """The command line there, `before` in front of it."""
        cli = Cli(Path("/var/cache/pyhugetext"))
        cli.prefix = (*self.prefix, *before)
        return cli

    def sees(self, path: str) -> Path:
        """Where this process finds a path of the container."""
        return self.among.space.sees(self.among.place / f"root-{self.name}{path}")


@contextmanager
def containers(size: int = 600) -> Iterator[Containers]:
    """What makes containers, on a disk of so many MiB. Skips where that is not possible."""
    need_root()
    need_tool("mkfs.ext4", "chroot", "tar")
    with public_directory() as place:
        require_huge_disk(place)
        with namespace(SETUP.format(place=place, size=size), shm="") as space:
            yield Containers(space, place)
