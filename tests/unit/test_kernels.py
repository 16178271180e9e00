"""The harness of `make kernels`: what a guest says becomes rows and a page, and what is missing a skip."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernels import __main__ as command
from kernels import archive, kinds, machine, needs, rows

TESTS = Path(__file__).resolve().parents[1]
MIB = 1 << 20


def an_object(name: str, **changes: Any) -> rows.Row:
    return {
        "name": name, "backing": "store", "status": "huge", "coverable": 2 * MIB, "mapped": 2 * MIB,
        "swapped": 4 * MIB, "says": 4 * MIB, "smaps": 4 * MIB, "private": 0, "reason": None, "why": [], **changes,
    }  # fmt: skip


def start(step: str, *objects: rows.Row, fs: str = "ext4", **changes: Any) -> rows.Row:
    seen = {"objects": list(objects) or [an_object("a")], "private": 0, "result": "ok", **changes}
    return {
        "fs": fs,
        "step": step,
        "exit": 0,
        "stderr": "",
        "seen": seen,
        "shm": 0,
        "store": 5 * MIB,
    }


ABOUT = {"step": "about", "kernel": "6.1", "architecture": "amd64", "what": "Debian's", "date": "2026-01-02",
         "commit": "abc"}  # fmt: skip
BOOTED = {"step": "booted", "release": "6.1.0-1-amd64"}


def test_a_line_of_the_console_is_a_row_and_all_else_is_none() -> None:
    assert machine.parse('[ 1.0] boot @@ {"step": "end"}') == {"step": "end"}
    assert machine.parse("SeaBIOS (version 1.16.2)") is None
    for damaged in ('@@ {"step": "en', "@@ [1]", '@@ {"no": "step"}'):
        row = machine.parse(damaged)
        assert row is not None
        assert row["step"] == "damaged"


def test_a_cell_says_the_backings_what_is_huge_and_what_is_private() -> None:
    own, library = an_object("python3.11"), an_object("lib.so", backing="shm")
    assert rows.cell(start("second", own, library)) == "store / shm, 100 %"
    small = an_object("lib.so", smaps=0, says=0)
    assert rows.cell(start("second", own, small)) == "store / store, 50 %, small 4 of 8 MiB"
    assert rows.cell(start("second", own, private=3 * MIB)) == "store, 100 %, 3 MiB"
    nothing = an_object("python3.11", backing="none", mapped=0, swapped=0, smaps=0, says=0)
    assert rows.cell(start("second", nothing)) == "none, 0 %"
    tiny = an_object(
        "tiny.so", backing="none", mapped=0, swapped=0, smaps=0, says=0, reason="too small: ..."
    )
    assert rows.cell(start("second", own, library, tiny)) == "store / shm, 66 %"
    assert rows.cell(None) == "not asked"
    assert rows.cell({"fs": "ext4", "step": "first", "exit": -11}) == "failed (exit status -11)"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"step": "did not boot", "limit": 9, "said": "panic"},
            "did not boot in 9 s; the last it said: panic",
        ),
        ({"step": "did not end", "limit": 9, "said": "@@"}, "did not end in 9 s"),
        ({"step": "damaged", "text": "{"}, "a line of the guest was damaged"),
        ({"step": "failed", "fs": "xfs", "error": "mount: no"}, "xfs: mount: no"),
        ({"step": "log", "lines": ["BUG: bad page"]}, "the kernel's log: BUG: bad page"),
        (
            {"step": "first", "fs": "ext4", "exit": -11, "stderr": ""},
            "ext4, first: exit status -11",
        ),
        (
            {"step": "warm", "fs": "ext4", "exit": -11, "stderr": ""},
            "ext4, warm: exit status -11",
        ),
        (
            {
                "step": "warm",
                "fs": "ext4",
                "exit": 1,
                "stderr": "Traceback (most recent call last):",
            },
            "ext4, warm: exit status 1: Traceback",
        ),
        (
            start("first", an_object("a", smaps=0)),
            "stats() says 4194304 bytes are huge, smaps says 0",
        ),
        (start("first", result="other"), "computed something else than without"),
        (
            start("first", objects=[], reason="no native part"),
            "ext4, first: nothing was looked at: no native part",
        ),
        (
            start("restore", an_object("a", swapped_text=True)),
            "swapped text is left after restore()",
        ),
        ({**start("first"), "stderr": "Traceback"}, "stderr 'Traceback'"),
    ],
)
def test_what_must_not_be_is_a_fault(row: rows.Row, sentence: str) -> None:
    found = rows.faults([ABOUT, BOOTED, start("without"), row])
    assert len(found) == 1
    assert sentence in found[0]


def test_a_guest_that_told_nothing_is_a_fault_and_a_good_one_has_none() -> None:
    assert rows.faults([ABOUT]) == ["the guest told nothing"]
    warm = {"step": "warm", "fs": "ext4", "exit": 1, "stderr": "a.so was not stored: no room"}
    good = [ABOUT, BOOTED, start("without"), start("first", an_object("a")), warm, {"step": "end"}]
    assert rows.faults(good) == []


def test_the_page_has_date_commit_table_and_reasons_once() -> None:
    why = ["file: kernel said no", "store: /root/.cache/x is full"]
    parts = [an_object("a", why=why, reason="2 MiB at 0x7f9000200000 and 7 more: no copy yet"),
             an_object("b", why=why, reason="2 MiB at 0x600000: no copy yet")]  # fmt: skip
    found = [ABOUT, BOOTED, start("without"), start("first", *parts), start("warm"),
             start("warmed", an_object("a"))]  # fmt: skip
    page = rows.document({"6.1": found})
    assert "## 6.1.0-1-amd64, amd64\n\nDebian's; 2026-01-02, commit abc." in page
    assert (
        "| ext4 | store, 100 % | not asked | not asked | not asked | store, 100 % | not asked |"
        in page
    )
    assert page.count("- file: kernel said no\n") == 1
    assert page.count("no copy yet") == page.count("- 2 MiB here and there: no copy yet\n") == 1
    assert "- store: .../x is full" in page
    assert "xfs" not in page


def test_a_warm_that_fails_is_a_line_with_the_last_it_said() -> None:
    said = "pyhugetext warm: a store\npyhugetext warm: /usr/lib/x.so was not stored: why\n"
    found = [ABOUT, BOOTED, {**start("warm"), "exit": 1, "stderr": said}, start("warmed")]
    assert "- ext4: `warm` exits 1 (.../x.so was not stored: why); after" in rows.section(found)
    found[2] = {**start("warm"), "stderr": said}
    assert "- ext4: `warm` exits 0; after" in rows.section(found)


def test_of_kernels_that_were_not_asked_the_page_keeps_what_it_said() -> None:
    heads = {
        "6.1": "6.1.0-1-amd64, amd64", "6.12": "6.12.1+deb13-amd64, amd64", "7": "7: did not boot, amd64",
        "arm64-6.1": "6.1.0-1-arm64, arm64", "rothp-6.1": "6.1.170-rothp, amd64",
    }  # fmt: skip
    before = (
        "head\n\n"
        + "\n\n".join(f"## {head}\n\ntold by {name}" for name, head in heads.items())
        + "\n"
    )
    newer = {**BOOTED, "release": "6.12.2+deb13-amd64"}
    page = rows.document({"6.12": [ABOUT, newer, start("first")]}, before)
    assert re.findall("^told by (.*)", page, re.M) == ["6.1", "7", "arm64-6.1", "rothp-6.1"]
    assert "6.12.1" not in page
    assert rows.document({}, page).count("\n## ") == 5


def test_other_file_systems_of_the_same_kernel_stay_with_their_commit() -> None:
    before = [ABOUT, BOOTED, start("first", fs="xfs"), start("first", fs="ext4"), {"step": "end"}]
    now = [ABOUT, BOOTED, start("second", fs="ext4"), {"step": "end"}]
    assert rows.merge(before, now) == [*now, start("first", fs="xfs")]
    later = [{**ABOUT, "commit": "def"}, *now[1:]]
    merged = rows.merge(before, later)
    assert merged == [*later, {**start("first", fs="xfs"), "commit": "abc"}]
    assert "\n| ext4 | " in rows.table(merged)
    assert "\n| xfs (abc) | " in rows.table(merged)
    last = [{**ABOUT, "commit": "ghi"}, BOOTED, start("first", fs="btrfs")]
    assert [row.get("commit") for row in rows.merge(merged, last)[3:]] == ["def", "abc"]
    newer = [{**row, "release": "6.1.0-2-amd64"} if row is BOOTED else row for row in now]
    assert rows.merge(before, newer) == newer
    assert rows.merge([], now) == now


def test_a_kernel_that_does_not_boot_is_a_section_without_a_table() -> None:
    page = rows.section([ABOUT, {"step": "did not boot", "limit": 300, "said": "no"}])
    assert "## 6.1: did not boot, amd64" in page
    assert "- did not boot in 300 s" in page
    assert "|" not in page


@pytest.mark.parametrize("command", [["sh", "-c", "while :; do :; done"], ["sleep", "60"]])
def test_an_emulator_that_never_says_anything_is_a_row(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "BUSY", 2 if command[0] == "sleep" else 600)
    assert machine._lines(command, machine.Limits(1, 60), tmp_path / "log") == [""]


def test_what_others_take_of_the_processor_is_not_the_guests_time() -> None:
    limits = machine.Limits(300, 3600)
    assert not limits.are_over(booted=False, clock=1000, processor=100)
    assert limits.are_over(booted=False, clock=1000, processor=300)
    assert limits.are_over(booted=False, clock=1500, processor=0)
    assert not limits.are_over(booted=True, clock=1500, processor=300)


def test_a_guest_that_is_interrupted_keeps_what_it_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    told = [BOOTED, start("first"), start("warmed"), start("first", fs="xfs")]
    script = "".join(f"echo '@@ {json.dumps(row)}'; " for row in told)

    def interrupts(process: int) -> float:
        if '"xfs"' in log.read_text():
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(machine, "_taken", interrupts)
    monkeypatch.setitem(machine.QEMU, "amd64", ("sh", "-c", f"{script} sleep 60"))
    kernel, limits = kinds.Kernel(tmp_path / "image", None), machine.Limits(9, 9)
    found = machine.boot("6.1", kernel, tmp_path / "initrd", [], "", limits, log)
    assert found == [*told[:3], {"step": "interrupted"}]
    assert rows.faults(found) == []


def test_qemu_that_fails_at_once_is_a_kernel_that_did_not_boot_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(machine.QEMU, "amd64", ("sh", "-c", "echo no such machine >&2; exit 1"))
    kernel = kinds.Kernel(tmp_path / "image", None)
    found = machine.boot(
        "6.1", kernel, tmp_path / "initrd", [], "", machine.Limits(9, 9), tmp_path / "log"
    )
    assert found == [{"step": "did not boot", "limit": 9, "said": "no such machine"}]


def skipped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What was printed: one sentence, with the word and without a table."""
    assert command.main(list(arguments)) == needs.SKIPPED
    said = capsys.readouterr().out
    assert re.fullmatch(r"make kernels: skipped: [^\n|]+\.\n", said)
    return said


