"""Daemons that start as root and then change their user: pagemap is closed to them, for they are not
dumpable any more, and smaps has to do."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.common import PREFIX, STRANGER, Run, big_source, big_sum
from support.extensions import extension_compiler
from support.growing import USE_FAR, bits, chunks_of, make_far, record_of, texts
from support.layouts import last_record
from support.limits import in_own_mounts
from support.once import library_compiler
from support.store import UNSET, Store, require_huge_disk
from support.users import Namespace, as_user, home_of, namespace

FUNCTIONS, PATCHED = 400, 200
RESULT = big_sum(3, FUNCTIONS)
LARGE = big_source(FUNCTIONS, padding=20000) + "\nint result(void) { return (int)f_sum(3); }"

# As setuid(2) of C programs does it; afterwards pagemap must be closed, or nothing is tested.
BECOME = f"""
import ctypes, json, os, sys
def become():
    os.setgroups([])
    os.setgid({STRANGER})
    os.setuid({STRANGER})
    assert_closed()
def assert_closed():
    try:
        open("/proc/self/pagemap", "rb").close()
    except PermissionError:
        return
    raise AssertionError("pagemap is open")
def told(name):
    import pyhugetext
    stats = pyhugetext.stats()
    (region,) = (r for r in stats.regions if os.path.basename(r.path).startswith(name))
    return {{**region._asdict(), "private": stats.private_bytes, "problems": stats.problems,
            "why": stats.reason}}
sys.path.insert(0, sys.argv[1])
"""
SERVE = f"""{BECOME}
become()
import large
assert large.result() == {RESULT}
print(json.dumps(told("large")))
"""


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


@pytest.fixture
def home() -> Iterator[Path]:
    """A service user's home, with two large extension modules in it that are root's."""
    as_user(STRANGER)
    with home_of(STRANGER) as place:
        compile_ = extension_compiler(library_compiler(place))
        for name in ("large", "other"):
            compile_(name, LARGE).chmod(0o755)
        place.chmod(0o755)
        yield place


def serve(space: Namespace, home: Path, code: str = SERVE, **settings: str) -> dict[str, Any]:
    """Runs code as a daemon would, with the modules' directory as its argument."""
    store = Store(home / "unused", space.prefix, "auto")
    settings = {"PYHUGETEXT_STORE": UNSET, "HOME": "/nonexistent", **settings}
    result = store.run(code, str(home), **settings)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    told: dict[str, Any] = last_record(result)
    return told


def is_whole(region: dict[str, Any]) -> bool:
    assert region["problems"] == [], region
    return bool(
        region["coverable_bytes"] > 4 << 20
        and region["mapped_bytes"] >= 0.95 * region["coverable_bytes"]
        and region["huge_bytes"] >= 0.95 * region["coverable_bytes"]
    )


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in [directory, *directory.rglob("*")]}


def test_text_comes_from_the_service_user_s_store(home: Path, space: Namespace) -> None:
    require_huge_disk(home)
    cache = home / "cache"
    cache.mkdir()
    os.chown(cache, STRANGER, STRANGER)
    for _ in range(2):
        region = serve(space, home, XDG_CACHE_HOME=str(cache))
    assert region["backing"] == "store", region
    assert region["mapped_bytes"] >= 0.95 * region["coverable_bytes"] > 4 << 20, region
    assert owners(cache) == {STRANGER}


def test_text_comes_from_a_store_of_root_s_that_all_may_read(home: Path, space: Namespace) -> None:
    require_huge_disk(home)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir="/tmp") as place:
        root = Path(place)
        for _ in range(2):
            serve(
                space,
                home,
                SERVE.replace("\nbecome()", ""),
                PYHUGETEXT_STORE=str(root / "store"),
                PYHUGETEXT_BUILD="always",
            )
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        region = serve(space, home, PYHUGETEXT_STORE=str(root / "store"))
        assert region["backing"] == "store", region
        assert region["mapped_bytes"] >= 0.95 * region["coverable_bytes"] > 4 << 20, region
        assert owners(root) == {0}


def test_of_much_text_what_is_used_is_built(home: Path, space: Namespace) -> None:
    """Which that is, pagemap would tell."""
    require_huge_disk(home)
    library = make_far(home / "far")
    store = Store(home / "store", space.prefix, "auto")
    store.root.mkdir()
    os.chown(store.root, STRANGER, STRANGER)
    for path in (home / "far", library):
        path.chmod(0o755)
    code = BECOME.replace("sys.path", "become()\nsys.path") + USE_FAR
    result = store.run(code, str(library), "3,30")
    assert (result.returncode, result.stderr) == (0, "")
    told = last_record(result)
    assert (told["backing"], told["private"], told["problems"]) == ("store", 0, []), told
    _, record = record_of(store, library)
    built = bits(record.present) & texts(library)
    assert chunks_of(library, 3, 30) <= built
    assert len(built) < len(texts(library)) / 2


