"""pyhugetext image that is ended before it comes to its end, and the run after it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import wait_for
from support.common import tool
from support.image import Environment, aligned, environment, known, object_of

KILLS = int(os.environ.get("KILLS", "5"))


@pytest.fixture
def env() -> Iterator[Environment]:
    with environment() as made:
        yield made


def start(env: Environment, *arguments: str) -> subprocess.Popen[str]:
    command = [*env.cli.prefix, env.cli.executable, *env.cli.words, "image", *arguments]
    return subprocess.Popen(
        command,
        env=env.cli.environment(**env.only),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_killed_at_any_point_every_file_is_the_old_or_the_new_one(
    env: Environment, tmp_path: Path
) -> None:
    libraries = [env.add(f"sample{number}", build_id=0x1000 + number) for number in range(4)]
    old = {path: path.read_bytes() for path in libraries}
    new = {path: aligned(content, tmp_path) for path, content in old.items()}
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    for _ in range(KILLS):
        process = start(env, *chance.choice([(), (), ("--undo",)]))
        time.sleep(chance.uniform(0.2, 1.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for path in libraries:
            assert path.read_bytes() in (old[path], new[path]), (seed, path)
    told = env.json()
    assert [one["used"] for one in told["objects"]] == [True] * 4, seed
    assert all(path.read_bytes() == new[path] for path in libraries)
    env.check_records()
    assert env.leftovers() == []


def test_killed_while_a_file_is_tried_the_next_run_removes_it(env: Environment) -> None:
    """What would be executed while it is loaded holds the run there."""
    stop = '__attribute__((constructor)) static void stop(void) { if (getenv("HOLD")) pause(); }'
    library = env.add("sample")
    source = "#include <stdlib.h>\n#include <unistd.h>\n" + stop
    made = env.place / "holding.so"
    (env.place / "holding.c").write_text(source)
    subprocess.run(
        [tool("cc", "gcc"), "-shared", "-fPIC", "-o", made, env.place / "holding.c"], check=True
    )
    subprocess.run([tool("patchelf"), "--add-needed", str(made), str(library)], check=True)
    before = known(library)
    os.environ["HOLD"] = "1"
    try:
        (library.parent / "__init__.py").write_text("")
        process = start(env)
    finally:
        del os.environ["HOLD"]
    wait_for(env.leftovers)
    # Another run leaves what is being written alone.
    beside = env.json()
    assert object_of(beside, library)["alignment"] == "aligned"
    assert env.leftovers() != []
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert env.leftovers() != []
    assert known(library)[0] != before[0]
    env.json()
    assert env.leftovers() == []


def test_interrupted_run_says_so_and_the_next_goes_on(env: Environment) -> None:
    library = env.add("sample")
    (library.parent / "__init__.py").write_text(
        "import os, time\nif 'HOLD' in os.environ:\n    time.sleep(600)\n"
    )
    os.environ["HOLD"] = "1"
    try:
        process = start(env)
    finally:
        del os.environ["HOLD"]
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "pyhugetext image: interrupted; what was done is kept"
    assert env.leftovers() == []
    assert env.json()["total"]["aligned"] == 1


def test_record_that_a_killed_run_left_behind_follows_later(
    env: Environment, tmp_path: Path
) -> None:
    library = env.add("sample")
    library.write_bytes(aligned(library.read_bytes(), tmp_path))
    told = json.loads(env.image("--json").stdout)
    assert object_of(told, library)["alignment"] == "already"
    env.check_records()
