"""Entries of container images, found from overlay mounts of real layers: whose bytes are compared, and
whose need not be."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli import SHORT_WALKS, need_tool, public_directory
from support.common import STRANGER
from support.layers import ANSWER, Container, Image
from support.libraries import make_library
from support.users import as_user

# Of earlier ones the dynamic linker follows the kernel, which aligns nothing on overlayfs.
LIBC = platform.libc_ver()
pytestmark = pytest.mark.skipif(
    LIBC[0] != "glibc" or tuple(map(int, LIBC[1].split("."))) < (2, 35),
    reason="this C library does not align what asks for it",
)
LIBRARY = "app/libvictim.so"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Two libraries, one without a build-id, and entries for both."""
    with public_directory() as place:
        image = Image(place)
        for name, build_id in ("known", 0x1234), ("unknown", None):
            made = place / name
            made.mkdir()
            path = LIBRARY if build_id else "app/unknown/libvictim.so"
            image.layers[0].joinpath(path).parent.mkdir(parents=True, exist_ok=True)
            image.add(make_library(made, build_id=build_id), path)
        told = image.warm(LIBRARY, "app/unknown/libvictim.so")
        assert told[LIBRARY] == told["app/unknown/libvictim.so"] == "built"
        yield image


@pytest.fixture(scope="module")
def layers(image: Image) -> list[Path]:
    return image.unpack()


@pytest.fixture(scope="module")
def changed(image: Image) -> Path:
    """The library with other code, of the same size and build-id."""
    place = image.place / "changed"
    place.mkdir()
    library = image.add(make_library(place, 5), "app/changed.so")
    shutil.move(library, place / "libvictim.so")
    return place / "libvictim.so"


def exchange(library: Path, other: Path) -> None:
    """Puts another file in its place that looks the same, to the nanosecond."""
    before = library.stat()
    fresh = library.with_name("fresh")
    shutil.copy(other, fresh)
    fresh.chmod(0o755)
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.rename(library)
    assert library.stat().st_size == before.st_size


