"""What is said before anything is measured, and when measuring ends."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pyhugetext.measure import expectation, stopping, summary, walks
from pyhugetext.measure.session import Job, Session
from pyhugetext.measure.statistics import Ratio, ratio
from support.report import measurement

INTEL = {"vendor_id": "GenuineIntel", "cpu family": "6"}


@pytest.mark.parametrize(
    ("cpuinfo", "pmu", "machine", "found"),
    [
        (INTEL, "skylake", "x86_64", ("ITLB_MISSES.WALK_ACTIVE", 0x1001085, True)),
        (INTEL, "haswell", "x86_64", ("ITLB_MISSES.WALK_DURATION", 0x1001085, True)),
        (INTEL, "sapphire_rapids", "x86_64", ("ITLB_MISSES.WALK_ACTIVE", 0x1001011, True)),
        ({"CPU implementer": "0x41"}, "", "aarch64", ("ITLB_WALK", 0x35, False)),
        (INTEL, "core", "x86_64", None),
        ({"vendor_id": "AuthenticAMD", "cpu family": "21"}, "", "x86_64", None),
        ({}, "", "x86_64", None),
        ({"vendor_id": "AuthenticAMD", "cpu family": "x"}, "", "x86_64", None),
    ],
)
def test_the_counter_of_page_walks_is_that_of_the_processor(
    cpuinfo: dict[str, str], pmu: str, machine: str, found: Any
) -> None:
    assert walks.instruction_walks(cpuinfo, pmu, machine) == found


@pytest.mark.parametrize(
    ("family", "model", "name"),
    [
        (23, 1, "bp_l1_tlb_miss_l2_miss"),
        (23, 49, "bp_l1_tlb_miss_l2_tlb_miss"),
        (25, 1, "bp_l1_tlb_miss_l2_tlb_miss"),
        (25, 0x21, "bp_l1_tlb_miss_l2_tlb_miss"),
        (25, 0x11, "bp_l1_tlb_miss_l2_tlb_miss.all"),
        (25, 0x61, "bp_l1_tlb_miss_l2_tlb_miss.all"),
        (26, 2, "bp_l1_tlb_miss_l2_tlb_miss.all"),
    ],
)
def test_the_counter_of_amd_has_the_name_that_its_perf_knows(
    family: int, model: int, name: str
) -> None:
    cpuinfo = {"vendor_id": "AuthenticAMD", "cpu family": f"{family}", "model": f"{model}"}
    assert walks.instruction_walks(cpuinfo, "", "x86_64") == (name, 0xFF85, False)


@pytest.mark.parametrize(
    ("cpuinfo", "name", "mebibytes"),
    [
        ({"vendor_id": "AuthenticAMD", "cpu family": "25"}, "AMD Zen 3 or Zen 4", 2),
        ({"vendor_id": "AuthenticAMD", "cpu family": "26"}, "AMD Zen 5", 8),
        ({**INTEL, "model": "85"}, "Intel Skylake", 6),
        ({"CPU implementer": "0x41", "CPU part": "0xd40"}, "Arm Neoverse V1", 8),
        ({**INTEL, "model": "9999"}, "", 4),
        ({}, "", 4),
    ],
)
def test_what_the_instruction_tlb_reaches_is_estimated(
    cpuinfo: dict[str, str], name: str, mebibytes: int
) -> None:
    found = walks.reach(cpuinfo)
    assert (found.processor, found.bytes) == (name, mebibytes << 20)


@pytest.mark.parametrize(
    ("walked", "word"), [(3.0, "likely"), (2.0, "likely"), (1.0, "possible"), (0.4, "unlikely")]
)
def test_counters_tell_by_the_share_of_cycles(walked: float, word: str) -> None:
    cycles = walks.Walks("ITLB_MISSES.WALK_ACTIVE", 0, True)
    found = expectation.from_walks(walked * 1e6, 1e8, cycles)
    assert (found.word, found.method) == (word, "counters")
    assert f"{walked:.1f} % of its cycles" in found.sentence
    assert "ITLB_MISSES.WALK_ACTIVE" in found.sentence
    each = walks.Walks("ITLB_WALK", 0, False)
    told = expectation.from_walks(walked * 1e6 / walks.CYCLES_A_WALK, 1e8, each)
    assert told.walk_share == pytest.approx(found.walk_share)
    assert "cycles each" in told.sentence


@pytest.mark.parametrize(
    ("touched", "seconds", "word"),
    [
        (3 << 20, 0.0005, "likely"),
        (3 << 20, 1.5, "possible"),  # one after the other, maybe
        (3 << 19, 0.0005, "possible"),
        (1 << 19, 0.0005, "unlikely"),
        (1 << 19, 1.5, "unlikely"),
    ],
)
def test_sampling_tells_by_what_the_tlb_reaches(touched: int, seconds: float, word: str) -> None:
    found = expectation.from_touched(touched, seconds, walks.Reach("AMD Zen 3", 512, False))
    assert (found.word, found.method) == (word, "sampling")
    assert "an estimate" in found.sentence


def test_only_executable_text_of_files_counts_as_touched() -> None:
    smaps = b"""\