def test_without_a_home_the_store_in_shared_memory_is_the_service_user_s(
    home: Path, space: Namespace
) -> None:
    """Not that of the user who started it, whose name it had at its start. Root's home is left
    alone."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir="/tmp") as of_root:
        for _ in range(2):
            region = serve(space, home, HOME=of_root)
        if "kernel said no" in " ".join(region["fallbacks"][2:]):
            pytest.skip(f"no huge pages in shared memory: {region}")
        assert (region["backing"], is_whole(region)) == ("shm", True), region
        assert owners(Path(of_root)) == {0}
    own = space.sees(f"/dev/shm/pyhugetext-{STRANGER}")
    assert owners(own) == {STRANGER}
    # What root built it built before.
    assert not list(space.sees("/dev/shm/pyhugetext-0").glob("v1/objects/*/large*"))


def test_store_in_shared_memory_that_was_named_is_no_user_s(home: Path, space: Namespace) -> None:
    """As doctor tries."""
    code = f"""{BECOME}
import large
from pyhugetext import _api, _backing, _settings
become()
shm = _settings.encoded(["/dev/shm/pyhugetext-other-1"])
_api.remap_with(backing=_backing.NUMBERS["shm"], shm_stores=shm)
print(json.dumps(told("large")))
"""
    region = serve(space, home, code, PYHUGETEXT="0", PYHUGETEXT_BUILD="always")
    assert space.sees("/dev/shm/pyhugetext-other-1/v1").is_dir(), region
    assert not space.sees(f"/dev/shm/pyhugetext-{STRANGER}").exists()


@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_text_is_copied_where_nothing_may_be_built(
    home: Path, space: Namespace, backing: str
) -> None:
    region = serve(space, home, PYHUGETEXT_BUILD="never", PYHUGETEXT_BACKING=backing)
    assert (region["backing"], is_whole(region)) == (backing, True), region


def test_copies_made_before_the_change_are_counted(home: Path, space: Namespace) -> None:
    code = f"""{BECOME}
import large
before = told("large")
become()
import other
assert large.result() == other.result() == {RESULT}
print(json.dumps([before, told("large"), told("other")]))
"""
    before, after, other = serve(
        space,
        home,
        code,
        PYHUGETEXT_BUILD="never",
        PYHUGETEXT_BACKING="memfd",
        PYHUGETEXT_INCLUDE="*/large*:*/other*",
        PYHUGETEXT_PRIVATE_LIMIT="4M",
    )
    assert before["private"] == before["swapped_bytes"] > 0
    assert after["swapped_bytes"] == before["swapped_bytes"]
    assert other["private"] == after["swapped_bytes"] + other["swapped_bytes"] <= 4 << 20
    assert "budget" in other["reason"]


def test_program_that_is_merely_not_dumpable(home: Path, space: Namespace) -> None:
    code = f"""{BECOME}
import pyhugetext
assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0  # PR_SET_DUMPABLE
assert_closed()
import large
pyhugetext.remap(backing="memfd")
first = told("large")
pyhugetext.restore()
put_back = told("large")
pyhugetext.remap(backing="memfd")
assert large.result() == {RESULT}
print(json.dumps([first, put_back, told("large")]))
"""
    result = Store(home / "unused", (*space.prefix, *as_user(STRANGER)), "auto").run(
        code, str(home), PYHUGETEXT="0"
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    first, put_back, again = last_record(result)
    assert is_whole(first)
    assert (put_back["swapped_bytes"], put_back["reason"]) == (0, "put back by restore()")
    assert is_whole(again)


# A function of the module `large` that returns 99, by a program that patches text.
PATCH = f"""{BECOME}
import pyhugetext, mmap
library = ctypes.CDLL(os.path.join(sys.argv[1], [n for n in os.listdir(sys.argv[1])
                                                  if n.startswith("large")][0]))
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
CODE = bytes.fromhex({json.dumps({"x86_64": "b863000000c3", "aarch64": "600c8052c0035fd6"})}[os.uname().machine])
def patch():
    at = ctypes.cast(library.f_{PATCHED}, ctypes.c_void_p).value
    assert libc.mprotect(at & -4096, 8192, 7) == 0, ctypes.get_errno()
    ctypes.memmove(at, CODE, len(CODE))
    assert libc.mprotect(at & -4096, 8192, 5) == 0, ctypes.get_errno()
