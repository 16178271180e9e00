"""In a control group of little memory a page of the store of which little is used is not mapped: it
would count whole, in the group and in the PSS of each process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.common import HUGE
from support.groups import Group
from support.growing import FAR, use
from support.limits import MIB
from support.store import Store, require_huge_disk

ALL = ",".join(str(n) for n in range(FAR))
ENTER = 'echo $$ >"$0"/cgroup.procs && exec "$@"'


@pytest.fixture
def store(tmp_path: Path, far: Path) -> Store:
    """Has the whole library, of which each 2 MiB hold two functions and nothing else that runs."""
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store", backing="auto")
    for _ in range(2):
        use(store, far, ALL, PYHUGETEXT_BUILD_TIME="unlimited")
    whole = use(store, far, "3")
    assert whole["backing"] == "store"
    assert whole["mapped_bytes"] > (FAR - 4) * MIB
    return store


def inside(store: Store, group: Group, size: int) -> Store:
    group.limit(size)
    return replace(store, prefix=("sh", "-c", ENTER, str(group.path)))


def test_what_little_is_used_of_stays_small_in_a_small_group(
    store: Store, far: Path, group: Group
) -> None:
    told = use(inside(store, group, 200 * MIB), far, "3", ALL)
    assert (told["backing"], told["mapped_bytes"], told["private"]) == ("none", 0, 0)
    assert "little of this page is used" in told["reason"]
    assert group.killed == 0


def test_what_little_is_used_of_is_not_asked_for_at_each_start(
    tmp_path: Path, far: Path, group: Group
) -> None:
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store", backing="auto")
    for _ in range(3):
        use(store, far, "3")
    small = inside(store, group, 200 * MIB)
    use(small, far, "3")
    before = store.fingerprint()
    told = use(small, far, "3")
    assert "little of this page is used" in told["reason"]
    assert store.fingerprint() == before


def test_large_group_takes_all(store: Store, far: Path, group: Group) -> None:
    assert use(inside(store, group, 300 * MIB), far, "3", ALL)["mapped_bytes"] > (FAR - 4) * MIB


def test_named_backing_takes_all(store: Store, far: Path, group: Group) -> None:
    small = replace(inside(store, group, 200 * MIB), backing="store")
    assert use(small, far, "3", ALL)["mapped_bytes"] > (FAR - 4) * MIB


def test_page_of_which_much_is_used_is_taken(store: Store, far: Path, group: Group) -> None:
    """Whoever reads the text from end to end uses all of it."""
    read = f"""
import ctypes
library = ctypes.CDLL({str(far)!r})
first = ctypes.cast(library.g3, ctypes.c_void_p).value
ctypes.string_at(first, {8 * HUGE})
"""
    small = inside(store, group, 200 * MIB)
    result = small.run(
        read + "import pyhugetext\nprint(sum(r.mapped_bytes for r in pyhugetext.remap().regions"
        f" if r.path == {str(far)!r}))"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert 6 * HUGE <= int(result.stdout) < (FAR - 4) * MIB
