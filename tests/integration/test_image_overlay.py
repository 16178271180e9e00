"""An image is prepared in one container, and others run from what it holds."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.image import alignments, object_of
from support.overlay import Container, Containers, containers

# Of numpy, which the tests' environment has for matplotlib, the object that has a build-id.
NUMPY = "*/numpy/*_multiarray_umath*"


@pytest.fixture
def some() -> Iterator[Containers]:
    with containers() as made:
        yield made


def numpy_object() -> str:
    found = importlib.util.find_spec("numpy")
    if found is None or found.origin is None:
        pytest.skip("numpy is not installed here")
    ((path),) = Path(found.origin).parent.glob("_core/_multiarray_umath*.so")
    return str(path.resolve())


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
    result = some.make("plain").cli()("image", "--check", PYHUGETEXT_INCLUDE=NUMPY)
    assert result.returncode == 1
    assert "nothing here is prepared" in result.stderr
    assert path in result.stdout
    assert "it is not aligned" in result.stdout