def right():
    others = all(getattr(library, f"f_{{i}}")(1) == 3 + i for i in range({FUNCTIONS}) if i != {PATCHED})
    return others and library.f_{PATCHED}(1) == 99
become()
"""


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="machine code of two architectures"
)
@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_patched_text_is_never_swapped_away(home: Path, space: Namespace, backing: str) -> None:
    code = f"""{PATCH}
import other
patch()
assert right()
pyhugetext.remap(backing="{backing}", include=["*/large*", "*/other*"])
print(json.dumps([right(), told("large"), told("other")]))
"""
    right, patched, other = serve(space, home, code, PYHUGETEXT="0")
    assert right
    assert patched["swapped_bytes"] < patched["coverable_bytes"]
    assert "modified in memory" in patched["reason"]
    assert is_whole(other)


@pytest.mark.parametrize("backing", ["memfd", "thp"])
def test_patched_copy_is_never_put_back(home: Path, space: Namespace, backing: str) -> None:
    code = f"""{PATCH}
pyhugetext.remap(backing="{backing}", include="*/large*")
before = told("large")
patch()
pyhugetext.restore()
print(json.dumps([right(), before, told("large")]))
"""
    right, before, after = serve(space, home, code, PYHUGETEXT="0")
    assert right
    assert is_whole(before)
    # The page with the patch, and no other.
    assert after["swapped_bytes"] == 2 << 20
    assert "modified in memory" in after["reason"]


# All of a process in one mapping, twice: no kernel goes back.
BACKWARDS = """\
00010000-7fffffffe000 r-xp 00000000 08:01 42 /usr/bin/x
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
"""


@pytest.mark.parametrize("how", ["empty", "closed", "backwards"])
def test_without_smaps_nothing_is_swapped(
    python: Run, home: Path, tmp_path: Path, how: str
) -> None:
    closed = tmp_path / "closed"
    closed.touch(mode=0)
    backwards = tmp_path / "backwards"
    backwards.write_text(BACKWARDS * 2)
    file = {"empty": Path("/dev/null"), "closed": closed, "backwards": backwards}[how]
    code = f"""{BECOME}
become()
import large
import pyhugetext
from pyhugetext import _native
assert large.result() == {RESULT}
(region,) = (r for r in _native.snapshot()["regions"] if "/large" in r["path"])
print(json.dumps([region["mapped_bytes"], pyhugetext.stats().as_dict()]))
"""
    result = python(
        code,
        str(home),
        prefix=in_own_mounts(f"mount --bind {file} /proc/$$/smaps"),
        env={"PYHUGETEXT_BUILD": "never", "PYHUGETEXT_BACKING": "memfd"},
    )
    assert result.stderr == ""
    mapped, stats = last_record(result)
    (region,) = (r for r in stats["regions"] if "/large" in r["path"])
    assert (mapped, region["mapped_bytes"]) == (0, 0)
    assert "/proc/self/pagemap and smaps failed with" in region["reason"]
    assert ("EACCES" if how == "closed" else "EIO") in region["reason"]


def test_capabilities_that_were_kept_write_nothing_to_root_s_store(
    home: Path, space: Namespace
) -> None:
    """Root could not trust it any more."""
    code = f"""{BECOME}
import struct
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
become()
# CAP_DAC_OVERRIDE, effective and permitted
header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
sets = ctypes.create_string_buffer(struct.pack("=6I", 2, 2, 0, 0, 0, 0))
assert libc.capset(header, sets) == 0, ctypes.get_errno()
import large
assert large.result() == {RESULT}
print(json.dumps(told("large")))
"""
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir="/tmp") as of_root:
        require_huge_disk(Path(of_root))
        serve(space, home, BECOME + "print(0)", HOME=of_root)  # root's own store
        assert (Path(of_root) / ".cache/pyhugetext/v1").is_dir()
        serve(space, home, code, HOME=of_root, PYHUGETEXT_BUILD="always")
        assert owners(Path(of_root)) == {0}
        shutil.rmtree(Path(of_root) / ".cache")
        serve(space, home, code, HOME=of_root, PYHUGETEXT="0")
        assert not (Path(of_root) / ".cache").exists()
