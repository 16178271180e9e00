"""One guest: an initramfs, four or five disks, qemu without KVM, and what it said on its console."""

from __future__ import annotations

import json
import os
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kernels import kinds
from kernels.needs import PATH, run

MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "crc32c_generic", "crc32c-intel", "ext4", "xfs",
           "btrfs", "overlay", "loop", "squashfs")  # fmt: skip
QEMU = {
    "amd64": ("qemu-system-x86_64", "-M", "q35", "-cpu", "max"),
    "arm64": ("qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"),
}
# On a busy machine an emulated timer may not tick in the moment that Linux gives it.
APPEND = {"amd64": "console=ttyS0 no_timer_check", "arm64": "console=ttyAMA0"}
SIZE = 1400 << 20  # bytes of each disk; sparse
BEHIND = 10  # what nice says of a guest
BUSY = 5
LAST = "warmed"  # of the steps of a file system
Row = dict[str, Any]


class Limits(NamedTuple):
    """Seconds until a guest's first line, and until its last: of the processor, since others may take
    most of it; and BUSY times as many by the clock, for a guest that waits for ever."""

    boot: int
    all: int

    def are_over(self, booted: bool, clock: float, processor: float) -> bool:
        limit = self.all if booted else self.boot
        return processor >= limit or clock >= limit * BUSY


def initramfs(kernel: kinds.Kernel, root: Path, output: Path) -> Path:
    """Busybox, the first process, and the modules in the order in which they are to come."""
    with tempfile.TemporaryDirectory(dir=output.parent) as name:
        place = Path(name)
        for folder in ("bin", "dev", "proc", "sys", "modules", "m", "tmp", "root", "run", "etc"):
            (place / folder).mkdir()
        shutil.copy(root / "bin/busybox", place / "bin/busybox")
        shutil.copy(Path(__file__).parent / "guest/init.sh", place / "init")
        (place / "init").chmod(0o755)
        if kernel.modules:
            order = [_module(f, place / "modules") for f in _wanted(kernel.modules)]
            (place / "modules/order").write_text("".join(f"{name}\n" for name in order))
        command = f"find . | cpio -o -H newc --quiet -R 0:0 | gzip -1 >{shlex.quote(str(output))}"
        run(["sh", "-c", command], "the initramfs", cwd=place)
    return output


def _wanted(top: Path) -> list[Path]:
    version = next((top / "lib/modules").iterdir()).name
    files: dict[str, None] = {}
    for module in MODULES:  # one that is built in, or not there, is no line here
        command = ["modprobe", "-S", version, "-d", str(top), "--show-depends", module]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in result.stdout.splitlines():
            word, _, path = line.strip().partition(" ")
            if word == "insmod":
                files.setdefault(path.split()[0])
    return [Path(file) for file in files]


def _module(file: Path, place: Path) -> str:
    unpackers = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-qdc"]}
    if file.suffix not in unpackers:
        shutil.copy(file, place / file.name)
        return file.name
    with (place / file.stem).open("wb") as output:
        subprocess.run([*unpackers[file.suffix], str(file)], stdout=output, check=True)
    return file.stem


def disks(place: Path, tar: Path) -> list[Path]:
    """The root as a tar, then empty file systems; a squashfs of the root where one was made."""
    images = [tar]
    for kind, command in (("ext4", "mke2fs -q -F -t ext4 -b 4096"), ("xfs", "mkfs.xfs -q -f"),
                          ("btrfs", "mkfs.btrfs -q -f")):  # fmt: skip
        image = place / f"{kind}.img"
        with image.open("wb") as file:
            file.truncate(SIZE)
        run([*command.split(), image], f"no {kind} image", env={**os.environ, "PATH": PATH})
        images.append(image)
    squashfs = tar.with_suffix(".squashfs")
    if squashfs.exists():
        images.append(squashfs)
    return images


def boot(
    name: str,
    kernel: kinds.Kernel,
    initrd: Path,
    images: Sequence[Path],
    append: str,
    limits: Limits,
    log: Path,
) -> list[Row]:
    """All rows that the guest told; a guest that did not boot, or not end, is a row, too."""
    architecture = kinds.KINDS[name].architecture
    behind = max(0, BEHIND - os.nice(0))  # of whoever calls this at a lower priority already
    command = ["nice", "-n", str(behind), *QEMU[architecture], "-accel", "tcg,thread=multi", "-m", "3G",
               "-smp", "2", "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel.image),
               "-initrd", str(initrd), "-append",
               f"{APPEND[architecture]} panic=-1 quiet loglevel=1 nowatchdog {append}"]  # fmt: skip
    for number, image in enumerate(images):
        drive = f"file={image},if=none,id=d{number},format=raw,cache=unsafe"
        drive += ",readonly=on" if image.suffix in (".tar", ".squashfs") else ""
        command += ["-drive", drive, "-device", f"virtio-blk-pci,drive=d{number}"]
    lines = _lines(command, limits, log)
    rows = [row for row in map(parse, lines) if row]
    steps = [row["step"] for row in rows]
    if "interrupted" in steps:
        return finished(rows)
    told = [line.strip()[-200:] for line in lines if line.strip()] or ["nothing"]
    said = next((line for line in told if "panic" in line), told[-1])
    if "booted" not in steps:
        rows.append({"step": "did not boot", "limit": limits.boot, "said": said})
    elif "end" not in steps:
        rows.append({"step": "did not end", "limit": limits.all, "said": said[:80]})
    return rows


def finished(rows: Sequence[Row]) -> list[Row]:
    """Without the file system that was being asked when somebody had enough."""
    whole = {row.get("fs") for row in rows if row["step"] in (LAST, "failed")}
    return [row for row in rows if "fs" not in row or row["fs"] in whole]


def parse(line: str) -> Row | None:
    """A line of the console as a row; None for what else is said there."""
    _, mark, text = line.partition("@@ ")
    if not mark:
        return None
    try:
        row = json.loads(text)
    except ValueError:
        return {"step": "damaged", "text": text[:200]}
    return (
        row if isinstance(row, dict) and "step" in row else {"step": "damaged", "text": text[:200]}
    )


def _lines(command: list[str], limits: Limits, log: Path) -> list[str]:
    """The console's lines until qemu ends, or is ended when the time is over."""
    start, rest = time.monotonic(), b""
    with (
        log.open("wb") as file,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout
        selector.register(process.stdout, selectors.EVENT_READ)
        try:
            while not limits.are_over(
                b'"booted"' in rest, time.monotonic() - start, _taken(process.pid)
            ):
                if not selector.select(timeout=1):
                    continue
                block = os.read(process.stdout.fileno(), 65536)
                if not block:
                    break
                file.write(block)
                file.flush()
                rest += block
        except KeyboardInterrupt:
            rest = rest[: rest.rfind(b"\n") + 1] + b'@@ {"step": "interrupted"}\n'
        finally:
            process.kill()
    return rest.decode(errors="replace").replace("\r", "").split("\n")


def _taken(process: int) -> float:
    """Seconds of the processor that a process has had; none any more of one that has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
