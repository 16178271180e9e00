"""The parts that `pyhugetext bench` measures with, but for the statistics."""

from __future__ import annotations

import errno
import json

import pytest

from pyhugetext.measure import pyperf_file
from pyhugetext.measure.counters import Unavailable, _why
from pyhugetext.measure.measurement import CONTROL, EFFECT, FORMAT, Measurement, Quad
from pyhugetext.measure.statement import BadStatement, Raised, Statement
from support.layouts import skip_unless_huge

OFF = {"PYHUGETEXT": "0"}

# --- SETUP and STMT


def test_names_of_setup_are_locals_of_the_statement_as_in_timeit():
    run = Statement("seen = []\nn = 0", "n += 1\nseen.append(n)").set_up()
    run(3)
    run(2)
    # The next run would fail on a name that was lost, or have started again.
    with pytest.raises(Raised, match=r"STMT, line 2: RuntimeError: \[1, 2, 3, 4, 5, 6\]"):
        Statement(
            "seen = []", "seen.append(len(seen) + 1)\nif len(seen) == 6: raise RuntimeError(seen)"
        ).set_up()(6)


def test_statement_runs_as_often_as_asked():
    shared = "import collections; import sys; seen = sys.modules.setdefault('seen_by_test', [])"
    run = Statement(shared, "seen.append(1)").set_up()
    import sys

    for loops in (1, 5, 0, 7):
        run(loops)
    assert len(sys.modules.pop("seen_by_test")) == 13  # type: ignore[arg-type]


def test_strings_of_several_lines_stay_as_they_are():
    Statement('s = """a\nb"""', 'assert s == "a\\nb", s').set_up()(1)


@pytest.mark.parametrize(
    ("setup", "stmt", "sentence", "caret"),
    [
        ("", "1 +", "STMT, line 1: invalid syntax", "^"),
        ("", "x = 1\nif x", "STMT, line 2: ", "^"),
        ("a b", "1", "SETUP, line 1: invalid syntax", "^"),
        ("x = 1\n  y = 2", "1", "SETUP, line 2: unexpected indent", ""),
        ("", "return 1", "STMT, line 1: 'return' outside function", ""),
        ("", "yield 1", "STMT, line 1: 'yield' outside function", ""),
        ("", "break", "STMT, line 1: 'break' outside loop", ""),
        ("from os import *", "1", "line 1: import * only allowed", ""),
        ("", "global n\nn = 1\nglobal n", "STMT, line 3: ", ""),
        ("", "'a\0b'", "STMT", ""),
    ],
)
def test_what_is_no_python_is_told_with_its_line(setup, stmt, sentence, caret):
    with pytest.raises(BadStatement) as caught:
        Statement(setup, stmt)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caret in caught.value.shown


@pytest.mark.parametrize(
    ("setup", "stmt", "sentence"),
    [
        ("\n1 / 0", "1", "SETUP, line 2: ZeroDivisionError: division by zero"),
        ("f = lambda: {}['key']", "\n\nf()", "STMT, line 3: KeyError: 'key'"),
        ("", "raise SystemExit(3)", "STMT, line 1: SystemExit: 3"),
        ("", "raise KeyboardInterrupt", "STMT, line 1: KeyboardInterrupt"),
        ("", "raise StopIteration", "STMT, line 1: RuntimeError: generator raised StopIteration"),
    ],
)
def test_what_raises_is_told_with_its_line(setup, stmt, sentence):
    with pytest.raises(Raised) as caught:
        Statement(setup, stmt).set_up()(1)
    assert str(caught.value) == sentence


# --- JSON


def quad(kind: str, *lap: int) -> Quad:
    a, b, c, d = lap
    times = (a, b, c, d)
    return Quad(kind, times, (a * 9, b * 9, c * 9, d * 9), (a * 10,) * 4, (0, 1, 2, 0))


def sample(kind: str = "statement", n: int = 8) -> Measurement:
    quads = []
    for i in range(n):
        quads.append(quad(EFFECT, 1000 + i, 900, 910 + i, 1000))
        quads.append(quad(CONTROL, 1000, 1000 + i, 1000, 1000 + i))
    return Measurement(kind, tuple(quads), 10, 9, {"slot": 0.02}, {"kernel": "6"}, {}, {})


@pytest.mark.parametrize("kind", ["statement", "command"])
def test_measurement_survives_its_json(kind):
    one = sample(kind)
    document = json.loads(json.dumps(one.as_dict()))
    assert document["format"] == FORMAT
    other = Measurement.from_dict(document)
    assert other == one
    assert other.as_dict() == one.as_dict()
    assert other.verdict.word == "faster"
    assert other.effect.pairs == (8 if kind == "statement" else 16)


