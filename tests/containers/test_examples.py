"""The examples: what they say is run, or at least is what there is."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.cli import main
from support.cli import need_for_others
from support.common import ROOT
from support.dockerfile import Built, build, instructions
from support.image import numpy_object, object_of
from support.overlay import Containers, containers

EXAMPLES = ROOT / "examples"
# Of the machine that stands for the base image, the interpreter alone.
ONLY = {"PYHUGETEXT_INCLUDE": "*/numpy/*_multiarray_umath*:*/bin/python3*:*/libpython*"}


@pytest.fixture
def some() -> Iterator[Containers]:
    need_for_others()
    numpy_object()
    with containers(900) as made:
        yield made


def checked(built: Built, *before: str) -> dict[str, Any]:
    """What a container of the image says of itself, as the image's user."""
    user, _, group = built.user.partition(":")
    container = built.container.among.make("running", built.container.name)
    as_user = ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups")
    command = [*container.prefix, *before, *as_user, "pyhugetext", "image", "--check", "--json"]
    done = subprocess.run(command, env=built.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_dockerfile_makes_an_image_whose_containers_share_their_code(some: Containers) -> None:
    built = build(EXAMPLES / "Dockerfile", some, **ONLY)
    assert "what a container gets" in built.printed[-1]
    # Nothing can be written there, as in examples/kubernetes.yaml.
    told = checked(built, "sh", "-c", 'mount -o remount,ro / && exec "$@"', "sh")
    assert {one["used"] for one in told["objects"]} == {True}
    assert told["total"]["private_bytes"] == 0
    assert {one["alignment"] for one in told["objects"]} <= {"already", "fixed"}


def test_dockerfile_of_two_stages_copies_what_was_prepared(some: Containers) -> None:
    built = build(EXAMPLES / "Dockerfile.multistage", some, **ONLY)
    # The second run writes no copy of what the first had made.
    (total,) = re.findall(r"^total: .*", built.printed[-1], flags=re.MULTILINE)
    assert total.endswith(" 0 B written"), built.printed[-1]
    told = checked(built)
    numpy = [Path(one["path"]) for one in told["objects"] if "/venv/" in one["path"]]
    assert len(numpy) == 1
    assert object_of(told, numpy[0])["used"] is True


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.multistage", "kubernetes.yaml"])
def test_commands_of_the_examples_are_those_that_there_are(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    if name == "kubernetes.yaml":
        commands = re.findall(r'"(pyhugetext [^"|]*?)(?: \|\|[^"]*)?"', text)
    else:
        runs = [one.words for one in instructions(EXAMPLES / name) if one.name == "RUN"]
        for run in runs:
            subprocess.run(["sh", "-n", "-c", run], check=True)
        commands = [
            part.strip()
            for run in runs
            for part in run.split("&&")
            if part.strip().startswith("pyhugetext")
        ]
    assert commands
    parser, _ = main.make_parsers(main.load())
    for command in commands:
        options = parser.parse_args(shlex.split(command)[1:])
        assert isinstance(options, argparse.Namespace)