@pytest.mark.parametrize(
    ("program", "package"),
    [("qemu-system-x86_64", "qemu-system-x86"), ("mkfs.btrfs", "btrfs-progs"), ("apt-get", "apt")],
)
def test_a_missing_program_is_a_skip_that_names_its_package(
    program: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == program else name)
    said = skipped(capsys, "6.1", "--work", str(tmp_path))
    assert f"{program} is missing" in said
    assert f"apt-get install --no-install-recommends {package})" in said


def test_an_unknown_kernel_is_a_skip_that_lists_the_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "KERNELS takes 6.1 6.12 7 " in skipped(capsys, "2.4", "--work", str(tmp_path))


def test_no_room_is_a_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kinds, "require", lambda names: None)
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert "has 1 GB free, and 5 are needed" in skipped(capsys, "6.1", "--work", str(tmp_path))


@pytest.mark.skipif(not shutil.which("apt-get"), reason="apt-get is not installed")
def test_no_network_and_no_package_are_skips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kinds, "require", lambda names: None)
    monkeypatch.setattr(command, "require_room", lambda place, size: None)
    keys = tmp_path / "keys.gpg"
    keys.touch()
    monkeypatch.setattr(archive, "KEYS", keys)
    monkeypatch.setattr(archive, "MIRROR", "http://127.0.0.1:1/debian")
    assert "Debian's bookworm cannot be reached" in skipped(capsys, "6.1", "--work", str(tmp_path))
    monkeypatch.setattr(
        archive.Archive, "update", lambda self: self.debs.mkdir(parents=True, exist_ok=True)
    )
    assert "has no package linux-image-amd64" in skipped(capsys, "6.1", "--work", str(tmp_path))


def test_nothing_to_render_is_a_skip_and_the_page_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "run make kernels first" in skipped(capsys, "--render", "--work", str(tmp_path))


def test_make_takes_a_skip_for_success_and_nothing_else(tmp_path: Path) -> None:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    call = [
        "make",
        "-s",
        "-C",
        str(TESTS.parent),
        "kernels",
        f"PYTHON={sys.executable}",
        "KERNELS=2.4",
    ]
    result = subprocess.run(
        [*call, f"KERNELS_ARGS=--work {tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )
    assert result.returncode == 0, result.stderr
    assert "skipped" in result.stdout
