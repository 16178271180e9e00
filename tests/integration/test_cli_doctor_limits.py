"""pyhugetext doctor under limits that are really there: it finds them, names them, and its verdict
is what a process under the same limits meets."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import harm
from support.cli import (
    AS_STRANGER,
    SHORT_WALKS,
    Cli,
    check,
    need_for_others,
    need_tool,
    public_directory,
    rung,
)
from support.common import STRANGER
from support.limits import MIB, PR_SET_MDWE, PR_SET_THP_DISABLE, knows, limit, set_process


def doctor(
    cli: Cli, prefix: tuple[str, ...] = (), prepare: Callable[[], None] | None = None, **env: str
) -> dict[str, Any]:
    """What it tells under limits, as JSON; where nothing works, the text must say why at once."""
    environ = cli.environment(**{"PYHUGETEXT_BACKING": "auto", **env})

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, sys.executable, *SHORT_WALKS, "doctor", *options],
            env=environ,
            preexec_fn=prepare,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    result = run("--json")
    assert result.stderr == ""
    told: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == (0 if told["works"] else 1)
    if not told["works"]:
        result = run()
        assert (result.returncode, result.stderr) == (1, "")
        assert told["reason"] in result.stdout.splitlines()[0]
    return told


def stats_under(cli: Cli, prepare: Callable[[], None]) -> dict[str, Any]:
    code = "import json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=cli.environment(PYHUGETEXT="1", PYHUGETEXT_BACKING="auto"),
        preexec_fn=prepare,
        stdout=subprocess.PIPE,
        check=True,
    )
    stats: dict[str, Any] = json.loads(result.stdout)
    return stats


def test_huge_pages_disabled_for_the_process(cli):
    if not knows(PR_SET_THP_DISABLE, 1):
        pytest.skip("the kernel has no PR_SET_THP_DISABLE")
    told = doctor(cli, prepare=set_process(PR_SET_THP_DISABLE, 1))
    assert not told["works"]
    assert check(told, "thp_disable")["state"] == "problem"
    assert "disabled for this process" in told["reason"]
    assert not any(one["works"] for one in told["backings"])
    assert any("PR_SET_THP_DISABLE" in one["text"] for one in told["recommendations"])


def test_write_xor_execute(cli):
    if not knows(PR_SET_MDWE, 1):
        pytest.skip("the kernel has no PR_SET_MDWE (6.3)")
    told = doctor(cli, prepare=set_process(PR_SET_MDWE, 1))
    assert check(told, "mdwe")["state"] == "limit"
    assert not rung(told, "thp")["works"]
    assert "mprotect(PROT_EXEC) failed with EACCES" in rung(told, "thp")["reason"]
    assert told["works"] == stats_under(cli, set_process(PR_SET_MDWE, 1))["active"]


def refusing(**calls: str) -> tuple[str, ...]:
    return (sys.executable, "-S", harm.__file__, "refuse", json.dumps(calls))


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [("memfd_create", "EPERM", "memfd"), ("process_vm_readv", "EPERM", "thp")],
)
def test_system_call_refused_by_a_filter(cli, call, error, name):
    told = doctor(cli, prefix=refusing(**{call: error}))
    assert check(told, "seccomp")["facts"]["mode"] == 2
    assert not rung(told, name)["works"]
    assert f"{call} failed with {error}" in rung(told, name)["reason"]


def test_every_rung_refused_by_a_filter(cli):
    told = doctor(cli, prefix=refusing(mremap="EPERM"))
    assert not told["works"]
    assert "mremap failed with EPERM" in told["reason"]
    assert not any(one["works"] for one in told["backings"])


def test_limit_on_the_size_of_files(cli):
    told = doctor(cli, prepare=limit(resource.RLIMIT_FSIZE, MIB))
    assert check(told, "limits")["state"] == "limit"
    assert check(told, "limits")["facts"]["file_size"] == MIB
    assert not rung(told, "store")["works"]
    assert "RLIMIT_FSIZE" in rung(told, "store")["reason"]
    assert not cli.store.exists()


@pytest.mark.parametrize(
    ("which", "name"), [(resource.RLIMIT_AS, "address_space"), (resource.RLIMIT_DATA, "data")]
)
def test_limit_on_memory(cli, python, which, name):
    told = doctor(cli, prepare=limit(which, 2048 * MIB))
    assert check(told, "limits")["facts"][name] == 2048 * MIB
    assert check(told, "limits")["state"] == "ok"
    code = """
    import resource, sys
    from pyhugetext.doctor import process
    which, name = int(sys.argv[1]), sys.argv[2]
    used = dict(zip(("address_space", "data"), process._used()))[name]
    resource.setrlimit(which, (used + (8 << 20), resource.RLIM_INFINITY))
    print(process._limits().state)
    """
    assert python(code, str(which), name, env={"PYHUGETEXT": "0"}).stdout == "limit\n"


def test_store_that_others_can_write(cli):
    cli.store.mkdir()
    cli.store.chmod(0o777)
    told = doctor(cli)
    (user,) = (store for store in told["stores"] if store["kind"] == "user")
    assert not user["trusted"]
    assert "writable by others" in user["reason"]
    assert not rung(told, "store")["works"]
    assert rung(told, "store")["reason"] == user["reason"]
    assert told["backing"] != "store"
    assert f"chmod go-w {cli.store}" in [one["command"] for one in told["recommendations"]]
    assert list(cli.store.iterdir()) == []


def test_home_that_cannot_be_written_and_ordinary_user(cli):
    with public_directory() as directory:
        home = directory / "home"
        home.mkdir(mode=0o555)
        prefix: tuple[str, ...] = ()
        if os.geteuid() == 0:
            need_tool("setpriv")
            need_for_others(os.path.realpath(sys.executable))
            prefix = AS_STRANGER
        # The store in shared memory is that user's own; it stays as it is.
        shared = Path(f"/dev/shm/pyhugetext-{STRANGER if prefix else os.geteuid()}")
        there = shared.exists()
        cli.store = home / ".cache/pyhugetext"
        told = doctor(cli, prefix=prefix, HOME=str(home), TMPDIR=str(directory))
        assert os.listdir(home) == []
        assert shared.exists() == there
    (user,) = (store for store in told["stores"] if store["kind"] == "user")
    assert not user["writable"]
    assert not rung(told, "store")["works"]
    assert "not writable" in rung(told, "store")["reason"]
    assert told["backing"] in ("file", "shm", "memfd", "thp", "none")
    if told["backing"] != "file":
        commands = [one["command"] for one in told["recommendations"]]
        assert any(command.startswith("export PYHUGETEXT_STORE=") for command in commands)


def test_nothing_says_where_the_store_is(cli):
    environ = {"PYHUGETEXT_STORE": "", "XDG_CACHE_HOME": "", "HOME": ""}
    told = doctor(cli, **environ)
    (user,) = (store for store in told["stores"] if store["kind"] == "user")
    assert user["path"] is None
    assert "HOME" in rung(told, "store")["reason"]


def test_file_where_the_store_would_be(cli):
    cli.store.write_text("not a directory")
    told = doctor(cli)
    assert not rung(told, "store")["works"]
    assert "no directory" in rung(told, "store")["reason"]
    assert cli.store.read_text() == "not a directory"
