"""Another user who exchanges a directory of a store for a link, again and again, while root makes
the store: root's files elsewhere keep what they have."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.common import STRANGER, clean_environment
from support.users import Namespace, as_user, namespace

SECONDS = float(os.environ.get("TOGGLE_SECONDS", "1"))

# Exchanges whatever appears at argv[1] for a link to a file of root's, or to a directory, by turns
# and as soon as it can, until its input ends.
TOGGLE = """
import contextlib, ctypes, os, select, sys
place, *targets = sys.argv[1:]
other = place + ".other"
rename = ctypes.CDLL(None).renameat2
names = os.fsencode(place), os.fsencode(other)
print("ready", flush=True)
turn = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with contextlib.suppress(OSError):
        os.symlink(targets[turn % 2], other)
    for _ in range(2000):
        if rename(-100, names[0], -100, names[1], 2) == 0:  # RENAME_EXCHANGE
            turn += 1
            break
    for name in (place, other):
        with contextlib.suppress(OSError):
            os.unlink(name)
        with contextlib.suppress(OSError):
            os.rmdir(name)
print(turn)
"""

# Opens a store, and makes it, for so many seconds; then says how often, and how often with what.
MAKE = """
import collections, json, os, sys, time
from pyhugetext import _native
told = collections.Counter()
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    problem = _native.store_open((os.fsencode(sys.argv[1]), 1 << 30, True, False, False, b""), True)
    told[problem[0] if problem else "none"] += 1
print(json.dumps(told))
"""


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


def state_of(path: Path) -> tuple[int, int, int, object]:
    status = path.stat()
    content = sorted(os.listdir(path)) if path.is_dir() else path.read_bytes()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_ino, content


# "root" is the case of a user who has the name first; below that, a mistaken administrator gave
# the directory above away.
@pytest.mark.parametrize("step", [".", "v1", "v1/index", "v1/objects", "v1/tmp"])
def test_link_in_place_of_a_directory_is_never_followed(space: Namespace, step: str) -> None:
    root = Path("/dev/shm/pyhugetext-0")
    place = root / step
    precious = [Path("/dev/shm/precious"), Path("/dev/shm/precious.d")]
    script = f"""
    echo keep > {precious[0]}; chmod 644 {precious[0]}
    mkdir {precious[1]}; chmod 711 {precious[1]}; echo keep > {precious[1]}/file
    mkdir -p {place.parent}
    """
    space.run("sh", "-ec", script)
    if step != ".":
        space.run("chown", f"{STRANGER}:{STRANGER}", str(place.parent))
    before = [state_of(space.sees(path)) for path in precious]
    environ = clean_environment(PYHUGETEXT="0")
    attacker = subprocess.Popen(
        [*space.prefix, *as_user(STRANGER), "env", sys.executable, "-S", "-c", TOGGLE, str(place),
         *map(str, precious)],
        env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "ready\n"
        made = subprocess.run(
            [*space.prefix, sys.executable, "-c", MAKE, str(root), str(SECONDS)],
            env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        turns, _ = attacker.communicate("end\n")
    assert (made.returncode, made.stderr) == (0, "")
    assert [state_of(space.sees(path)) for path in precious] == before, (turns, made.stdout)


@pytest.mark.parametrize("target", ["directory", "file"])
@pytest.mark.parametrize("step", [".", "v1", "v1/index", "v1/objects", "v1/tmp"])
def test_start_makes_nothing_behind_a_link(space: Namespace, step: str, target: str) -> None:
    """The same at rest: one link, of root's own, and a whole start."""
    place = Path("/dev/shm/pyhugetext-0", step)
    aim = "/dev/shm/elsewhere"
    script = f"mkdir -p {place.parent}; ln -s {aim} {place}\n"
    script += f"mkdir {aim}; chmod 755 {aim}" if target == "directory" else f"echo keep > {aim}"
    space.run("sh", "-ec", script)
    before = state_of(space.sees(aim))
    if step == "." and target == "directory":
        pytest.skip("root's own link to a directory of root's may lead to its store")
    store = space.shm_store()
    for _ in range(2):
        report = store.start()
        assert report.interpreter["backing"] == "none"
    assert state_of(space.sees(aim)) == before
