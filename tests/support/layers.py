"""Images of containers, made of real layers: a library in one, the system's store in another."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cli import Cli, need_root, need_tool
from support.common import HUGE
from support.store import Store, require_huge_disk
from support.users import Namespace, namespace

ANSWER = {3: 3 * 7 * 3 + 69, 5: 3 * 7 * 5 + 69}

OVERLAY = """
mount -t overlay -o lowerdir="{lower}",upperdir="{upper}",workdir="{work}" overlay "{root}"
mkdir -p "{root}/cache"
mount --bind "{root}/cache" /var/cache
"""
CONTAINER = """
mount -t tmpfs -o mode=755 tmpfs "{top}"
mkdir "{top}/upper" "{top}/work"
"""
# What the package does with the library: `read` are the bytes read from files meanwhile.
LOOK = """
import ctypes, json, re, sys, pyhugetext

def count():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])

library = ctypes.CDLL(sys.argv[1])
getattr(library, "all")(7), library.f40(7)  # all 2 MiB of it were used before
before = count()
stats = pyhugetext.remap()
told = {"read": count() - before, "answer": getattr(library, "all")(7)}
(region,) = [r for r in stats.regions if r.path == sys.argv[1]]
told["backing"], told["reason"] = region.backing, region.reason
for at in range(region.start, region.end, 4096):
    ctypes.string_at(at, 1)
if sys.argv[2:]:
    print("ready", flush=True)
    sys.stdin.readline()
found = {}
with open("/proc/self/smaps") as file:
    for line in file:
        if re.match("[0-9a-f]+-", line):
            counts = "/cache/pyhugetext/" in line and line.rstrip().endswith("libvictim.so")
        elif counts and line.split()[2:] == ["kB"]:
            name, size, _ = line.split()
            found[name[:-1]] = found.get(name[:-1], 0) + int(size)
