"""Lays out a wheel as it is published: `finish.py WHEEL-OR-DIRECTORY...`, in place.

pip writes files in the order of the archive. What starts with every python comes after all that it
loads: a library that was written in part, on a full disk or by a pip that was killed, would end every
python of the environment with SIGBUS, pip's own too. auditwheel puts those files first.

Times, rights and the order are no longer those of the machine that built, so that two builds are the
same byte for byte.
"""

from __future__ import annotations

import os
import sys
import time
import zipfile
from pathlib import Path

OLDEST = 315532800  # 1980, the first year that an archive can name
LARGEST = 1 << 20  # what pip should download and install in no time


def rank(name: str) -> tuple[int, str]:
    """What pip writes first, second and so on: the package, what starts it, what tells of it."""
    if ".dist-info/" in name:
        return (3 if name.endswith("/RECORD") else 2, name)
    return (1 if "/" not in name else 0, name)


def finish(wheel: Path) -> None:
    """Writes the archive anew, with the same files."""
    epoch = max(OLDEST, int(os.environ.get("SOURCE_DATE_EPOCH", OLDEST)))
    when = time.gmtime(epoch)
    date = (when[0], when[1], when[2], when[3], when[4], when[5])
    unfinished = wheel.with_suffix(".unfinished")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(unfinished, "w") as new:
        for name in sorted((n for n in old.namelist() if not n.endswith("/")), key=rank):
            entry = zipfile.ZipInfo(name, date)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            mode = 0o755 if name.endswith(".so") else 0o644
            entry.external_attr = (0o100000 | mode) << 16
            new.writestr(entry, old.read(name), compresslevel=9)
    unfinished.replace(wheel)
    if wheel.stat().st_size > LARGEST:
        sys.exit(f"{wheel.name}: {wheel.stat().st_size} bytes, more than {LARGEST}")


def main() -> None:
    """Finishes each wheel that is named, and each in a directory that is named."""
    for place in map(Path, sys.argv[1:]):
        for wheel in sorted(place.glob("*.whl")) if place.is_dir() else [place]:
            finish(wheel)


if __name__ == "__main__":
    main()
