"""Whether each target finds a defect: planted.py DIRECTORY [TARGET]... copies the sources there, with one
defect for each target, and runs the targets. Ends with 1 where one finds nothing, or a defect has no
place any more. What was found before is left out: it might be what finds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("Makefile", "src/native", "tests/fuzz", "tests/support", "tests/native")
RUNS = 1_000_000


class Defect(NamedTuple):
    file: str  # of src/native
    right: str
    wrong: str


DEFECTS = {
    "entry": Defect(
        "store/store.cpp",
        "return !hole.ok() || hole.value() >= offset + length;",
        "return hole.ok() || offset || length;",
    ),
    "groups": Defect("limits/groups.cpp", "else\n            sys::close(fd);", "else\n            (void)0;"),
    "layout": Defect(
        "builder/offsets.cpp",
        "end_ + (span.start - end_) % kHugeSize;",
        "end_ + (span.start - end_) % kHugeSize + (parts_.size() ? kPageSize : 0);",
    ),
    "maps": Defect("kernel/strings.h", "for (; at < end; ++at) {", "for (; at <= end; ++at) {"),
    "object": Defect(
        "elf/object.cpp", "value_at + value_size > size)", "value_at + value_size > size + 8)"
    ),
    "plan": Defect("elf/plan.cpp", "if (!writable && as_loaded)", "if (as_loaded)"),
    "record": Defect(
        "store/record.cpp", "return out->path[head->path_size - 1] == 0;", "return true;"
    ),
    "settings": Defect(
        "settings/settings.cpp", "character >= 0x7f && character < 0xa1", "character >= 0x80 && character < 0xa1"
    ),
}  # fmt: skip


def plant(place: Path, defect: Defect) -> bool:
    file = place / "src/native" / defect.file
    text = file.read_text()
    file.write_text(text.replace(defect.right, defect.wrong))
    return text.count(defect.right) == 1


def find(target: str, place: Path) -> str:
    """What became of it, in words; `found` where it was."""
    shutil.rmtree(place, ignore_errors=True)
    for name in COPIED:
        source = ROOT / name
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("found"))
        else:
            shutil.copy(source, place / name)
    if not plant(place, DEFECTS[target]):
        return f"has no place in {DEFECTS[target].file}"
    settings = (f"TARGETS={target}", f"RUNS={RUNS}", "COMPARES=0", f"PYTHON={sys.executable}")
    ended = subprocess.run(
        ["make", "-C", place, "fuzz", *settings], capture_output=True, text=True, check=False
    )
    row = next((line for line in ended.stdout.splitlines() if line.startswith(target)), "")
    shutil.rmtree(place)
    if not row:
        return f"was not looked for: {ended.stderr[-2000:]}"
    return "found" if row.split()[-1] != "0" else f"not found: {row}"


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    place = Path(sys.argv[1]).resolve()
    good = True
    for target in sys.argv[2:] or DEFECTS:
        told = find(target, place / target)
        print(f"{target:10} {told}", flush=True)
        good = good and told == "found"
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
