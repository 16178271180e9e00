"""Which kernels there are to ask, by the names that KERNELS takes, and how each comes here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from kernels.archive import Archive
from kernels.needs import ALWAYS, OF_ARCHITECTURE, TO_BUILD, Failure, Skip, require_programs, run


class Kind(NamedTuple):
    suite: str
    release: str  # what `uname -r` begins with
    architecture: str = "amd64"
    source: str = ""  # the package with the sources, where it is built here
    what: str = "Debian's"


KINDS = {
    "6.1": Kind("bookworm", "6.1."),
    "6.12": Kind("trixie", "6.12."),
    "7": Kind("sid", "7."),
    "arm64-6.1": Kind("bookworm", "6.1.", "arm64"),
    "5.10": Kind("bullseye", "5.10.", what="Debian's, without MADV_COLLAPSE"),
    "rothp-6.1": Kind("bookworm", "6.1.", source="linux-source-6.1", what="READ_ONLY_THP_FOR_FS"),
    "rothp-5.10": Kind(
        "bullseye", "5.10.", source="linux-source-5.10", what="READ_ONLY_THP_FOR_FS"
    ),
}
USUAL = ("6.1", "6.12", "7")
LOCAL = "-rothp"  # how `uname -r` ends of what is built here: fragment.config's CONFIG_LOCALVERSION


def of_section(head: str) -> str | None:
    """Which kernel a head of docs/platforms.md, "RELEASE, ARCHITECTURE", is about."""
    release, _, architecture = head.partition(", ")
    for name, kind in KINDS.items():
        if release == f"{name}: did not boot":
            return name
        here = (release.endswith(LOCAL), architecture) == (bool(kind.source), kind.architecture)
        if here and release.startswith(kind.release):
            return name
    return None


class Kernel(NamedTuple):
    image: Path
    modules: Path | None  # the folder that holds lib/modules; None where all is built in


def require(names: list[str]) -> None:
    """Skips before anything is fetched where a program is missing or a name is unknown."""
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise Skip(
            f"there is no kernel {' or '.join(unknown)} to ask: KERNELS takes {' '.join(KINDS)}"
        )
    programs = list(ALWAYS)
    for name in names:
        programs += OF_ARCHITECTURE[KINDS[name].architecture]
        programs += TO_BUILD if KINDS[name].source else ()
    require_programs(dict.fromkeys(programs))


def kernel(name: str, work: Path) -> Kernel:
    kind = KINDS[name]
    archive = Archive(work, kind.suite, kind.architecture)
    return _built(kind, archive, work) if kind.source else _packaged(kind, archive, work)


def _packaged(kind: Kind, archive: Archive, work: Path) -> Kernel:
    """The newest of the suite. Later suites have the image and the modules in packages of their own."""
    newest = [p for p in archive.depends(f"linux-image-{kind.architecture}") if "image" in p]
    if not newest or not newest[0].startswith(f"linux-image-{kind.release}"):
        raise Skip(f"the newest kernel of Debian's {kind.suite} is {newest}, not {kind.release}*")
    image = newest[0]
    parts = archive.depends(image)
    packages = [image, *(p for p in parts if re.match(r"linux-(binary|modules|base)-\d", p))]
    place = work / "kernels" / image
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        archive.unpack(packages, place)
        (place / "done").touch()
    images = [*place.glob("boot/vmlinuz-*"), *place.glob("usr/lib/modules/*/vmlinuz")]
    top = next((p for p in (place / "usr", place) if (p / "lib/modules").is_dir()), None)
    if not images or top is None:
        raise Failure(f"{' '.join(packages)} has no image or no modules")
    version = next((top / "lib/modules").iterdir()).name
    if not (top / "lib/modules" / version / "modules.dep").exists():
        run(["depmod", "-b", top, version], f"the modules of {version}")
    return Kernel(images[0], top)


def _built(kind: Kind, archive: Archive, work: Path) -> Kernel:
    """tinyconfig and the fragment; 5 to 15 minutes on two idle processors."""
    (package,) = archive.fetch([kind.source])
    place = work / "built" / package.stem
    image = place / "output/arch/x86/boot/bzImage"
    here = Path(__file__).parent
    if not image.exists():
        shutil.rmtree(place, ignore_errors=True)
        archive.unpack([kind.source], place)
        (place / "source").mkdir()
        packed = place / f"usr/src/{kind.source}.tar.xz"
        command = ["tar", "xJf", packed, "-C", place / "source", "--strip-components=1"]
        run(command, f"{packed.name} cannot be unpacked")
        fragment = here / "fragment.config"
        command = [here / "build_kernel.sh", place / "source", place / "output", fragment]
        run(command, f"{kind.source} cannot be built")
        for folder in ("source", "usr"):
            shutil.rmtree(place / folder)
    return Kernel(image, None)