def test_measurement_without_a_control_has_no_verdict():
    document = Measurement("statement", sample().quads[:1]).as_dict()
    assert document["control"] is None
    assert document["verdict"]["word"] == "too few"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "pyhugetext-bench-2"},
        {"kind": "other"},
        {"samples": {}},
        {"samples": {"loops": 1, "laps": 1, "quads": [{"kind": "effect", "lap": [1, 2, 3]}]}},
        {"machine": 3},
    ],
)
def test_other_json_is_refused_in_a_sentence(change):
    with pytest.raises(ValueError, match="not the JSON of pyhugetext bench"):
        Measurement.from_dict({**sample().as_dict(), **change})


def test_pyperf_gets_seconds_a_run():
    document = pyperf_file.suite(sample(n=1), "huge", "name")
    assert document["benchmarks"][0]["runs"][0]["values"] == [900 / 10 / 1e9, 910 / 10 / 1e9]


# --- switching


def test_quads_switch_in_the_order_that_they_say(python):
    # No text is moved here: what is recorded is the order of the calls.
    code = """
        import json
        from pyhugetext.measure.measurement import CONTROL, EFFECT
        from pyhugetext.measure.switcher import Switcher
        calls = []
        one = Switcher(
            lambda n: calls.append(n) or sum(range(20_000 * n)),
            huge=lambda: calls.append("huge"), small=lambda: calls.append("small"),
            slot=0.01, loops=1,
        )
        told = [one.laps, one.warm_laps]
        for kind in (EFFECT, CONTROL):
            calls.clear()
            quad = one.quad(kind)
            told.append(list(calls))
            assert all(0 < lap <= cpu for lap, cpu in zip(quad.lap, quad.cpu)), quad
        print(json.dumps(told))
    """
    laps, warm, effect, control = json.loads(python(code, env=OFF).stdout)
    slot, settled = [1] * laps, [1] * warm
    away = ["huge", "small"]
    assert effect == [*settled, *slot, "huge", *settled, *slot, *slot, "small", *settled, *slot]
    assert control == [*settled, *slot, *away, *settled, *slot, *slot, *away, *settled, *slot]


def test_statement_longer_than_the_slot_is_run_once_a_slot(python):
    code = """
        import time
        from pyhugetext.measure.switcher import Switcher
        one = Switcher(lambda n: [time.sleep(0.02) for _ in range(n)],
                       huge=int, small=int, slot=0.005)
        print(one.loops, one.laps, one.warm_laps, one.run_seconds > one.slot)
    """
    assert python(code, env=OFF).stdout.split() == ["1", "1", "1", "True"]


def test_threads_make_the_slot_one_lap(python):
    # zlib lets go of the GIL: four threads at once use more CPU time than the main one.
    code = """
        import threading, zlib
        from pyhugetext.measure.switcher import Switcher
        data = bytes(200_000)
        def run(n):
            for _ in range(n):
                threads = [threading.Thread(target=zlib.compress, args=(data,)) for _ in range(4)]
                for t in threads: t.start()
                for t in threads: t.join()
        one = Switcher(run, huge=int, small=int, slot=0.05)
        print(one.threaded, one.laps)
        quad = one.quad("effect")
        print(quad.lap == quad.cpu)
    """
    assert python(code, env=OFF).stdout.split() == ["True", "1", "True"]


def test_switching_runs_on_huge_text_and_leaves_small(python):
    skip_unless_huge("memfd")
    code = """
        import json, pyhugetext
        from pyhugetext.measure.sides import Sides
        from pyhugetext.measure.measurement import Measurement
        from pyhugetext.measure.switcher import Switcher, quads
        sides, seen, shares, found = Sides("memfd"), [], [], []
        sides.prepare()
        before = sides.describe()
        def huge():
            sides.huge()
            seen.append(pyhugetext.stats().mapped_bytes)
        def repeat(loops):
            for _ in range(loops):
                sum(range(1000))
        sides.small()
        switcher = Switcher(repeat, huge=huge, small=sides.small, slot=0.005)
        quads(switcher, 0.5, lambda quad, share: (found.append(quad), shares.append(share)))
        print(json.dumps([before, seen, shares, pyhugetext.stats().mapped_bytes,
                          Measurement("statement", tuple(found)).as_dict()]))
    """
    before, seen, shares, left, document = json.loads(python(code, env=OFF).stdout)
    assert before["mapped_bytes"] > 0
    assert before["backing"] == "memfd"
    assert set(seen) == {before["mapped_bytes"]}
    assert left == 0
    assert shares == sorted(shares)
    assert shares[-1] == 1
    found = Measurement.from_dict(document)
    assert len(found.of(EFFECT)) == len(found.of(CONTROL)) >= 1
    # A backwards order of the sides, or another clock, would not be near one.
    assert 0.2 < found.effect.median < 5


