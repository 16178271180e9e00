"""Parts of the doctor that can be looked at alone: control groups, the timing of page walks."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhugetext.doctor import check, pagewalk, process
from pyhugetext.doctor.pagewalk import Timing

GROUPS = {"version": 2, "group": "/a", "limit": 8, "used": 3, "free": 4, "known": (1, 0, 0)}


@pytest.mark.parametrize(
    ("told", "state", "text"),
    [
        ({}, "limit", "3 B in use, memory limit 8 B (cgroup v2 /a)"),
        ({"free": 1 << 30}, "ok", "3 B in use, memory limit 8 B (cgroup v2 /a)"),
        (
            {"limit": None, "group": "", "used": 0, "free": None},
            "ok",
            "no memory limit (cgroup v2)",
        ),
        (
            {"limit": None, "group": "", "free": None, "version": 0},
            "unknown",
            "unknown: no memory controller is seen",
        ),
    ],
    ids=["a limit", "a limit far away", "no limit", "no groups"],
)
def test_groups_as_the_core_reads_them(monkeypatch, told, state, text):
    monkeypatch.setattr(process._native, "memory_room", lambda: {**GROUPS, **told})
    found = process._cgroup()
    assert (found.state, found.text) == (state, text)
    seen = told.get("version", 2)
    assert found.facts["version"] == (seen or None)
    limited = told.get("limit", 8) is not None
    assert found.facts["memory_used"] == (3 if limited else None)


def test_groups_that_cannot_be_read_are_a_limit(monkeypatch):
    status = process._native.STATUSES.index("memory_limit")
    failed = {
        "version": 0,
        "limit": None,
        "known": (status, process._native.CALLS.index("open"), 13),
    }
    monkeypatch.setattr(process._native, "memory_room", lambda: {**GROUPS, **failed})
    told = process._cgroup()
    assert told.state == "limit"
    assert "open failed with EACCES" in told.text


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
        try:
            _native.open_counter(0xFFFF, 0, commands=False)
            raise SystemExit("there is no such kind of counter")
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.EINVAL, errno.EACCES, errno.EPERM,
                                   errno.ENOSYS, errno.EOPNOTSUPP)
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
