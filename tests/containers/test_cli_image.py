"""pyhugetext image: what it prepares, what it leaves, and what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyhugetext.cli.commands import image
from pyhugetext.store import places
from support.cli import (
    AS_STRANGER,
    Cli,
    assert_one_sentence,
    in_namespace,
    need_root,
    need_tool,
    started,
)
from support.common import HUGE, STRANGER, tool
from support.image import (
    Environment,
    aligned,
    alignments,
    environment,
    known,
    object_of,
    used,
)
from support.raw_elf import PHDR

ALIGNED = 32 << 10
OLD_GLIBC = (
    "-c",
    "import os, sys; os.confstr = lambda name: 'glibc 2.31'; "
    "from pyhugetext.__main__ import main; sys.exit(main())",
)


@pytest.fixture
def env() -> Iterator[Environment]:
    with environment() as made:
        yield made


def test_environment_is_prepared_used_extended_and_put_back(
    env: Environment, tmp_path: Path
) -> None:
    first = env.add("first")
    second = env.add("second", build_id=0x77)
    os.utime(first, ns=(5, 1_500_000_000_123_456_789))
    os.setxattr(first, "user.kept", b"yes")
    first.chmod(0o745)
    before = {path: known(path) for path in (first, second)}
    records = {path: path.read_bytes() for path in env.site.glob("*/RECORD")}
    assert alignments(first)[0] < HUGE

    told = env.json()
    assert told["total"]["aligned"] == told["total"]["entries"] == 2
    assert (told["mode"], told["problems"], told["imports"]) == ("prepare", [], [])
    for path in (first, second):
        one = object_of(told, path)
        assert (one["alignment"], one["bias"], one["entry"]) == ("aligned", 0, "built")
        assert (one["backing"], one["used"], one["private_bytes"]) == ("store", True, 0)
        content, _, mtime, mode = before[path]
        now = known(path)
        assert (now[0], now[2:]) == (aligned(content, tmp_path), (mtime, mode))
        assert alignments(path)[0] == HUGE
        assert alignments(path)[1:] == [0x1000] * (len(alignments(path)) - 1)
    assert os.getxattr(first, "user.kept") == b"yes"
    env.check_records()
    backings = used(env, "first", "second")
    assert backings[str(first)] == backings[str(second)] == "store"
    checked = env.json("--check")
    assert [(one["used"], one["entry"]) for one in checked["objects"]] == [(True, "found")] * 2
    assert checked["total"]["private_bytes"] == 0

    # A later layer adds what is new.
    after = {path: known(path) for path in (first, second)}
    third = env.add("third", build_id=0x99)
    told = env.json()
    assert object_of(told, third)["alignment"] == "aligned"
    for path in (first, second):
        one = object_of(told, path)
        assert (one["alignment"], one["entry"], one["written"]) == ("already", "present", 0)
        assert known(path) == after[path]

    told = env.json("--undo")
    assert told["total"]["undone"] == told["total"]["removed"] == 3
    for path in (first, second):
        assert (known(path)[0], known(path)[2:]) == (before[path][0], before[path][2:])
    env.check_records()
    assert all(path.read_bytes() == content for path, content in records.items())
    assert env.json("--undo")["total"]["undone"] == 0
    assert not list(env.cli.store.glob("v1/index/*"))
    result = env.image("--check")
    assert result.returncode == 1
    assert_one_sentence(result, "nothing here is prepared")
    assert env.leftovers() == []


def test_library_of_which_one_segment_asks_for_more_is_prepared_and_put_back(
    env: Environment,
) -> None:
    # As OpenBLAS, whose text has a section that is aligned to 32 KiB.
    library = env.add("sample", record=False)
    data = bytearray(library.read_bytes())
    for at in range(64, 64 + data[56] * PHDR.size, PHDR.size):
        kind, flags, offset, address, *_ = PHDR.unpack_from(data, at)
        if (kind, flags) == (1, 5):  # its text
            assert offset % ALIGNED == address % ALIGNED
            data[at + 48 : at + 56] = ALIGNED.to_bytes(8, "little")
    library.write_bytes(data)
    assert ALIGNED in alignments(library)[1:]
    before = known(library)
    one = object_of(env.json(), library)
    assert (one["alignment"], one["entry"]) == ("aligned", "built"), one
    assert (one["backing"], one["used"], one["private_bytes"]) == ("store", True, 0)
    assert env.json("--undo")["total"]["undone"] == 1
    assert (known(library)[0], known(library)[2:]) == (before[0], before[2:])


def test_record_that_cannot_follow_is_one_sentence(env: Environment) -> None:
    library = env.add("sample")
    (record,) = env.site.glob("sample-*/RECORD")
    os.link(record, env.place / "cached")
    before = record.read_bytes()
    result = env.image()
    assert result.returncode == 1
    assert_one_sentence(result, str(library), "its RECORD stays as it is: it has 2 names")
    assert record.read_bytes() == before
    # Nothing has to be done but that.
    (env.place / "cached").unlink()
    assert env.image().returncode == 0
    env.check_records()


def test_manual_names_all_keys(env: Environment) -> None:
    env.add("sample")
    told = env.json()
    manual = image.MANUAL.partition("keys of --json:")[2].partition("examples:")[0]
    rows = (*told["objects"], *told["kernels"], told["store"], told["total"])
    for key in {*told, *(key for row in rows for key in row)}:
        assert re.search(rf"\b{key}\b", manual), key


def test_table_says_what_a_container_gets(env: Environment) -> None:
    library = env.add("sample")
    result = env.image()
    assert (result.returncode, result.stderr) == (0, "")
    assert str(library) in result.stdout
    assert result.stdout.count("this one") == 1
    last = result.stdout.splitlines()[-1]
    assert last.startswith("total: 1 aligned; 1 entry of "), last


def test_without_a_record_the_library_is_aligned_all_the_same(env: Environment) -> None:
    env.add("other")
    library = env.add("sample", build_id=0x55, record=False)
    one = object_of(env.json(), library)
    assert (one["alignment"], one["used"], one["record"]) == ("aligned", True, "no RECORD lists it")


# What is left as it is.


def hard_linked(library: Path) -> None:
    os.link(library, library.with_name("cached"))


def signed(library: Path) -> None:
    section = library.with_name("signature")
    section.write_bytes(b"signed")
    command = [tool("objcopy"), f"--add-section=.signature={section}", str(library)]
    subprocess.run(command, check=True)


def set_user_id(library: Path) -> None:
    library.chmod(0o4755)


def anothers(library: Path) -> None:
    need_root()
    os.chown(library, STRANGER, STRANGER)


def not_loadable(library: Path) -> None:
    subprocess.run([tool("patchelf"), "--add-needed", "libnowhere.so.1", str(library)], check=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (hard_linked, "2 names"),
        (signed, "it is signed (section .signature)"),
        (set_user_id, "set-user-ID"),
        (anothers, f"belongs to user {STRANGER}"),
        (not_loadable, "does not load by itself: libnowhere.so.1"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_may_not_be_changed_is_left_with_the_reason(
    env: Environment, change: Callable[[Path], None], words: str
) -> None:
    good = env.add("good")
    library = env.add("sample", build_id=0x55, record=False)
    change(library)
    before = known(library)
    told = env.json()
    one = object_of(told, library)
    assert one["alignment"] == "left"
    assert words in one["reason"]
    assert one["entry"] is None
    assert known(library) == before
    assert object_of(told, good)["used"] is True
    assert env.leftovers() == []


def test_nothing_but_what_is_left_is_a_failure(env: Environment) -> None:
    hard_linked(env.add("sample"))
    result = env.image()
    assert result.returncode == 1
    assert_one_sentence(result, "nothing was prepared", "2 names")


def test_c_library_that_does_not_align_is_one_sentence(env: Environment) -> None:
    library = env.add("sample")
    before = known(library)
    env.cli.words = OLD_GLIBC
    result = env.image()
    assert result.returncode == 1
    assert_one_sentence(result, "glibc 2.31 does not align libraries", "nothing was changed")
    assert known(library) == before
    assert not env.cli.store.exists()


def test_kernel_without_huge_files_is_no_reason_not_to_prepare(env: Environment) -> None:
    """It is the one that a container runs on that counts."""
    library = env.add("sample")
    kind = "system" if os.geteuid() == 0 else "user"
    places.remember(places.Store(str(env.cli.store), 1 << 30, kind), places.NEVER)
    result = env.image("--json")
    assert result.returncode == 0
    assert_one_sentence(result, "no huge pages", "serves where one does")
    told = json.loads(result.stdout)
    assert told["store"]["verdict"] == "never"
    assert object_of(told, library)["entry"] == "built"


def test_read_only_layer_is_one_sentence(env: Environment) -> None:
    need_root()
    library = env.add("sample")
    before = known(library)
    venv = env.place / "env"
    env.cli.prefix = in_namespace(
        f"mount --bind {env.place / 'cache'} /var/cache\n"
        f"mount --bind {venv} {venv}\nmount -o remount,bind,ro {venv}"
    )
    result = env.image()
    assert result.returncode == 1
    assert_one_sentence(result, str(library), "read-only file system")
    assert known(library) == before


def test_full_layer_leaves_whole_files_and_is_one_sentence(env: Environment) -> None:
    need_root()
    need_tool("mkfs.ext4")
    library = env.add("sample")
    package = library.parent
    # Another layer, with room for this library once.
    (env.place / "image").touch()
    os.truncate(env.place / "image", 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m0", "-Onone,extents", env.place / "image"], check=True)
    script = f"""
        mount --bind {env.place / "cache"} /var/cache
        mkdir {env.place}/layer
        mount -o loop {env.place}/image {env.place}/layer
        cp -a {package}/. {env.place}/layer
        mount --move {env.place}/layer {package}
        dd if=/dev/zero of={package}/filling bs=1M 2>/dev/null || true
        before=$(sha256sum <{library})
        trap 'test "$(sha256sum <{library})" = "$before" && ls -A {package} >&2' EXIT
        "$@"; exit $?
    """
    env.cli.prefix = in_namespace(script)
    result = env.image()
    lines = result.stderr.splitlines()
    assert result.returncode == 1, result.stderr
    assert "No space left on device" in lines[0]
    assert str(library) in lines[0]
    left = {"__init__.py", "filling", library.name, "lost+found"}
    assert set(lines[1:]) - {"__pycache__"} == left


def test_store_without_room_is_one_sentence_and_the_files_are_whole(env: Environment) -> None:
    library = env.add("sample")
    result = env.image(PYHUGETEXT_STORE_LIMIT="1M")
    assert result.returncode == 1
    assert_one_sentence(result, str(library), "could not be prepared")
    env.check_records()
    assert env.leftovers() == []


def test_library_that_runs_meanwhile_goes_on(env: Environment) -> None:
    library = env.add("sample")
    code = """