def test_nothing_huge_is_told_with_the_reason(python):
    code = """
        from pyhugetext.measure.sides import NothingHuge, Sides
        try:
            Sides().prepare()
        except NothingHuge as error:
            print(error)
    """
    told = python(code, env={**OFF, "PYHUGETEXT_INCLUDE": "/no/such/*"}).stdout
    assert "PYHUGETEXT_INCLUDE" in told or "include" in told


# --- counters

COUNTERS = """
    import json, threading, time
    from pyhugetext.measure import counters
    # Software events, which every kernel has.
    TASK_CLOCK = counters.Event("task clock ns", 1, 1)
    PAGE_FAULTS = counters.Event("page faults", 1, 2)
    def burn():
        until = time.thread_time_ns() + 30_000_000
        while time.thread_time_ns() < until: pass
    def open_or_why(event, **more):
        try:
            return counters.Counter(event, **more)
        except counters.Unavailable as error:
            print(json.dumps(str(error)))
            raise SystemExit(0)
"""


def told_by(result):
    told = json.loads(result.stdout)
    reason = told.get("unavailable") if isinstance(told, dict) else told
    if isinstance(reason, str):
        pytest.skip(f"no performance counters here: {reason}")
    return told


def test_counter_counts_this_thread_and_those_it_starts_later(python):
    code = (
        COUNTERS
        + """
    clock = open_or_why(TASK_CLOCK)
    told = []
    for work in (lambda: None, burn, lambda: (t := threading.Thread(target=burn), t.start(), t.join())):
        before = clock.read()
        work()
        told.append([now - then for now, then in zip(clock.read(), before)])
    print(json.dumps(told))
    """
    )
    nothing, alone, thread = told_by(python(code, env=OFF))
    # Nanoseconds on the processor: as many as the work took, by the kernel's other clock.
    assert nothing[0] < 15_000_000
    assert alone[0] >= 25_000_000
    assert thread[0] >= 25_000_000
    assert all(0 < running <= enabled for _, enabled, running in (alone, thread))


def test_meters_of_commands_count_each_of_them_and_nothing_here(python):
    code = (
        COUNTERS
        + """
    import subprocess, sys
    meters = counters.Meters([PAGE_FAULTS], commands=True)
    touch = "for at in range(0, len(b := bytearray(%d << 20)), 4096): b[at] = 1"
    told = []
    for run in range(3):
        for side, mebibytes in (("small", 0), ("huge", 20)):
            meters.begin()
            exec(touch % 40)
            if run < 2:
                subprocess.run([sys.executable, "-S", "-c", touch % mebibytes], check=True)
            meters.end(side)
        told.append(meters.as_dict(1)["page faults"])
    print(json.dumps(told[0] if "unavailable" in told[0] else told))
    """
    )
    first, second, third = told_by(python(code, env=OFF))
    # A start of Python takes some hundred faults; transparent huge pages may save the rest.
    assert 100 < first["small"] <= first["huge"]
    # Averages: of the same twice, and then of nothing, although this process had faults enough.
    for side in ("small", "huge"):
        assert 0.8 < second[side] / first[side] < 1.2
        assert 0.8 < third[side] * 3 / 2 / second[side] < 1.2


def test_meters_sum_by_side_and_tell_what_is_not_available(python):
    code = (
        COUNTERS
        + """
    nonsense = counters.Event("nonsense", 3, 0xFFFFFF)
    meters = counters.Meters([TASK_CLOCK, nonsense])
    for side in ("small", "huge", "huge"):
        meters.begin()
        burn()
        meters.end(side)
    print(json.dumps(meters.as_dict(2)))
    meters.close()
    """
    )
    told = json.loads(python(code, env=OFF).stdout)
    # The kernel has no such event, whatever the machine.
    assert told["nonsense"]["unavailable"].startswith(("E",))
    if "unavailable" in told["task clock ns"]:
        pytest.skip(f"no performance counters here: {told['task clock ns']['unavailable']}")
    # A run is half of what was between begin() and end(), on either side.
    for side in ("small", "huge"):
        assert 12_000_000 <= told["task clock ns"][side] < 60_000_000


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "EACCES (kernel.perf_event_paranoid"),
        (errno.EPERM, "EPERM (kernel.perf_event_paranoid"),
        (errno.ENOENT, "ENOENT (this processor"),
        (errno.ENOSYS, "ENOSYS (the kernel"),
        (errno.EMFILE, "EMFILE (Too many open files)"),
        (4095, "4095 ("),
    ],
)
def test_refusal_is_told_by_its_errno_and_in_words(number, words):
    assert _why(number).startswith(words)
    assert issubclass(Unavailable, Exception)