def overwrite(library: Path, other: Path) -> None:
    before = library.stat()
    library.write_bytes(other.read_bytes())
    os.utime(library, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert library.stat().st_size == before.st_size


def is_served(container: Container, path: str = LIBRARY, answer: int = ANSWER[3]) -> bool:
    """Whether all of it comes from the store; and whether its bytes were compared."""
    look = container.look(path)
    assert (look.backing, look.reason, look.answer) == ("store", None, answer)
    assert look.smaps["Rss"] >= 4096
    return look.was_compared


@pytest.mark.parametrize("how", ["tar", "cp"])
@pytest.mark.parametrize("path", [LIBRARY, "app/unknown/libvictim.so"], ids=["known", "unknown"])
def test_what_is_unchanged_since_it_was_unpacked_is_not_compared(
    image: Image, layers: list[Path], how: str, path: str
) -> None:
    with contextlib.ExitStack() as stack:
        if how == "cp":
            layers = image.unpack("cp")
            stack.callback(shutil.rmtree, layers[0].parent)
        container = stack.enter_context(image.container(layers))
        assert not is_served(container, path)


@pytest.mark.parametrize("change", [exchange, overwrite], ids=lambda change: change.__name__)
def test_what_was_replaced_in_a_container_is_never_taken_for_it(
    image: Image, layers: list[Path], changed: Path, change: Callable[[Path, Path], None]
) -> None:
    with image.container(layers) as container:
        change(container.seen(LIBRARY), changed)
        for _ in range(2):
            look = container.look()
            assert look.answer == ANSWER[5], "the code of the file that was there before"
            assert look.backing == "none", look.reason
            assert look.smaps == {}


def test_use_does_not_make_a_record_younger(
    image: Image, layers: list[Path], changed: Path
) -> None:
    """Use is noted once a day, which changes the record's own change time."""
    for record in (layers[1] / "cache/pyhugetext/v1/index").iterdir():
        os.utime(record, (1_500_000_000, 1_500_000_000))
    with image.container(layers) as container:
        exchange(container.seen(LIBRARY), changed)
        for _ in range(3):
            assert container.look().answer == ANSWER[5]
        assert container.look().backing == "none"


def test_what_was_only_touched_is_compared(image: Image, layers: list[Path]) -> None:
    with image.container(layers) as container:
        container.seen(LIBRARY).chmod(0o711 | 0o044)
        assert is_served(container)


def test_what_was_compared_is_known_from_then_on(
    image: Image, layers: list[Path], changed: Path
) -> None:
    """Where the process may write to the store, as root in a container."""
    with image.container(layers) as container:
        container.seen(LIBRARY).chmod(0o711 | 0o044)
        assert is_served(container)
        assert is_served(container), "it might be changed again within its times"
        time.sleep(3.1)
        assert is_served(container)
        assert not is_served(container)
        exchange(container.seen(LIBRARY), changed)
        for _ in range(2):
            look = container.look()
            assert (look.backing, look.answer) == ("none", ANSWER[5])


def test_library_of_a_volume_is_compared(image: Image, layers: list[Path], changed: Path) -> None:
    """Where it was before tells nothing of it, nor its change time."""
    volume = image.place / "volume"
    volume.mkdir()
    original = layers[0] / LIBRARY
    shutil.copy2(original, volume)
    setup = 'mount --bind "{place}/volume" "{root}/app"'
    with image.container(layers, setup) as container:
        assert is_served(container)
    # Older than the record, in its place, of the same size and time.
    overwrite(volume / "libvictim.so", changed)
    again = image.unpack("cp")
    try:
        with image.container(again, setup) as container:
            look = container.look()
            assert (look.backing, look.answer) == ("none", ANSWER[5])
    finally:
        shutil.rmtree(again[0].parent)
        shutil.rmtree(volume)


# The lower layer on a file system of its own, unpacked before the upper one.
APART = """
umount /var/cache
umount "{root}"
mkdir "{place}/apart"
mount -t tmpfs tmpfs "{place}/apart"
cp -a "{place}/unpacked-tar/0/." "{place}/apart"
cp -a "{place}/unpacked-tar/1" "{place}/late"
sync -f "{place}/late"
mkdir "{place}/top/other" "{place}/top/work2"
mount -t overlay -o lowerdir="{place}/late:{place}/apart",upperdir="{place}/top/other",\
workdir="{place}/top/work2" overlay "{root}"
"""


def test_layers_on_several_file_systems_are_one_image(
    image: Image, layers: list[Path], changed: Path
) -> None:
    """Overlayfs shows a device for each of them."""
    with contextlib.ExitStack() as stack:
        for path in image.place / "late", image.place / "apart":
            stack.callback(shutil.rmtree, path, ignore_errors=True)
        container = stack.enter_context(image.container(layers, APART))
        # Below its root: what is mounted there by itself may have come later.
        container.store.root = image.root / "cache/pyhugetext"
        library, record = container.seen(LIBRARY), container.seen("cache/pyhugetext/v1/index")
        assert library.stat().st_dev != next(record.iterdir()).stat().st_dev
        assert not is_served(container)
        exchange(library, changed)
        for _ in range(2):
            look = container.look()
            assert (look.backing, look.answer) == ("none", ANSWER[5])


def test_library_of_another_place_is_compared(image: Image, layers: list[Path]) -> None:
    with image.container(layers) as container:
        container.space.run("mkdir", str(image.root / "other"))
        container.space.run(
            "cp", "-a", str(image.root / LIBRARY), str(image.root / "other" / "libvictim.so")
        )
        assert is_served(container, "other/libvictim.so")


def test_libraries_that_look_the_same_get_their_own_code() -> None:
    """Of one name, size and time, without a build-id, in one image: one of them has an entry."""
    with public_directory() as place:
        image = Image(place)
        for factor in 3, 5:
            made = place / str(factor)
            made.mkdir()
            path = image.add(make_library(made, factor, None), f"app{factor}/libvictim.so")
            os.utime(path, (1_600_000_000, 1_600_000_000))
        (image.layers[0] / "app").mkdir()
        image.warm("app3/libvictim.so", "app5/libvictim.so")
        layers = image.unpack()
        with image.container(layers) as container:
            found = {n: container.look(f"app{n}/libvictim.so") for n in (3, 5)}
        assert {n: look.answer for n, look in found.items()} == ANSWER
        assert sorted(look.backing for look in found.values()) == ["none", "store"]


def test_what_comes_to_other_addresses_is_refused_and_told_of() -> None:
    """Built for one process, it would serve no other; what helps is said everywhere."""
    with public_directory() as place:
        image = Image(place)
        library = image.root / LIBRARY
        image.add(make_library(place), aligned=False)
        with image.built() as container:
            result = container.warm(LIBRARY)
            if result.returncode == 0:
                pytest.skip("it came to a multiple of 2 MiB, as it does one time in 512")
            copies = image.layers[-1] / "cache/pyhugetext/v1/objects"
            assert result.returncode == 1
            assert f"{library} was not stored: each process has it at another" in result.stderr
            assert "pyhugetext image" in result.stderr
            told = image.objects(result)
            assert told.pop(LIBRARY) == "refused"
            assert "built" in told.values(), "what lies where it always lies"
            assert not list(copies.glob("*/libvictim.so"))
            look = container.look()
            assert look.backing != "store"
            result = container.warm(LIBRARY, PYHUGETEXT_BUILD="always")
            assert (result.returncode, image.objects(result)[LIBRARY]) == (0, "built")
            assert list(copies.glob("*/libvictim.so"))


def test_on_overlayfs_what_helps_is_named() -> None:
    code = """
    import ctypes, json, sys, pyhugetext
    ctypes.CDLL(sys.argv[1])
    print(json.dumps({r.path: r.reason for r in pyhugetext.remap().regions}))
    """
    with contextlib.ExitStack() as stack:
        image = Image(stack.enter_context(public_directory()))
        image.add(make_library(image.place))
        image.add(make_library(image.place), "unaligned.so", aligned=False)
        container = stack.enter_context(image.built())
        container.store.root = image.root / "store"
        told = {}
        # Once more, for one time in 512 it comes to a multiple of 2 MiB.
        for name in LIBRARY, "unaligned.so", "unaligned.so":
            if "another address" in told.get(name, ""):
                continue
            result = container.store.run(code, str(image.root / name))
            told[name] = json.loads(result.stdout)[str(image.root / name)]
        assert "RUN pyhugetext image" in told[LIBRARY]
        assert "PYHUGETEXT_STORE" in told[LIBRARY]
        assert "another address in each process" in told["unaligned.so"]
        assert "pyhugetext image aligns" in told["unaligned.so"]
        assert "PYHUGETEXT_STORE" not in told["unaligned.so"], "a volume does not help"
        cli = container.cli(image.root / "store")
        cli.words = SHORT_WALKS
        result = cli("doctor", "--json", PYHUGETEXT_BACKING="auto", PYHUGETEXT="1")
        advice = json.loads(result.stdout)["recommendations"]
        assert [one["command"] for one in advice].count("RUN pyhugetext image") == 1
        assert not any("warm" in one["command"] for one in advice)


SQUASHED = """
umount /var/cache
umount "{root}"
mount -o loop "{place}/squashed" "{root}"
mount --bind "{root}/cache" /var/cache
"""


def test_where_no_change_time_is_kept_it_tells_nothing(
    image: Image, layers: list[Path], changed: Path
) -> None:
    """squashfs shows the time of modification in its place, which was put back."""
    need_tool("mksquashfs")
    squashed = image.place / "squashed"
    tree = image.place / "tree"
    for factor in 3, 5:
        for layer in layers:
            subprocess.run(["cp", "-a", f"{layer}/.", tree], check=True)
        if factor == 5:
            overwrite(tree / LIBRARY, changed)
        command = ["mksquashfs", str(tree), str(squashed), "-noI", "-noD", "-noF", "-noX"]
        subprocess.run([*command, "-quiet", "-no-progress"], check=True)
        shutil.rmtree(tree)
        with image.container(layers, SQUASHED) as container:
            look = container.look()
        squashed.unlink()
        assert look.answer == ANSWER[factor]
        assert look.was_compared or look.backing == "none"


def test_containers_share_the_text(image: Image, layers: list[Path]) -> None:
    with contextlib.ExitStack() as stack:
        # Each with layers of its own above the same ones.
        containers = [stack.enter_context(image.container(layers)) for _ in range(3)]
        running = [stack.enter_context(container.looking()) for container in containers]
        told = []
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout is not None
            told.append(json.loads(process.stdout.readline()))
    for one in told:
        smaps = one["smaps"]
        assert (one["backing"], one["answer"]) == ("store", ANSWER[3])
        assert smaps["Private_Dirty"] == smaps["Private_Clean"] == 0
    # All three were there when the first looked.
    assert told[0]["smaps"]["Pss"] <= told[0]["smaps"]["Rss"] // 3 + 4


def test_what_was_just_unpacked_is_huge_once_it_is_on_disk(image: Image) -> None:
    """An ordinary user's processes see to it, though they may not write there."""
    prefix = as_user(STRANGER)
    layers = image.unpack("cp", settled=False)
    try:
        with image.container(layers) as container:
            container.look(prefix=prefix)  # small where it is not on disk yet
            for copy in (layers[1] / "cache/pyhugetext/v1/objects").glob("*/libvictim.so"):
                with open(copy, "rb") as file:
                    os.fsync(file.fileno())
            look = container.look(prefix=prefix)
            assert (look.backing, look.reason) == ("store", None)
            assert look.smaps["FilePmdMapped"] == look.smaps["Rss"] > 0
    finally:
        shutil.rmtree(layers[0].parent)