import sample, sys
function = getattr(sample.library, "all")
print("ready", flush=True)
while not sys.stdin.readline():
    pass
for _ in range(100000):
    assert function(7) == 132
"""
    pipe = {"stdin": subprocess.PIPE, "env": env.cli.environment()}
    with started([env.cli.executable, "-c", code], **pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert object_of(env.json(), library)["alignment"] == "aligned"
        process.communicate("go\n", timeout=60)
        assert process.returncode == 0
    assert used(env, "sample")[str(library)] == "store"


def test_module_that_ends_the_process_costs_only_itself(env: Environment) -> None:
    good = env.add("good")
    bad = env.add("bad", build_id=0x55)
    (bad.parent / "__init__.py").write_text("import os\nos._exit(3)\n")
    worse = env.add("worse", build_id=0x66)
    (worse.parent / "__init__.py").write_text("raise SystemExit('no')\n")
    told = env.json()
    assert {one["module"] for one in told["imports"]} == {"bad", "worse"}
    assert object_of(told, good)["used"] is True
    # They load, and their entries are there, whoever imports them.
    for path in (bad, worse):
        one = object_of(told, path)
        assert (one["alignment"], one["entry"], one["used"]) == ("aligned", "built", None)


def test_something_prepared_that_is_not_used_is_told_by_check(env: Environment) -> None:
    library = env.add("sample")
    env.json()
    shutil.rmtree(env.cli.store)
    result = env.image("--check")
    assert result.returncode == 1
    assert_one_sentence(result, f"{library} is prepared but not used")
    assert re.search(r"^already +missing +none ", result.stdout, flags=re.MULTILINE)


def test_check_and_undo_together_are_wrong_usage(cli: Cli) -> None:
    result = cli("image", "--check", "--undo")
    assert result.returncode == 2
    assert_one_sentence(result, "not both")


def test_ordinary_user_prepares_what_is_theirs(env: Environment) -> None:
    need_root()
    need_tool("setpriv", "chown")
    mine = env.add("mine")
    roots = env.add("roots", build_id=0x55)
    subprocess.run(["chown", "-R", f"{STRANGER}:{STRANGER}", str(env.place)], check=True)
    os.chown(roots, 0, 0)
    env.cli.prefix = AS_STRANGER
    told = env.json()
    assert told["store"]["path"] == str(env.cli.store)
    one = object_of(told, mine)
    assert (one["alignment"], one["entry"], one["used"]) == ("aligned", "built", True)
    assert object_of(told, roots)["reason"] == "it belongs to user 0"
    env.check_records()
    assert {path.lstat().st_uid for path in env.cli.store.rglob("*")} == {STRANGER}
    assert used(env, "mine")[str(mine)] == "store"
    assert env.json("--undo")["total"]["undone"] == 1
    assert mine.stat().st_uid == STRANGER


def test_directory_that_cannot_be_written_is_one_sentence(env: Environment) -> None:
    need_root()
    need_tool("setpriv", "chown")
    library = env.add("sample")
    before = known(library)
    subprocess.run(["chown", "-R", f"{STRANGER}:{STRANGER}", str(env.place)], check=True)
    library.parent.chmod(0o555)
    env.cli.prefix = AS_STRANGER
    result = env.image()
    assert result.returncode == 1
    assert_one_sentence(result, str(library), "its directory cannot be written")
    assert known(library) == before