55d0c4a00000-55d0c4a01000 r--p 00000000 fe:00 1234                       /usr/bin/python3
Referenced:           40 kB
55d0c4a01000-55d0c4c01000 r-xp 00001000 fe:00 1234                       /usr/bin/python3
Rss:                 900 kB
Referenced:          120 kB
7f0000000000-7f0000001000 r-xp 00000000 00:00 0
Referenced:            4 kB
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]
Referenced:            8 kB
7f1000000000-7f1000002000 r-xp 00000000 fe:00 99                         /x/r--p Referenced: 7.so
Referenced:            8 kB
"""
    assert expectation.referenced(io.BytesIO(smaps)) == 128 << 10


# When it ends.


def test_the_interval_is_looked_at_three_times_at_most_and_not_too_early() -> None:
    assert stopping.looks_at(15) == [5, 10, 15]
    assert stopping.looks_at(10) == [7, 10]
    assert stopping.looks_at(5) == [5]
    assert stopping.looks_at(1) == [1]
    assert all(stopping.looks_at(n)[-1] == n for n in range(1, 60))


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.998, 1.002, "narrow"),
        (0.9, 0.99, "decided"),
        (1.01, 1.2, "decided"),
        (0.98, 0.999, ""),
        (0.9, 1.1, ""),
    ],
)
def test_it_ends_when_enough_is_known(low: float, high: float, found: str) -> None:
    assert stopping.settled(Ratio((low + high) / 2, low, high, 40), 0.003) == found
    assert stopping.settled(Ratio((low + high) / 2, low, high, 5), 0.003) == ""


def test_looking_several_times_makes_the_interval_wider() -> None:
    pairs = [(1 + 0.01 * ((7 * i) % 13 - 6), 1.0) for i in range(60)]
    groups = [i // 10 for i in range(60)]
    for more in ((), groups):
        one, two, three = (ratio(pairs, groups=more, looks=n) for n in (1, 2, 3))
        assert one.median == two.median == three.median
        assert three.low <= two.low <= one.low
        assert one.high <= two.high <= three.high
        assert three.high - three.low > one.high - one.low
        assert one.confidence == three.confidence == 0.95


def _run(effect: float, noise: float, precision: float | None) -> Session:
    """A session whose processes are made up."""
    quads = measurement(effect, noise, quads=15 * 8).quads

    class Made(Session):
        def _run_one(self) -> None:
            at = self.process * 16
            self.quads += [q._replace(process=self.process) for q in quads[at : at + 16]]

    session = Made(Job("", "", 1e9, 0.02, processes=15, precision=precision))
    session.run()
    return session


def test_a_session_ends_at_the_look_that_says_enough() -> None:
    quiet = _run(0.95, 0.002, 0.003)
    assert (quiet.process, quiet.ended) == (5, "narrow")
    clear = _run(0.5, 0.1, 0.003)
    assert (clear.process, clear.ended) == (5, "decided")
    loud = _run(1.0, 0.3, 0.003)
    assert (loud.process, loud.ended) == (15, "time")
    all_of_it = _run(0.95, 0.002, None)
    assert (all_of_it.process, all_of_it.ended, all_of_it.looks) == (15, "time", [15])


# In one line.

MACHINE = {"processor": "Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz", "kernel": "6.18.44-fc"}


@pytest.mark.parametrize(
    ("word", "found", "said"),
    [
        ("faster", Ratio(0.972, 0.969, 0.975, 40), "2.8 % (2.5 to 3.1) less time on huge text"),
        ("slower", Ratio(1.01, 1.008, 1.012, 40), "1.0 % (0.8 to 1.2) more time on huge text"),
        (
            "no difference",
            Ratio(0.999, 0.99, 1.004, 40),
            "no difference shown on huge text (between 0.4 % more and 1.0 % less time)",
        ),
        ("too noisy", Ratio(0.9, 0.8, 1.1, 40), "no verdict on huge text (too noisy)"),
        ("too few", Ratio(0.9, 0.8, 1.1, 4), "no verdict on huge text (too few runs)"),
    ],
)
def test_all_of_it_fits_into_a_line(word: str, found: Ratio, said: str) -> None:
    settings = {"name": "numpy matmul", "stmt": "a @ a", "elapsed_seconds": 48.2}
    told = summary.line(settings, word, found, MACHINE)
    assert told == f"numpy matmul: {said}, Intel Xeon Gold 6330, Linux 6.18, 48 s"


def test_what_has_no_name_is_called_by_its_code() -> None:
    assert summary.name_of({"name": None, "stmt": "x = 1\ny(x)\n"}) == "x = 1; y(x)"
    assert summary.name_of({"command": ["python", "-c", "1"]}) == "python -c 1"
    assert len(summary.name_of({"stmt": "f" * 500})) == 60
    assert summary.name_of({}) == "it"
    assert "\x1b" not in summary.name_of({"name": "\x1b[31mred"})
