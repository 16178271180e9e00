"""File systems and limits under the store: it works there, or the next rung is taken and the
reason told; the program never notices, and what a machine cannot do is not tried at each start."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.common import STRANGER
from support.copies import lay_out
from support.growing import use
from support.libraries import make_library
from support.store import UNSET, Report, Store, require_huge_disk
from support.users import Namespace, as_user, home_of, require_root

Mount = Callable[..., Namespace]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Makes a namespace with a file system at tmp_path/mnt: `mount("btrfs", megabytes)` in an
    image of that size; or the shell commands given."""
    made: list[Namespace] = []
    point = tmp_path / "mnt"
    point.mkdir(mode=0o755)

    def mount(kind: str, megabytes: int = 0, setup: str = "", shm: str = "size=1G") -> Namespace:
        require_root()
        if megabytes:
            maker = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
            if maker is None:
                pytest.skip(f"mkfs.{kind} is not installed")
            image = tmp_path / "image"
            with open(image, "wb") as file:
                file.truncate(megabytes << 20)
            subprocess.run([maker, "-q", image], check=True, capture_output=True)
            setup = f'mount -o loop "{image}" "{point}"\n{setup}'
        made.append(Namespace(f'cd "{tmp_path}"\n{setup}\ncd /', shm))
        return made[-1]

    yield mount
    for space in made:
        space.close()


def huge_kilobytes(space: Namespace, store: Store, field: str) -> int:
    """A field of smaps, summed over what a child maps from a store; its text is all touched."""
    code = f"""
    import re, pyhugetext
    region = max(pyhugetext.stats().regions, key=lambda region: region.swapped_bytes)
    import ctypes
    for at in range(region.start, region.end, 4096):
        ctypes.string_at(at, 1)
    total, inside = 0, False
    for line in open("/proc/self/smaps", errors="surrogateescape"):
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            inside = "{store.root}/" in line
        elif inside and line.startswith("{field}:"):
            total += int(line.split()[1])
    print(total)
    """
    result = store.run(code)
    assert result.stderr == ""
    return int(result.stdout)


def ends_in_shared_memory(space: Namespace, store: Store, reason: str) -> Report:
    """A first start that finds out, and a second that knows."""
    first = store.start()
    assert first.interpreter["backing"] == "shm", first.reasons
    assert re.search(reason, first.reasons), first.reasons
    second = store.start()
    assert second.interpreter["backing"] == "shm", second.reasons
    assert not second.built, "what cannot be done is tried at each start"
    assert second.mapped_below(store.root) == []
    assert huge_kilobytes(space, space.shm_store(), "ShmemPmdMapped") >= 2048
    return second


def test_xfs_gives_huge_pages_from_the_store(mount: Mount, tmp_path: Path) -> None:
    space = mount("xfs", 400)
    store = space.store(tmp_path / "mnt" / "store")
    if "new files" in store.start().reasons:
        pytest.skip("xfs of this kernel gives no huge pages to new files")
    store.backing = "store"
    store.recovers()
    assert huge_kilobytes(space, store, "FilePmdMapped") >= 2048


def test_btrfs_ends_in_shared_memory(mount: Mount, tmp_path: Path) -> None:
    space = mount("btrfs", 300)
    store = space.store(tmp_path / "mnt" / "store")
    report = ends_in_shared_memory(space, store, "gives no huge pages to new files")
    assert any("an entry could not be made" in f for f in report.interpreter["fallbacks"])
    assert store.copies == []


def test_tmpfs_ends_in_shared_memory(mount: Mount, tmp_path: Path) -> None:
    with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled") as file:
        if "[never]" not in file.read():
            pytest.skip("tmpfs gives huge pages to every file here (shmem_enabled)")
    space = mount("tmpfs", setup="mount -t tmpfs -o size=200M tmpfs mnt")
    store = space.store(tmp_path / "mnt" / "store")
    ends_in_shared_memory(space, store, "gives no huge pages to new files")


