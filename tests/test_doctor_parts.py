"""Parts of the doctor that can be looked at alone: control groups, the timing of page walks."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhugetext.doctor import cgroup, check, pagewalk
from pyhugetext.doctor.pagewalk import Timing

MIB = 1 << 20


class Groups:
    """A hierarchy in a directory, and what /proc says of it."""

    def __init__(self, root, monkeypatch, own: str, mount: str) -> None:
        self.point = root / "mount point"
        self.proc = {
            "/proc/self/cgroup": own,
            "/proc/self/mountinfo": mount.format(point=str(self.point).replace(" ", "\\040")),
        }
        monkeypatch.setattr(
            cgroup, "read_text", lambda path: self.proc.get(path, check.read_text(path))
        )

    def add(self, path: str, **files: str) -> None:
        directory = self.point / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name.replace("__", ".")).write_text(text + "\n")


def version_2(tmp_path, monkeypatch, own: str, root: str = "/") -> Groups:
    mount = f"29 22 0:26 {root} {{point}} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
    return Groups(tmp_path, monkeypatch, f"0::{own}\n", mount)


def test_no_limit_in_version_2(tmp_path, monkeypatch):
    groups = version_2(tmp_path, monkeypatch, "/user.slice")
    groups.add("")
    groups.add("user.slice", memory__max="max", memory__current=str(5 * MIB))
    assert cgroup.memory() == cgroup.Memory(2, "/user.slice", None, 5 * MIB)


def test_tightest_limit_on_the_way_up_counts(tmp_path, monkeypatch):
    groups = version_2(tmp_path, monkeypatch, "/a/b/c")
    groups.add("a", memory__max=str(100 * MIB), memory__current=str(60 * MIB))
    groups.add("a/b", memory__max=str(300 * MIB), memory__current=str(50 * MIB))
    groups.add("a/b/c", memory__max="max", memory__current=str(10 * MIB))
    assert cgroup.memory() == cgroup.Memory(2, "/a", 100 * MIB, 60 * MIB)


def test_container_sees_its_part_of_the_hierarchy(tmp_path, monkeypatch):
    groups = version_2(tmp_path, monkeypatch, "/docker/123/task", root="/docker/123")
    groups.add("", memory__max=str(64 * MIB), memory__current="0")
    groups.add("task", memory__max="max", memory__current="0")
    assert cgroup.memory() == cgroup.Memory(2, "/", 64 * MIB, 0)


def test_group_that_is_not_mounted_here(tmp_path, monkeypatch):
    groups = version_2(tmp_path, monkeypatch, "/somewhere/else")
    groups.add("", memory__max=str(32 * MIB), memory__current=str(MIB))
    assert cgroup.memory() == cgroup.Memory(2, "/", 32 * MIB, MIB)


def test_version_1_beside_an_empty_version_2(tmp_path, monkeypatch):
    mount = (
        "30 29 0:30 / /elsewhere rw - cgroup2 cgroup2 rw\n"
        "31 29 0:31 / {point} rw - cgroup cgroup rw,memory\n"
    )
    own = "9:name=systemd:/\n4:memory,hugetlb:/task\n0::/\n"
    groups = Groups(tmp_path, monkeypatch, own, mount)
    groups.add("task", memory__limit_in_bytes=str(96 * MIB), memory__usage_in_bytes=str(90 * MIB))
    assert cgroup.memory() == cgroup.Memory(1, "/task", 96 * MIB, 90 * MIB)
    groups.add("task", memory__limit_in_bytes="9223372036854771712")
    assert cgroup.memory() == cgroup.Memory(1, "/task", None, 90 * MIB)


@pytest.mark.parametrize("own", ["", "0::/\n", "garbage\n", "4:memory:\n"])
def test_nothing_to_be_seen(tmp_path, monkeypatch, own):
    Groups(tmp_path, monkeypatch, own, "garbage\n1 2 3\n - cgroup2\n")
    assert cgroup.memory() is None


@given(st.floats(1, 500), st.floats(0, 1), st.floats(0, 1))
def test_share_of_the_walk_that_is_saved(small, floor_share, saved_share):
    floor = small * floor_share
    huge = small - (small - floor) * saved_share
    saved = Timing(small, huge, floor, huge / small, 0, 0).saved
    if small - floor > 0.2 * small:
        assert saved == pytest.approx(saved_share, abs=1e-6)
    else:
        assert saved is None  # there is nothing to be saved


def test_ring_visits_every_cell_once_and_in_no_order(python):
    code = """
        import json, mmap, struct
        from pyhugetext import _native
        from pyhugetext.doctor import memory
        told = {}
        for stride in (64, 4096):
            cells = 500
            with memory.aligned(stride * cells) as (view, _):
                assert _native.address_of(view) % (2 << 20) == 0
                _native.link_cells(view, stride)
                at, seen = 0, []
                for _ in range(cells):
                    seen.append(at // stride)
                    (at,) = struct.unpack_from("=Q", view, at)
                told[stride] = [seen, at]
                assert _native.chase_cells(view, 1000) > 0
        for bad in ((64, 63), (4096, 100), (64, 0), (4096, 8192)):
            with memory.aligned(2 << 20) as (view, _):
                try:
                    _native.link_cells(view[:bad[0]], bad[1])
                except ValueError:
                    continue
                raise SystemExit(f"took {bad}")
        print(json.dumps(told))
    """
    told = json.loads(python(code, env={"PYHUGETEXT": "0"}).stdout)
    for seen, last in told.values():
        assert sorted(seen) == list(range(500))
        assert seen != sorted(seen)
        assert last == 0  # back at the beginning


def test_counter_and_prctl_answer(python):
    code = """
        import errno
        from pyhugetext import _native
        assert _native.try_counter(0xFFFF, 0) in (errno.ENOENT, errno.EINVAL, errno.EACCES,
                                                 errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
        assert _native.ask_prctl(3) in (0, 1)  # PR_GET_DUMPABLE
        assert _native.ask_prctl(-5) == -1
    """
    python(code, env={"PYHUGETEXT": "0"})


@pytest.mark.parametrize("ticks", [(0,), (0, 4_000_000), (4_000_000, 4_000_000, 0)])
def test_clock_that_does_not_advance_within_a_walk_is_told(monkeypatch, ticks):
    times = itertools.cycle(ticks)
    monkeypatch.setattr(pagewalk._native, "chase_cells", lambda *_: next(times))
    monkeypatch.setattr(pagewalk.memory, "huge_bytes", lambda view: len(view))
    found = pagewalk.check(None)
    assert found.state == check.UNKNOWN
    assert found.text == "not timed: the clock is too coarse to time a walk"
    assert found.facts["ratio"] is None
