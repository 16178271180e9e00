"""pyhugetext doctor: what it tells, that it agrees with what processes do, and that it leaves
nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from support.cli import SHORT_WALKS, Cli, check, in_namespace, need_root, need_tool, rung
from support.common import clean_environment
from support.installed import installed_files, site_packages

STATES = {"ok", "limit", "problem", "info", "unknown"}
LADDER = ["file", "store", "shm", "memfd", "thp", "hugetlb"]


def doctor(cli: Cli, **env: str) -> dict[str, Any]:
    """What it tells as JSON; its exit status must fit."""
    result = cli("doctor", "--json", **{"PYHUGETEXT_BACKING": "auto", **env})
    assert result.stderr == ""
    told: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == (0 if told["works"] else 1)
    return told


@pytest.fixture
def cli(cli: Cli) -> Cli:
    cli.words = SHORT_WALKS
    return cli


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """What it tells where there is no store yet."""
    return doctor(Cli(tmp_path_factory.mktemp("usual") / "store"))


def tree(directory: Path) -> dict[str, tuple[int, int] | None]:
    """All below a directory; of files the size and the time of change."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


def test_keys_are_those_of_the_manual(cli, usual):
    told = usual
    assert set(told) == {
        "works", "reason", "backing", "checks", "backings", "stores", "recommendations",
    }  # fmt: skip
    manual = " ".join(cli("doctor", "--help").stdout.split())
    for one in told["checks"]:
        assert set(one) == {"group", "name", "state", "text", "facts"}
        assert one["state"] in STATES
        assert re.search(rf"\b{one['name']}\b", manual), one["name"]
    assert len({one["name"] for one in told["checks"]}) == len(told["checks"])
    assert [one["backing"] for one in told["backings"]] == LADDER
    for names in (told["backings"][0], told["stores"][0]):
        for key in names:
            assert re.search(rf"\b{key}\b", manual), key
    for item in told["recommendations"]:
        assert set(item) == {"text", "command"}


def test_backing_is_the_one_that_a_new_process_takes(cli, stats_of):
    told = doctor(cli)
    stats = stats_of(env={"PYHUGETEXT_STORE": str(cli.store), "PYHUGETEXT": "1"})
    assert told["works"] == stats["active"]
    assert told["backing"] == stats["backing"]
    assert [one["backing"] for one in told["backings"] if one["taken"]] == (
        [stats["backing"]] if stats["active"] else []
    )
    # The same, now that the entry is there.
    again = doctor(cli)
    assert (again["works"], again["backing"]) == (told["works"], told["backing"])
    if stats["backing"] == "store":
        assert check(told, "process")["facts"]["backing"] != "store"
        assert check(again, "process")["facts"]["backing"] == "store"


@pytest.mark.parametrize("name", LADDER)
def test_each_backing_works_where_a_process_gets_it(usual, stats_of, tmp_path, name):
    if name == "shm":
        pytest.skip("the store in shared memory belongs to all processes of this user")
    told = rung(usual, name)
    stats = stats_of(env={"PYHUGETEXT_STORE": str(tmp_path / "other"), "PYHUGETEXT_BACKING": name})
    region = max(stats["regions"], key=lambda region: region["coverable_bytes"])
    assert told["works"] == bool(region["huge_bytes"])
    assert told["huge_bytes"] == region["huge_bytes"]
    if not told["works"]:
        assert told["reason"]


def test_nothing_is_left_behind_and_a_verdict_stays(cli, tmp_path):
    env = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    for _ in range(2):  # without a store, and with one
        before = tree(tmp_path)
        doctor(cli, **env)
        assert tree(tmp_path) == before
        shared = [name for name in os.listdir("/dev/shm") if name.startswith(".pyhugetext-doctor")]
        assert all(os.path.isdir(f"/proc/{name.rpartition('-')[2]}") for name in shared)
        cli.json("warm")
    verdict = cli.store / "v1/verdict"
    known = verdict.read_text()
    verdict.write_text(f"{known.rpartition(' ')[0]} never\n")
    before = tree(tmp_path)
    told = doctor(cli, **env)
    assert tree(tmp_path) == before
    (user,) = (store for store in told["stores"] if store["kind"] == "user")
    assert user["remembered"] == "never"
    if check(told, "large_folios")["facts"]["verdict"] == "written":
        assert "pyhugetext store clear" in [one["command"] for one in told["recommendations"]]


def test_what_a_killed_one_left_is_removed(cli):
    cli.json("warm")
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = cli.store / f".pyhugetext-doctor-{gone.pid}"
    (left / "v1").mkdir(parents=True)
    running = cli.store / f".pyhugetext-doctor-{os.getpid()}"
    running.mkdir()
    doctor(cli)
    assert not left.exists()
    assert running.exists()


def test_turned_off_is_said_and_the_rest_is_tried(cli):
    on, off = doctor(cli, PYHUGETEXT="1"), doctor(cli, PYHUGETEXT="0")
    assert not check(on, "switch")["facts"]["off"]
    assert check(off, "switch")["facts"]["off"]
    assert (on["works"], on["backing"]) == (off["works"], off["backing"])
    assert [r["works"] for r in on["backings"]] == [r["works"] for r in off["backings"]]
    assert "unset PYHUGETEXT" in [one["command"] for one in off["recommendations"]]
    assert "unset PYHUGETEXT" not in [one["command"] for one in on["recommendations"]]


def test_named_backing_decides(cli):
    told = doctor(cli, PYHUGETEXT_BACKING="thp")
    assert told["works"] == rung(told, "thp")["works"]
    if told["works"]:
        assert told["backing"] == "thp"
        assert "PYHUGETEXT_BACKING=thp" in cli("doctor", PYHUGETEXT_BACKING="thp").stdout