def test_nothing_is_shared_for_addresses_that_do_not_come_again(
    mount: Mount, tmp_path: Path
) -> None:
    """Where the kernel does not put files at 2 MiB boundaries, each start has another address."""
    require_huge_disk(tmp_path)
    space = mount("tmpfs", setup="mount -t tmpfs -o size=200M tmpfs mnt")
    library = tmp_path / "mnt" / "libvictim.so"
    space.run("cp", str(make_library(tmp_path)), str(library))
    store = space.store(tmp_path / "store")
    store.start()
    code = """
    import ctypes, json, sys, pyhugetext
    library = ctypes.CDLL(sys.argv[1])
    (region,) = [r for r in pyhugetext.remap().regions if r.path == sys.argv[1]]
    print(json.dumps([region.backing, region.fallbacks, getattr(library, "all")(7)]))
    """
    entries = store.records
    fitting = 0
    for _ in range(8):
        result = store.run(code, str(library))
        assert (result.returncode, result.stderr) == (0, "")
        backing, fallbacks, answer = json.loads(result.stdout)
        assert answer == 3 * 7 * 3 + 69
        if any("at another address in each process" in told for told in fallbacks):
            assert backing == "memfd"
            continue
        # One random address in 512 is a multiple of 2 MiB, and needs no copy.
        assert backing in ("store", "file")
        fitting += 1
    if fitting > 2:
        pytest.skip("this kernel puts files of tmpfs at 2 MiB boundaries")
    assert store.records == entries
    assert space.shm_store().copies == []
    # Who wants them all the same has two of them in shared memory, and a few on disk.
    for _ in range(6):
        store.run(code, str(library), PYHUGETEXT_BUILD="always", PYHUGETEXT_BACKING="shm")
    copies = [path for path in space.shm_store().copies if path.name == library.name]
    assert len(copies) == 2


OVERLAY = """
mkdir lower upper work
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay mnt
"""


