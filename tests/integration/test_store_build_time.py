"""How long a start is kept waiting by what is built, and what becomes of the rest."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from support.common import HUGE
from support.growing import bits, verify
from support.libraries import USE_LIBRARY, make_library
from support.record import Record
from support.store import UNSET, Store


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_library(tmp_path_factory.mktemp("library"))


def test_where_there_is_no_time_each_start_adds_a_page(auto: Store, library: Path) -> None:
    """No copy of its own is made of what the store will have, and all is there in the end."""
    before = 0
    for _ in range(20):
        report = auto.start(USE_LIBRARY, str(library), PYHUGETEXT_BUILD_TIME="0")
        there = sum(len(bits(Record.read(path).present)) for path in auto.records)
        assert report.stats["private_bytes"] == 0
        assert there > before or not report.built
        if not report.built:
            break
        before = there
        region = report.region("libvictim.so")
        assert "a part at each start" in str(region["reason"]) or region["swapped_bytes"]
    assert not report.built
    assert region["status"] == report.interpreter["status"] == "huge"
    assert len(auto.records) == len(auto.copies) == 2
    verify(auto)


def test_private_copies_of_a_start_take_no_longer_than_it_may(auto: Store, far: Path) -> None:
    """However many objects there are: only the first one's least is copied whatever the time."""
    report = auto.start(
        LD_PRELOAD=str(far), PYHUGETEXT_BUILD="never", PYHUGETEXT_BUILD_TIME="0"
    )  # fmt: skip
    assert 0 < report.stats["private_bytes"] <= 2 * HUGE
    reasons = {report.interpreter["reason"], report.region(far.name)["reason"]}
    assert any("PYHUGETEXT_BUILD_TIME" in (reason or "") for reason in reasons), reasons


def test_what_is_promised_is_built_on_as_the_program_goes_on(auto: Store, far: Path) -> None:
    """Also where what is imported meanwhile brings no text: a start has more time the longer it takes."""
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed")
    # Not all can be written in the time that a start has at its beginning.
    slow = ("-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_exit=5000")
    code = """
    import ctypes, glob, importlib, os, sys, time
    import pyhugetext
    def stored():
        copies = glob.glob(os.environ["PYHUGETEXT_STORE"] + "/v1/objects/*/*")
        return sum(os.stat(copy).st_blocks * 512 for copy in copies)
    assert stored() == 0
    library = ctypes.CDLL(sys.argv[1])
    assert all(getattr(library, f"g{n}")(7) == 21 + n for n in range(40))
    began = time.monotonic()
    import _lsprof
    took = time.monotonic() - began
    before = stored()
    for small in ("_zoneinfo", "_json", "_multibytecodec", "termios"):
        until = time.process_time() + 0.8
        while time.process_time() < until:
            pass
        importlib.import_module(small)
        if stored() > before:
            break
    print(before, stored(), took)
    """
    slow_start = replace(auto, prefix=(strace, "-f", "-o", "/dev/null", *slow))
    result = slow_start.run(
        code, str(far), PYHUGETEXT_BUILD_TIME=UNSET, PYHUGETEXT_INCLUDE="*libvictim.so"
    )
    assert (result.returncode, result.stderr) == (0, "")
    before, after, took = map(float, result.stdout.split())
    if took > 0.15:
        pytest.skip("so slow a machine that one import took all the time there is for building")
    assert before < after, (before, after, took)
