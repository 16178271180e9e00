"""An image is prepared in one container, and others run from what it holds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import AS_STRANGER, need_for_others
from support.common import STRANGER
from support.image import alignments, environment, numpy_object, object_of
from support.overlay import Container, Containers, containers

# Of numpy, which the tests' environment has for matplotlib, the object that has a build-id.
NUMPY = "*numpy*"


@pytest.fixture
def some() -> Iterator[Containers]:
    with containers() as made:
        yield made


def check(container: Container, path: str, **env: str) -> None:
    told = container.cli().json("image", "--check", **env)
    one = object_of(told, Path(path))
    assert (one["alignment"], one["backing"], one["private_bytes"]) == ("already", "store", 0)


def test_numpy_prepared_in_an_image_runs_from_the_store_of_every_container(
    some: Containers,
) -> None:
    path = numpy_object()
    env = {"PYHUGETEXT_INCLUDE": NUMPY}
    build = some.make("build")
    here = Path(path).read_bytes()
    one = object_of(build.cli().json("image", **env), Path(path))
    assert (one["alignment"], one["entry"], one["used"]) == ("aligned", "built", True)
    assert alignments(build.sees(path))[0] == 2 << 20
    assert Path(path).read_bytes() == here, "the machine's own file"

    for name in ("first", "second"):
        check(some.make(name, "build"), path, **env)
    some.repack("build", "pulled")
    check(some.make("third", "pulled"), path, **env)
    # A layer above that adds nothing.
    fourth = some.make("fourth", "build")
    told = fourth.cli().json("image", **env)
    assert object_of(told, Path(path))["alignment"] == "already"


def test_without_preparation_check_says_so(some: Containers) -> None:
    path = numpy_object()
    # With what its linker aligned, too.
    result = some.make("plain").cli()("image", "--check", PYHUGETEXT_INCLUDE="*numpy*")
    assert result.returncode == 1
    assert "nothing here is prepared" in result.stderr
    assert path in result.stdout
    assert "it is not aligned" in result.stdout


def test_every_user_of_a_container_runs_from_what_root_prepared(some: Containers) -> None:
    need_for_others()
    path = numpy_object()
    env = {"PYHUGETEXT_INCLUDE": NUMPY}
    some.make("build").cli().json("image", **env)
    told = some.make("first", "build").cli(*AS_STRANGER).json("image", "--check", HOME="", **env)
    one = object_of(told, Path(path))
    assert (one["backing"], one["private_bytes"]) == ("store", 0)
    assert told["store"]["kind"] == "system"


def test_what_a_user_who_is_not_root_prepared_is_found_in_other_containers(
    some: Containers,
) -> None:
    with environment() as made:
        library = made.add("mine")
        subprocess.run(["chown", "-R", f"{STRANGER}:{STRANGER}", str(made.place)], check=True)
        made.cli.prefix = (*some.make("build").prefix, *AS_STRANGER)
        one = object_of(made.json(), library)
        assert (one["alignment"], one["entry"], one["used"]) == ("aligned", "built", True)
        made.cli.prefix = (*some.make("other", "build").prefix, *AS_STRANGER)
        one = object_of(made.json("--check"), library)
        assert (one["backing"], one["private_bytes"], one["used"]) == ("store", 0, True)
