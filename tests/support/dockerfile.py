"""Runs Dockerfiles as far as tests need it: each stage is a container above this machine's own files,
in which the lines of RUN are run for real. What pip would install is copied from here."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.common import clean_environment
from support.overlay import Container, Containers

# Put in front of each RUN: the environment's own packages stand for those of a registry.
SHELL = r"""
pip() {{
    test "$1 $2 $3 $4" = "install --no-cache-dir -r requirements.txt" || exit 90
    shift 4
    test "$*" = pyhugetext || exit 91
    to=$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    test -e "$to/pyhugetext" || cp -a {site}/pyhugetext* {site}/numpy {site}/numpy.libs \
        {site}/numpy-*.dist-info "$to"
    bin=$(python -c 'import sysconfig; print(sysconfig.get_path("scripts"))')
    test -e "$bin/pyhugetext" || {{
        printf '#!%s\nimport sys\nfrom pyhugetext.__main__ import main\nsys.exit(main())\n' \
            "$bin/python" >"$bin/pyhugetext"
        chmod +x "$bin/pyhugetext"
    }}
}}
python() {{
    # The pip that venv would bring is not needed.
    if test "$1 $2" = "-m venv"; then command python -m venv --without-pip "$3"
    else command python "$@"; fi
}}
cd {directory}
{line}
"""


class Instruction(NamedTuple):
    name: str
    words: str


def instructions(path: Path) -> Iterator[Instruction]:
    """Those of a file: comments gone, continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            name, _, words = line.partition(" ")
            yield Instruction(name, words.strip())


class Built(NamedTuple):
    """What came of a Dockerfile: the last stage, its environment, and what its RUNs printed."""

    container: Container
    environ: dict[str, str]
    printed: list[str]
    user: str


def build(path: Path, some: Containers, **env: str) -> Built:
    """Builds an image; AssertionError where a line of it fails."""
    stages: dict[str, Container] = {}
    path_variable = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    built: Built | None = None
    directory = "/"
    for instruction in instructions(path):
        words = instruction.words.split()
        if instruction.name == "FROM":
            container = some.make(f"stage{len(stages)}")
            stages[words[-1] if len(words) == 3 else ""] = container
            environ = clean_environment(PATH=path_variable, HOME="/root", **env)
            built = Built(container, environ, [], "0")
            continue
        assert built is not None
        if instruction.name == "WORKDIR":
            directory = words[0]
        elif instruction.name == "ENV":
            name, _, value = instruction.words.partition("=")
            built.environ[name] = value.strip('"').replace(f"${name}", built.environ[name])
        elif instruction.name == "COPY":
            _copy(built.container, words, stages)
        elif instruction.name == "RUN":
            site = sysconfig.get_path("platlib")
            script = SHELL.format(site=site, directory=directory, line=instruction.words)
            command = [*built.container.prefix, "sh", "-ec", f"mkdir -p {directory}; {script}"]
            done = subprocess.run(
                command, env=built.environ, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (instruction, done.stdout, done.stderr)
            built.printed.append(done.stdout)
        elif instruction.name == "USER":
            built = built._replace(user=words[0])
        else:
            assert instruction.name == "CMD", instruction
    assert built is not None
    return built


def _copy(to: Container, words: list[str], stages: dict[str, Container]) -> None:
    """Of COPY only what comes from another stage: what the examples copy else is not there."""
    if not words[0].startswith("--from="):
        return
    _, source, target = words
    place = to.among.place
    source = f"{place}/root-{stages[words[0].partition('=')[2]].name}{source}"
    target = f"{place}/root-{to.name}{target}"
    script = 'mkdir -p "$2" && tar -C "$1" -cf - . | tar -C "$2" --same-owner -xpf -'
    to.among.space.run("sh", "-c", script, "sh", source, target)