told["smaps"] = found
print(json.dumps(told))
"""


def align(library: Path, alignment: int = HUGE) -> None:
    """Has the dynamic linker put a library at 2 MiB boundaries wherever it lies."""
    content = bytearray(library.read_bytes())
    at, size, count = (
        struct.unpack_from("<Q", content, 32)[0],
        *struct.unpack_from("<HH", content, 54),
    )
    for header in range(at, at + size * count, size):
        if struct.unpack_from("<I", content, header)[0] == 1:
            struct.pack_into("<Q", content, header + 48, alignment)
            break
    library.write_bytes(content)


@dataclass(frozen=True)
class Look:
    backing: str
    reason: str | None
    answer: int
    read: int
    smaps: dict[str, int]  # in kB, of what is mapped from the store

    @property
    def was_compared(self) -> bool:
        return self.read > 4 << 20


class Container:
    """A running one."""

    def __init__(self, space: Namespace, root: Path) -> None:
        self.space, self.root = space, root
        self.store = Store(Path("/nonexistent/store"), space.prefix)

    def seen(self, path: str) -> Path:
        """Where this process finds a path of the container's."""
        return self.space.sees(self.root / path)

    def cli(self, store: Path = Path("/nonexistent/store")) -> Cli:
        cli = Cli(store)
        cli.prefix = self.space.prefix
        return cli

    def warm(self, *paths: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Fills the system's store with what a program that loads these uses."""
        self.seen("app/sample.py").write_text(
            "import ctypes\n"
            + "".join(f"ctypes.CDLL({str(self.root / path)!r})\n" for path in paths)
        )
        environ = {"PYTHONPATH": str(self.root / "app"), **env}
        result = self.cli()("warm", "--system", "--json", "sample", **environ)
        if "never gives" in result.stderr:
            pytest.skip("overlayfs over the temporary directory has no huge pages for files")
        return result

    def look(self, path: str = "app/libvictim.so", prefix: tuple[str, ...] = ()) -> Look:
        result = self.store.run(
            LOOK, str(self.root / path), prefix=prefix, PYHUGETEXT_BUILD="never"
        )
        assert (result.returncode, result.stderr) == (0, "")
        return Look(**json.loads(result.stdout))

    @contextlib.contextmanager
    def looking(self) -> Iterator[subprocess.Popen[str]]:
        """A process that has used all of the library's text, and ends at a line of input."""
        command = [*self.space.prefix, sys.executable, "-c", textwrap.dedent(LOOK)]
        process = subprocess.Popen(
            [*command, str(self.root / "app/libvictim.so"), "wait"],
            env=self.store.environment(PYHUGETEXT_BUILD="never"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
            process.communicate()


class Image:
    """Layers, the lowest first, and where containers have them."""

    def __init__(self, place: Path) -> None:
        need_root()
        need_tool("tar")
        require_huge_disk(place)
        self.place, self.root = place, place / "root"
        self.root.mkdir()
        self.layers = [place / "layers" / "0", place / "layers" / "1"]
        for layer in self.layers:
            layer.mkdir(parents=True)

    def add(self, library: Path, path: str = "app/libvictim.so", aligned: bool = True) -> Path:
        """Puts a library into the lowest layer."""
        target = self.layers[0] / path
        target.parent.mkdir(exist_ok=True)
        shutil.copy(library, target)
        target.chmod(0o755)
        if aligned:
            align(target)
        return target

    def warm(self, *paths: str) -> dict[str, str]:
        """Fills the system's store, in the upper layer. What becomes of each object, by path."""
        with self.built() as container:
            result = container.warm(*paths)
        assert result.returncode == 0, result.stderr
        return self.objects(result)

    def objects(self, result: subprocess.CompletedProcess[str]) -> dict[str, str]:
        objects = json.loads(result.stdout)["objects"]
        return {os.path.relpath(one["path"], self.root): one["status"] for one in objects}

    @contextlib.contextmanager
    def built(self) -> Iterator[Container]:
        """A container whose changes are the upper layer."""
        upper, work = self.layers[-1], self.place / "work"
        work.mkdir()
        lower = ":".join(str(layer) for layer in reversed(self.layers[:-1]))
        setup = OVERLAY.format(lower=lower, upper=upper, work=work, root=self.root)
        with namespace(setup) as space:
            yield Container(space, self.root)
        shutil.rmtree(work)

    @property
    def records(self) -> list[Path]:
        return sorted((self.layers[-1] / "cache/pyhugetext/v1/index").glob("image-*"))

    def unpack(self, how: str = "tar", settled: bool = True) -> list[Path]:
        """The same layers on another machine, as far as the kernel tells: with other inodes and
        change times. `settled`: on disk, and out of memory."""
        out = []
        for layer in self.layers:
            target = self.place / f"unpacked-{how}" / layer.name
            target.mkdir(parents=True)
            if how == "tar":
                packed = subprocess.run(
                    ["tar", "-C", layer, "-c", "."], check=True, capture_output=True
                ).stdout
                subprocess.run(["tar", "-C", target, "-x"], input=packed, check=True)
            else:
                subprocess.run(["cp", "-a", f"{layer}/.", target], check=True)
            out.append(target)
        if settled:
            settle(out)
        return out

    @contextlib.contextmanager
    def container(self, layers: list[Path], setup: str = "") -> Iterator[Container]:
        """Starts one: the layers below, and changes in memory."""
        top = self.place / "top"
        top.mkdir(exist_ok=True)
        lower = ":".join(str(layer) for layer in reversed(layers))
        shell = CONTAINER.format(top=top)
        shell += OVERLAY.format(lower=lower, upper=top / "upper", work=top / "work", root=self.root)
        with namespace(shell + setup.format(root=self.root, place=self.place)) as space:
            yield Container(space, self.root)


def settle(layers: list[Path]) -> None:
    """Writes back what is in them and drops it from memory."""
    for layer in layers:
        for path in layer.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
