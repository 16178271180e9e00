"""The harness of `make suites` and `make wheel-suites`: what counts as a difference that the hook makes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from platforms import suites

SUITE = "pytest"  # is installed
OPTIONS = argparse.Namespace(jobs=1, timeout=60, backing="auto", logs=None)

PASSES, FAILS, SKIPPED = "", "<failure/>", "<skipped/>"

# Stands for a suite: writes a report as pytest does, of tests that end so with the hook, and so without.
FAKE = """
import os, sys
report, tests = sys.argv[1], eval(sys.argv[2])
print("<t>", file=(file := open(report, "w")))
for name, ways in tests.items():
    within, _, test = ("a.test_it." + name).rpartition(".")
    end = ways[os.environ.get("PYHUGETEXT") == "0"]
    print(f'<testcase file="a/test_it.py" classname="{within}" name="{test}">{end}</testcase>', file=file)
print("</t>", file=file)
"""


@pytest.fixture(autouse=True)
def what_a_suite_has(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    tests = {"test_passes": (PASSES, PASSES)}

    def command(_: str, arguments: list[str], report: Path, *__: int) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", FAKE, str(report), repr(tests)]

    monkeypatch.setitem(suites.SUITES, SUITE, suites.Suite(["none"]))
    monkeypatch.setattr(suites, "command", command)
    monkeypatch.setattr(suites.signal, "signal", lambda *_: None)
    return tests


def status(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(suites, "missing", lambda *_: "")
    monkeypatch.setattr("sys.argv", ["suites.py", SUITE, *arguments])
    return suites.main()


def test_two_classes_with_a_method_of_one_name_are_two_tests(
    what_a_suite_has: dict[str, tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    what_a_suite_has.update({"A.test_x": (FAILS, PASSES), "B.test_x": (PASSES, FAILS)})
    assert status(monkeypatch, "--both") == 1
    said = capsys.readouterr().out
    assert "fail with the hook: /a/test_it.py::A::test_x\n" in said
    assert "B::" not in said


def test_what_passes_without_and_does_not_run_with_the_hook_is_a_difference(
    what_a_suite_has: dict[str, tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    what_a_suite_has.update(test_out=(SKIPPED, PASSES), test_never=(SKIPPED, SKIPPED), test_bad=(FAILS, FAILS))  # fmt: skip
    assert status(monkeypatch, "--both") == 1
    assert "fail with the hook: /a/test_it.py::test_out\n" in capsys.readouterr().out


def test_what_failed_once_and_passes_alone_is_told(
    what_a_suite_has: dict[str, tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    what_a_suite_has["test_once"] = (FAILS, PASSES)
    told = suites.told

    def from_now_on(*arguments: object) -> None:
        told(*arguments)
        what_a_suite_has["test_once"] = (PASSES, PASSES)

    monkeypatch.setattr(suites, "told", from_now_on)
    assert status(monkeypatch) == 0
    said = capsys.readouterr().out
    assert "test_once alone: failed 0 of 3 active, 0 off" in said
    assert "no difference that repeats" in said


def test_a_run_that_dies_is_not_answered_by_the_report_of_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert suites.run(SUITE, "active", ["none"], OPTIONS, tmp_path).ran == 1
    monkeypatch.setattr(suites, "command", lambda *_: ["true"])
    died = suites.Result(0, set(), {"none"})
    assert suites.run(SUITE, "active", ["none"], OPTIONS, tmp_path) == died
    with pytest.raises(SystemExit, match="the suite did not end"):
        suites.run("cpython", "active", [], OPTIONS, tmp_path)


def test_for_a_program_that_died_its_tests_are_not_run_one_by_one() -> None:
    tests = ["bin/dies::A.*", "bin/fails"]
    passed = {"bin/dies::A.a", "bin/dies::A.b", "bin/fails::B.a", "bin/fails::B.b"}
    with_it = suites.Result(2, {"bin/fails::B.b"}, {"bin/dies::A.*", "bin/fails::B.a"})
    without = suites.Result(4, passed, set())
    expected = {"bin/dies::A.*", "bin/fails::B.a"}
    assert suites.suspected("torch", tests, with_it, without) == expected
    # The program ends this time: there are tests of it, and none of the name of the part.
    again = suites.Result(2, {"bin/dies::A.a", "bin/dies::A.b"}, set())
    assert not suites.wrong_again("torch", "bin/dies::A.*", again)
    assert suites.wrong_again("torch", "bin/dies::A.c", again)


def test_of_cpython_a_file_whose_process_died_has_failed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<t><testcase name="test.test_gc.A.test_b"/></t>')
    log = "0:00:01 [1/2] test_gc passed\n1 test failed:\n    test_json\n\n1 test OK.\n"
    result = suites.read("cpython", [], report, log, 2)
    assert (result.passed, result.failed) == ({"test.test_gc.A.test_b"}, {"test_json"})
    assert suites.wrong_again("cpython", "test_json", result)
    assert not suites.wrong_again("cpython", "test_json", suites.Result(1, set(), set()))


def test_a_package_that_cannot_be_asked_is_no_skip(tmp_path: Path) -> None:
    (tmp_path / "pyhugetext.py").write_text("raise ImportError('broken')")
    asked = argparse.Namespace(suite=SUITE, tests=[], source=None)
    with pytest.raises(SystemExit, match="broken"):
        suites.missing(asked, {"PYTHONPATH": str(tmp_path), "PYHUGETEXT": "0"})


def test_hook_that_is_not_active_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suites, "missing", lambda *_: "off: PYHUGETEXT=0 is set")
    monkeypatch.setattr("sys.argv", ["suites.py", SUITE])
    assert suites.main() == suites.SKIPPED == 77
    assert capsys.readouterr().out == f"{SUITE}: skipped: off: PYHUGETEXT=0 is set\n"