def test_malformed_setting_is_told(cli):
    told = doctor(cli, PYHUGETEXT_PRIVATE_LIMIT="much")
    assert check(told, "settings")["state"] == "limit"
    assert any("PYHUGETEXT_PRIVATE_LIMIT='much'" in r["text"] for r in told["recommendations"])


def test_environment_without_the_hook(cli, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    package = installed_files()[0]
    (site_packages(tmp_path / "venv") / "pyhugetext").symlink_to(package)
    cli.executable = str(tmp_path / "venv/bin/python")
    told = doctor(cli)
    assert not told["works"]
    assert told["backing"] == "none"
    assert "hook is not installed" in told["reason"]
    assert check(told, "hook")["state"] == "problem"
    assert any("pip install" in one["command"] for one in told["recommendations"])


def test_facts_are_those_of_the_machine(usual):
    told = usual
    cpuinfo = Path("/proc/cpuinfo").read_text()
    if "\nflags" in cpuinfo:
        guest = re.search(r"^flags.*\bhypervisor\b", cpuinfo, re.M) is not None
        assert check(told, "hypervisor")["facts"]["guest"] == guest
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if enabled.exists():
        assert f"[{check(told, 'thp')['facts']['enabled']}]" in enabled.read_text()
    pool = Path("/proc/meminfo").read_text()
    reserved = check(told, "hugetlb_pool")["facts"]["total"]
    if reserved is not None and "Hugepagesize:       2048 kB" in pool:
        assert re.search(rf"^HugePages_Total: +{reserved}$", pool, re.M)
    walk = check(told, "page_walk")
    if walk["state"] != "unknown":
        assert 0 < walk["facts"]["floor_ns"] < walk["facts"]["small_ns"] * 3
        assert walk["facts"]["ratio_low"] <= walk["facts"]["ratio"] <= walk["facts"]["ratio_high"]


def test_without_sys(cli):
    need_root()
    need_tool("unshare", "mount")
    cli.prefix = in_namespace("mount -t tmpfs none /sys")
    told = doctor(cli)
    for name in ("thp", "khugepaged", "hugetlb_pool", "itlb_multihit"):
        assert check(told, name)["state"] == "unknown"
        assert "unknown" in check(told, name)["text"]


# --- the text ---


def on_terminal(cli: Cli, columns: int, **env: str) -> str:
    """What it writes to a terminal with so many columns."""
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    environ = cli.environment(TERM="xterm-256color", PYHUGETEXT_BACKING="auto", **env)
    environ.pop("COLUMNS", None)
    child = subprocess.Popen(
        [sys.executable, *cli.words, "doctor"],
        env=environ,
        stdin=other,
        stdout=other,
        stderr=subprocess.DEVNULL,
    )
    os.close(other)
    chunks = []
    while True:
        try:
            chunk = os.read(own, 1 << 16)
        except OSError:  # EIO: the other side was closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(own)
    assert child.wait(60) in (0, 1)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def states_of(lines: list[str], told: dict[str, Any]) -> dict[str, str]:
    """Check -> the mark before it."""
    names = {one["name"] for one in told["checks"]}
    marks = "|".join(STATES)
    found = [re.match(rf"({marks}) +([a-z_]+) ", line) for line in lines]
    return {match[2]: match[1] for match in found if match and match[2] in names}


# What depends on nothing but this machine; the rest may come out otherwise a moment later.
LASTING = ("release", "thp", "mdwe", "seccomp", "thp_disable", "processor", "hypervisor", "perf")


def test_text_has_every_check_on_a_line_of_its_own(cli, usual):
    result = cli("doctor", PYHUGETEXT_BACKING="auto")
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].startswith("a new python")
    states = states_of(lines, usual)
    assert set(states) == {one["name"] for one in usual["checks"]}
    for name in LASTING:
        assert states[name] == check(usual, name)["state"]
    for item in usual["recommendations"]:
        assert item["text"] in result.stdout or "page walk" in item["text"]


def test_narrow_terminal_gets_lines_that_fit(cli):
    plain = cli("doctor", PYHUGETEXT_BACKING="auto").stdout
    seen = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(cli, 60))
    too_long = [line for line in seen.splitlines() if len(line) > 60 and " " in line.strip()]
    # Only a word that is longer than the terminal, as a path is, may stand out.
    assert all(max(map(len, line.split())) > 30 for line in too_long), too_long
    words = {word for word in plain.split() if not re.search(r"\d", word)}
    assert words <= set(seen.split())


def test_no_colour_where_none_is_wanted(cli):
    assert "\x1b[" not in on_terminal(cli, 100, NO_COLOR="1").replace("\x1b[1m", "").replace(
        "\x1b[0m", ""
    )


def test_colour_is_not_all_that_tells_the_state(cli, usual):
    seen = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(cli, 200))
    states = states_of(seen.splitlines(), usual)
    assert set(states) == {one["name"] for one in usual["checks"]}
    for name in LASTING:
        assert states[name] == check(usual, name)["state"]


def test_wrong_usage_is_status_2(cli):
    result = cli("doctor", "now")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert cli("doctor", "--").returncode == 2


def test_interpreter_without_a_path_to_itself(cli):
    code = (
        "import sys; from pyhugetext.cli.main import main; sys.executable = '';"
        "sys.exit(main(['doctor']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(PYHUGETEXT_STORE=str(cli.store)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "sys.executable is empty" in result.stdout
    assert "Traceback" not in result.stderr
