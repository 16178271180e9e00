"""What /proc and /sys/fs/cgroup say of the memory that is left, well and badly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.limits import MIB, NO_STORE, ROOM, in_own_mounts
from support.users import require_root


def room_with(
    python: Any, tmp_path: Path, own: str, groups: dict[str, str], code: str = ROOM,
    more: str = "true", **env: str,
) -> Any:  # fmt: skip
    """What `code` prints where /proc tells `own` and /sys/fs/cgroup has these files."""
    require_root()
    place = tmp_path / "groups"
    for name, text in groups.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    place.mkdir(exist_ok=True)
    (tmp_path / "own").write_text(own)
    mounts = f"mount --bind {place} /sys/fs/cgroup && mount --bind {tmp_path}/own /proc/$$/cgroup"
    prefix = in_own_mounts(f"{mounts} && {more}")
    return json.loads(python(code, env={"PYHUGETEXT": "0", **env}, prefix=prefix).stdout)


def files(version: int, path: str, **values: Any) -> dict[str, str]:
    """The files of a group. `max`, `high`, `used`, `inactive`, `huge`, `shared`; None: no file."""
    two = version == 2
    stat = [
        ("anon_thp" if two else "total_rss_huge", values.get("huge", 0)),
        ("shmem" if two else "total_shmem", values.get("shared", 0)),
        ("inactive_file" if two else "total_inactive_file", values.get("inactive", 0)),
    ]
    if not two:
        stat.append(("hierarchical_memory_limit", values.get("above", 9223372036854771712)))
    padding = "".join(f"some_other_event_of_the_kernel_{i} {i}\n" for i in range(100))
    found = {
        "memory.max" if two else "memory.limit_in_bytes": values.get("max", "max"),
        "memory.current" if two else "memory.usage_in_bytes": values.get("used", 0),
        "memory.stat": padding + "".join(f"{name} {value}\n" for name, value in stat),
    }
    if two:
        found["memory.high"] = values.get("high", "max")
    place = path if two else f"memory/{path}"
    return {
        f"{place}/{name}".lstrip("/"): f"{value}\n"
        for name, value in found.items()
        if value is not None
    }


OWN = {1: "9:name=systemd:/\n4:hugetlb,memory:{}\n0::/\n", 2: "0::{}\n"}
NO_LIMIT_1 = 9223372036854771712


@pytest.mark.parametrize("version", [1, 2])
def test_least_limit_on_the_way_up_counts(python, tmp_path, version):
    none = "max" if version == 2 else NO_LIMIT_1
    groups = {
        **files(version, "a", max=160 * MIB, used=100 * MIB, inactive=20 * MIB, huge=4 * MIB),
        **files(version, "a/b", max=320 * MIB, used=310 * MIB, shared=16 * MIB),
        **files(version, "a/b/c", max=none, used=10 * MIB),
    }
    room = room_with(python, tmp_path, OWN[version].format("/a/b/c"), groups)
    assert room == {
        "version": version, "group": "/a", "limit": 160 * MIB, "used": 80 * MIB, "free": 10 * MIB,
        "addresses": None, "data": None, "together": 16 * MIB, "known": room["known"],
    }  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("own", "mounted", "name"),
    [
        ("/docker/123", "", "/"),  # the container's own group is what is mounted
        ("/docker/123/task", "task", "/task"),  # a group in it
        ("/docker/123/task", "", "/"),  # which is not to be seen
        ("/", "", "/"),  # a namespace of control groups
        ("/../../other", "", "/"),  # whose process came from outside
        ("/a/b:c d", "a/b:c d", "/a/b:c d"),
        ("/gone (deleted)", "", "/"),
    ],
)
def test_limit_is_found_in_a_container(python, tmp_path, version, own, mounted, name):
    groups = {**files(version, ""), **files(version, mounted, max=64 * MIB, used=MIB)}
    room = room_with(python, tmp_path, OWN[version].format(own), groups)
    assert (room["limit"], room["group"], room["free"]) == (64 * MIB, name, 63 * MIB)


def test_memory_high_is_a_limit(python, tmp_path):
    groups = files(2, "a", max=256 * MIB, high=128 * MIB, used=28 * MIB)
    room = room_with(python, tmp_path, "0::/a\n", groups)
    assert (room["limit"], room["free"], room["together"]) == (128 * MIB, 100 * MIB, 16 * MIB)


def test_version_1_tells_the_limit_of_groups_that_are_not_mounted(python, tmp_path):
    groups = files(1, "", max=NO_LIMIT_1, used=MIB, above=64 * MIB)
    room = room_with(python, tmp_path, OWN[1].format("/docker/123"), groups)
    assert (room["limit"], room["free"]) == (64 * MIB, 63 * MIB)


def test_more_is_used_than_allowed(python, tmp_path):
    groups = files(2, "a", max=64 * MIB, high=32 * MIB, used=80 * MIB, shared=70 * MIB)
    room = room_with(python, tmp_path, "0::/a\n", groups)
    assert (room["free"], room["together"]) == (0, 0)


@pytest.mark.parametrize("version", [1, 2])
def test_no_limit_anywhere(python, tmp_path, version):
    none = "max" if version == 2 else NO_LIMIT_1
    groups = {**files(version, "a", max=none), **files(version, "a/b", max=none)}
    room = room_with(python, tmp_path, OWN[version].format("/a/b"), groups)
    assert (room["limit"], room["free"], room["version"]) == (None, None, version)


LARGEST = 16 << 30
BROKEN = {
    "no number": ({"max": "much"}, "true", "EINVAL"),
    "empty": ({"max": ""}, "true", "EINVAL"),
    "nothing about what is used": ({"max": LARGEST, "used": None}, "true", "ENOENT"),
    "used is no number": ({"max": LARGEST, "used": "-1"}, "true", "EINVAL"),
    "a directory": ({"max": None}, "mkdir -p /sys/fs/cgroup/a/memory.max", "EISDIR"),
    "a loop": ({"max": None}, "ln -sf memory.max /sys/fs/cgroup/a/memory.max", "ELOOP"),
    "nothing counted": ({"max": LARGEST}, "rm -f /sys/fs/cgroup/a/memory.stat", "ENOENT"),
    "no control groups to be seen": ({"max": None}, "umount /sys/fs/cgroup; mount -t tmpfs none"
                                     " /sys/fs/cgroup", "ENOENT"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_read_leaves_the_program_alone_with_one_sentence(python, tmp_path, what):
    values, more, error = BROKEN[what]
    code = """
        import json, pyhugetext
        stats = pyhugetext.remap()
        print(json.dumps([stats.private_bytes, [r.reason for r in stats.regions if r.coverable_bytes]]))
    """
    env = {**NO_STORE, "PYHUGETEXT_BACKING": "memfd"}
    groups = files(2, "a", **values)
    copied, reasons = room_with(python, tmp_path, "0::/a\n", groups, code, more, **env)
    assert copied == 0
    told = [reason for reason in reasons if "memory limit" in reason]
    assert told
    assert all(f"failed with {error}" in reason for reason in told), told


@pytest.mark.parametrize(
    "own", ["", "garbage\n", "0:\n", "\n\n", "0::/" + "x" * 9000 + "\n", "0::/a"]
)
def test_strange_list_of_groups(python, tmp_path, own):
    room = room_with(python, tmp_path, own, files(2, "", max=64 * MIB))
    assert room["limit"] in (None, 64 * MIB)