def test_overlayfs_is_left_alone_unless_told_otherwise(mount: Mount, tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    space = mount("overlay", setup=OVERLAY)
    store = space.store(tmp_path / "mnt" / "store")
    for _ in range(2):
        report = store.start()
        assert report.interpreter["backing"] == "memfd"
        assert "pyhugetext image" in report.reasons
        assert "PYHUGETEXT_STORE" in report.reasons
        assert "PYHUGETEXT_BUILD=always" in report.reasons
        # Containers start often: what builds is not even imported to find that out.
        assert not report.built
    assert not store.base.exists()
    assert space.shm_store().copies == []
    report = store.start(PYHUGETEXT_BUILD="always")
    assert report.interpreter["backing"] == "store", report.reasons
    report = store.start()  # what is there is used
    assert report.interpreter["backing"] == "store", report.reasons
    assert not report.built
    assert huge_kilobytes(space, store, "FilePmdMapped") >= 2048


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_noexec_mount_ends_in_shared_memory(mount: Mount, tmp_path: Path, warm: bool) -> None:
    require_huge_disk(tmp_path)
    filled = Store(tmp_path / "mnt" / "store")
    if warm:
        filled.fill()
    space = mount("bind", setup="mount --bind mnt mnt; mount -o remount,bind,noexec mnt")
    store = space.store(filled.root)
    ends_in_shared_memory(space, store, "EPERM" if warm else "noexec")
    if warm:
        filled.is_good()


def test_read_only_mount_of_a_warm_store_is_used(mount: Mount, tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    filled = Store(tmp_path / "mnt" / "store")
    filled.fill()
    os.utime(filled.record, (1, 1))
    space = mount("bind", setup="mount --bind mnt mnt; mount -o remount,bind,ro mnt")
    store = space.store(filled.root)
    report = store.start()
    assert report.interpreter["backing"] == "store", report.reasons
    assert not report.built


@pytest.mark.parametrize("there", [False, True], ids=["no store", "empty store"])
def test_read_only_mount_ends_in_shared_memory(mount: Mount, tmp_path: Path, there: bool) -> None:
    for name in ("index", "objects", "tmp") if there else ():
        (tmp_path / "mnt" / "store" / "v1" / name).mkdir(parents=True)
    space = mount("bind", setup="mount --bind mnt mnt; mount -o remount,bind,ro mnt")
    store = space.store(tmp_path / "mnt" / "store")
    ends_in_shared_memory(space, store, "has no entry" if there else "EROFS")


def test_read_only_store_alone_is_not_tried_at_each_start(mount: Mount, tmp_path: Path) -> None:
    space = mount("bind", setup="mount --bind mnt mnt; mount -o remount,bind,ro mnt")
    store = space.store(tmp_path / "mnt" / "store", "store")
    report = store.start()
    assert "EROFS" in report.reasons
    assert not report.built


def test_full_disk_ends_in_shared_memory(mount: Mount, tmp_path: Path) -> None:
    fill = "dd if=/dev/zero of=mnt/ballast bs=1M 2> /dev/null || true"
    space = mount("ext4", 40, setup=fill)
    store = space.store(tmp_path / "mnt" / "store")
    ends_in_shared_memory(space, store, "No space left|too little free space|no huge pages")
    assert store.copies == []
    store.backing = "store"
    assert store.start().interpreter["backing"] == "none"


def test_disk_keeps_some_free_space(mount: Mount, tmp_path: Path) -> None:
    """The copy would fit, but for the floor: a tenth of a small disk."""
    space = mount("ext4", 60)
    store = space.store(tmp_path / "mnt" / "store")
    size = os.path.getsize(store.start(PYHUGETEXT="0").interpreter["path"])
    disk = os.statvfs(space.sees(tmp_path / "mnt"))
    ballast = disk.f_bavail * disk.f_frsize - size - (3 << 20)
    if ballast < 0:
        pytest.skip("this interpreter is too large for the test")
    with open(space.sees(tmp_path / "mnt" / "ballast"), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, ballast)
    ends_in_shared_memory(space, store, "too little free space|no huge pages")


@pytest.mark.parametrize("limit", [0, 512, 4 << 20])
def test_file_size_limit_is_kept(tmp_path: Path, limit: int) -> None:
    """SIGXFSZ would kill the program."""
    require_huge_disk(tmp_path)
    store = Store(tmp_path / "store")
    report = store.start(prefix=("prlimit", f"--fsize={limit}"))
    assert report.interpreter["backing"] == "none"
    assert f"RLIMIT_FSIZE of {limit} bytes is too small" in report.reasons
    assert store.copies == []
    store.recovers()  # the limit was that process's; another may build


def test_file_size_limit_to_the_byte(tmp_path: Path, far: Path) -> None:
    """Nothing of a copy is written behind its end, so what it needs is its size."""
    require_huge_disk(tmp_path)
    size = lay_out(far).size
    enough, short = (
        use(Store(tmp_path / str(limit), ("prlimit", f"--fsize={limit}")), far, "0")
        for limit in (size, size - 1)
    )
    assert enough["backing"] == "store", enough["problems"]
    assert short["backing"] == "none"
    assert f"RLIMIT_FSIZE of {size - 1} bytes is too small for its copy" in str(short["problems"])


def test_quota_ends_in_shared_memory(mount: Mount, tmp_path: Path) -> None:
    if not shutil.which("btrfs"):
        pytest.skip("btrfs (btrfs-progs) is not installed")
    setup = "btrfs quota enable mnt; btrfs qgroup limit 1M mnt; sync mnt"
    space = mount("btrfs", 300, setup=setup)
    store = space.store(tmp_path / "mnt" / "store")
    report = store.start()
    assert report.interpreter["backing"] == "shm", report.reasons
    assert "quota exceeded" in report.reasons
    assert not store.start().built


def test_disk_quota_ends_in_shared_memory(mount: Mount, tmp_path: Path) -> None:
    for tool in ("setquota", "quotaon"):
        if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
            pytest.skip(f"{tool} (quota) is not installed")
    setup = f"""
    mkfs.ext4 -q -O quota image
    mount -o loop,usrquota image mnt
    mkdir mnt/home; chown {STRANGER}:{STRANGER} mnt/home; chmod 755 mnt
    setquota -u {STRANGER} 2000 2000 0 0 mnt
    """
    prefix = as_user(STRANGER)
    with open(tmp_path / "image", "wb") as file:
        file.truncate(200 << 20)
    with home_of(0) as place:  # pytest's directories are not for others
        place.chmod(0o755)
        home = place / "mnt"
        home.mkdir()
        space = mount("ext4", setup=f'{setup}mount --bind mnt "{home}"\n')
        root = home / "home" / "store"
        store = Store(root, (*space.prefix, *prefix), "auto", space.sees(root))
        report = store.start()
        assert report.interpreter["backing"] == "shm", report.reasons
        assert re.search("[Qq]uota exceeded|new files", report.reasons), report.reasons
        assert not store.start().built
        assert store.copies == []
        space.run("setquota", "-u", str(STRANGER), "0", "0", "0", "0", str(home))
        for note in [*store.records, store.base / "verdict"]:
            note.unlink(missing_ok=True)
        space.run("rm", "-r", f"/dev/shm/pyhugetext-{STRANGER}")
        require_huge_disk(tmp_path)
        assert store.start().interpreter["backing"] == "store"


# Shared memory that is none.


NO_DISK = {"PYHUGETEXT_STORE": UNSET, "HOME": UNSET}


def private_rung(store: Store, reason: str) -> None:
    for start in range(2):
        report = store.start(**NO_DISK)
        assert report.interpreter["backing"] in ("memfd", "thp"), report.reasons
        assert re.search(reason if start == 0 else "shm: ", report.reasons), report.reasons
    assert not report.built, "what cannot be done is tried at each start"


def test_noexec_shared_memory_ends_in_private_memory(mount: Mount, tmp_path: Path) -> None:
    """As in a container."""
    space = mount("none", shm="size=64M,noexec")
    private_rung(space.store("/none"), "noexec")
    assert space.shm_store().copies == []


def test_full_shared_memory_ends_in_private_memory(mount: Mount, tmp_path: Path) -> None:
    space = mount("none", setup="dd if=/dev/zero of=/dev/shm/ballast bs=1M 2> /dev/null || true",
                  shm="size=16M")  # fmt: skip
    report = space.store("/none").start(**NO_DISK)
    assert report.interpreter["backing"] in ("memfd", "thp"), report.reasons
    assert re.search("too little free space|No space left", report.reasons)
    assert space.shm_store().copies == []


def test_shared_memory_on_disk_is_not_used(mount: Mount, tmp_path: Path) -> None:
    space = mount("none", setup="mkdir disk; chmod 1777 disk; mount --bind disk /dev/shm", shm="")
    report = space.store("/none").start(**NO_DISK)
    assert report.interpreter["backing"] in ("memfd", "thp"), report.reasons
    assert "/dev/shm is no tmpfs" in report.reasons
    assert list((tmp_path / "disk").iterdir()) == []


def test_missing_shared_memory_is_not_made(mount: Mount, tmp_path: Path) -> None:
    setup = "mkdir dev; mount --bind dev /dev; mkdir -p dev/null.d; touch dev/null"
    space = mount("none", setup=setup, shm="")
    report = space.store("/none").start(**NO_DISK)
    assert report.interpreter["backing"] in ("memfd", "thp"), report.reasons
    assert not (tmp_path / "dev" / "shm").exists()


def test_exit_status_and_output_are_the_program_s_own(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    for settings in (
        {"PYHUGETEXT_STORE": "/proc/none"},
        {"PYHUGETEXT_STORE": "/dev/full"},
        {"PYHUGETEXT_STORE": str(tmp_path / "store")},
    ):
        for _ in range(2):
            result = Store(tmp_path).run(code, **settings)
            assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)
