"""pyhugetext report: which process, what is written, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyhugetext.cli.main import main
from support.cli import Cli, assert_one_sentence, make_module
from support.common import HUGE
from support.report import Page, document

# Processes of a report are remapped in memory of their own: no store is waited for.
REMAPPED = {"PYHUGETEXT": "1", "PYHUGETEXT_BACKING": "thp"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "page.html"


@pytest.fixture(autouse=True)
def _directory(out: Path) -> None:
    out.parent.mkdir()


@pytest.fixture
def modules(tmp_path: Path, library: Path) -> dict[str, str]:
    make_module(tmp_path, "sample", library, "import pyhugetext; pyhugetext.remap()")
    return {"PYTHONPATH": str(tmp_path), **REMAPPED}


@pytest.fixture
def sleeper(cli: Cli, modules: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process with the library in it, which tells its own stats() before it sleeps."""
    code = """
        import json, os, sample, pyhugetext
        print(json.dumps(pyhugetext.stats().as_dict()), flush=True)
        import signal
        signal.pause()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=cli.environment(**modules),
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_without_a_process_it_is_the_interpreter(cli: Cli, out: Path) -> None:
    result = cli("report", str(out), **REMAPPED)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{out} (")
    assert result.stdout.endswith("text is on huge pages\n") or "small pages" in result.stdout
    read = Page(out.read_text())
    assert any(Path(sys.executable).resolve().name in text for text in read.text("b"))
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_modules_are_imported_and_their_libraries_shown(
    cli: Cli, out: Path, modules: dict[str, str], library: Path
) -> None:
    told = cli.json("report", "-m", "json", "-m", "sample", str(out), **modules)
    assert told["process"]["name"].endswith(" with json and sample imported")
    assert told["process"]["pid"] is None
    (region,) = [r for r in told["stats"]["regions"] if r["path"] == str(library)]
    (drawn,) = [one for one in told["map"] if one["path"] == str(library)]
    squares = drawn["cells"]
    assert sum(squares.values()) * HUGE >= region["text_bytes"] - 2 * HUGE
    assert squares["huge"] * HUGE == region["huge_bytes"]
    assert told["bytes"] == out.stat().st_size
    assert library.name in Page(out.read_text()).text("b")


def test_a_running_process_is_reported_as_it_says_itself(
    cli: Cli, out: Path, sleeper: subprocess.Popen[str], library: Path
) -> None:
    assert sleeper.stdout is not None
    own = json.loads(sleeper.stdout.readline())
    before = Path(f"/proc/{sleeper.pid}/maps").read_text()
    told = cli.json("report", "--pid", str(sleeper.pid), str(out))
    assert Path(f"/proc/{sleeper.pid}/maps").read_text() == before
    for name in ("text_bytes", "coverable_bytes", "mapped_bytes", "huge_bytes", "private_bytes"):
        assert told["stats"][name] == own[name], name
    assert told["process"]["pid"] == sleeper.pid
    assert str(library) in [one["path"] for one in told["map"]]
    shown = Page(out.read_text())
    assert f"process {sleeper.pid}" in " ".join(shown.text("b"))


def test_its_arguments_are_not_told(cli: Cli, out: Path, tmp_path: Path) -> None:
    """Some hold passwords."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", "--password=geheim"]
    with subprocess.Popen(command, env=cli.environment()) as process:
        try:
            result = cli("report", "--pid", str(process.pid), str(out))
        finally:
            process.kill()
    assert result.returncode == 0, result.stderr
    assert "geheim" not in out.read_text()


def test_a_map_alone_is_an_svg_file(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "map.svg"
    result = cli("report", "--svg", str(out), **REMAPPED)
    assert result.returncode == 0, result.stderr
    tree = ET.fromstring(out.read_bytes())
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    squares = [e for e in tree.iter() if e.get("class") in ("full", "frame", "pale")]
    assert squares


def test_the_page_goes_to_a_pipe(cli: Cli, tmp_path: Path) -> None:
    result = cli("report", "-")
    assert result.returncode == 0
    Page(result.stdout)
    assert result.stderr == ""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE, text=True) as reader:
        assert cli("report", str(fifo)).returncode == 0
        Page(reader.communicate()[0])
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_file_is_replaced_whole_with_its_permissions(cli: Cli, out: Path) -> None:
    real = out.with_name("real.html")
    real.write_text("old")
    real.chmod(0o640)
    out.symlink_to(real.name)
    assert cli("report", str(out)).returncode == 0
    assert out.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    Page(real.read_text())
    assert sorted(path.name for path in out.parent.iterdir()) == ["page.html", "real.html"]


def test_a_new_file_has_the_permissions_of_the_umask(cli: Cli, out: Path) -> None:
    cli.prefix = ("sh", "-c", 'umask 027; exec "$@"', "sh")
    assert cli("report", str(out)).returncode == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("no/such/page.html", ("no/such/page.html", "No such file or directory")),
        (".", ("Is a directory",)),
        ("new/", ("new/", "Is a directory")),
        ("", ("No such file or directory",)),
        ("store.txt/page.html", ("Not a directory",)),
        ("/dev/full", ("No space left on device",)),
        ("/proc/page.html", ("/proc/page.html",)),
        ("x" * 300, ("File name too long",)),
    ],
)
def test_where_it_cannot_be_written_one_sentence_says_so(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: str,
    words: tuple[str, ...],
) -> None:
    (tmp_path / "store.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    assert main(["report", "--pid", str(os.getpid()), file]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    for word in words:
        assert word in captured.err
    assert sorted(os.listdir(tmp_path)) == before


def test_no_room_leaves_the_old_file_and_nothing_else(cli: Cli, out: Path) -> None:
    out.write_text("old")
    cli.prefix = ("sh", "-c", 'ulimit -f 4; exec "$@"', "sh")
    result = cli("report", "--pid", str(os.getpid()), str(out))
    assert result.returncode == 1
    assert_one_sentence(result, str(out), "File too large")
    assert out.read_text() == "old"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_write_protected_file_stays(cli: Cli, out: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write to every file")
    out.write_text("old")
    out.chmod(0o400)
    result = cli("report", str(out))
    assert result.returncode == 1
    assert_one_sentence(result, "Permission denied")
    assert out.read_text() == "old"


def bench_file(path: Path, change: Any = None) -> Path:
    found = document()
    if change is not None:
        change(found)
    path.write_text(json.dumps(found))
    return path


def test_measurements_are_on_the_page(cli: Cli, out: Path, tmp_path: Path) -> None:
    first = bench_file(tmp_path / "first.json")
    second = bench_file(tmp_path / "second.json", lambda d: d["settings"].clear())
    told = cli.json("report", "--bench", str(first), "--bench", str(second), str(out))
    assert [one["title"] for one in told["benches"]] == ["sorted(data)", "second.json"]
    for one in told["benches"]:
        assert one["effect"]["high"] < 1 < one["control"]["high"]
        assert one["sentence"].startswith("faster by")
    read = Page(out.read_text())
    assert len([h for h in read.text("h3") if h.startswith("Faster by")]) == 2


@pytest.mark.parametrize("content", ["", '{"format": "pyhugetext-bench-1"}', '{"a": NaN}'])
def test_a_measurement_that_is_none_is_told(
    cli: Cli, out: Path, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    result = cli("report", "--bench", str(path), str(out))
    assert result.returncode == 1
    assert_one_sentence(result, str(path), "not the JSON of pyhugetext bench")
    assert not out.exists()


@pytest.mark.parametrize("path", ["missing.json", "."])
def test_a_measurement_that_cannot_be_read_is_told(
    cli: Cli, out: Path, tmp_path: Path, path: str
) -> None:
    result = cli("report", "--bench", str(tmp_path / path), str(out))
    assert result.returncode == 1
    assert_one_sentence(result, str(tmp_path / path))


def test_a_process_that_is_gone_is_told(cli: Cli, out: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], env=cli.environment())
    process.wait()
    result = cli("report", "--pid", str(process.pid), str(out))
    assert result.returncode == 1
    assert_one_sentence(result, str(process.pid))
    assert not out.exists()


def test_a_zombie_is_told(cli: Cli, out: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], env=cli.environment())
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    result = cli("report", "--pid", str(process.pid), str(out))
    process.wait()
    assert result.returncode == 1
    assert_one_sentence(result, str(process.pid))


def test_a_process_that_is_not_python_is_reported(cli: Cli, out: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            result = cli("report", "--pid", str(process.pid), str(out))
        finally:
            process.kill()
    assert result.returncode == 0, result.stderr
    assert "sleep" in " ".join(Page(out.read_text()).text("b"))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--pid", "x", "page.html"),
        ("--pid", "0", "page.html"),
        ("--pid", "-1", "page.html"),
        ("--pid", "9" * 30, "page.html"),
        ("--pid", "\u0661", "page.html"),
        ("--pid", "1", "-m", "json", "page.html"),
        ("-m", "no-module", "page.html"),
        ("-m", "", "page.html"),
        ("-m", "json", "page.html", "page.html"),
        ("--svg", "--bench", "bench.json", "map.svg"),
        ("--json", "-"),
        ("--pid", "1", "--pid", "2", "--pid", "3", "page.html"),
        ("--pid", "1", "--all", "page.html"),
        ("--all", "--compare", "a.json", "b.json", "page.html"),
        ("--all", "--without", "page.html"),
        ("--without", "--pid", "1", "page.html"),
        ("--compare", "a.json", "page.html"),
        ("--all", "--svg", "page.html"),
        ("--all", "--bench", "bench.json", "page.html"),
        ("--without", "--svg", "map.svg"),
        ("page.html", "--", "true"),
    ],
)
def test_wrong_usage_is_status_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["report", *arguments])
    except SystemExit as end:  # argparse's
        status = int(end.code or 0)
    assert status == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("pyhugetext")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('kaputt')", ("importing broken failed: RuntimeError: kaputt",)),
        ("raise SystemExit(3)", ("importing broken failed: SystemExit: 3",)),
        ("import os; os._exit(3)", ("importing json and broken failed", "exit status 3")),
        ("import os; os.kill(os.getpid(), 9)", ("importing json and broken failed", "SIGKILL")),
        ("import missing_module", ("No module named 'missing_module'",)),
        ("1 +", ("SyntaxError",)),
    ],
)
def test_an_import_that_fails_is_told(
    cli: Cli, out: Path, tmp_path: Path, body: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "broken.py").write_text(body)
    result = cli("report", "-m", "json", "-m", "broken", str(out), PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert_one_sentence(result, *words)
    assert not out.exists()


def test_a_module_that_is_not_there_is_told(cli: Cli, out: Path) -> None:
    result = cli("report", "-m", "no_such_module", str(out))
    assert result.returncode == 1
    assert_one_sentence(result, "no module named 'no_such_module'")


def test_what_an_import_prints_is_not_on_the_page(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text("import os\nprint('noise')\nos.write(2, b'noise')")
    result = cli("report", "-m", "noisy", "-", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0
    assert result.stderr == ""
    assert "noise" not in result.stdout


def test_an_interrupt_leaves_nothing(cli: Cli, out: Path, tmp_path: Path) -> None:
    began = tmp_path / "began"
    (tmp_path / "slow.py").write_text(
        f"import os, time\nopen({str(began)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pyhugetext", "report", "-m", "slow", str(out)],
        env=cli.environment(PYTHONPATH=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (began.exists() and began.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1
    assert list(out.parent.iterdir()) == []
    assert not Path(f"/proc/{began.read_text()}").exists()


def test_the_manual_names_every_key(cli: Cli, out: Path) -> None:
    manual = cli("report", "--help").stdout
    told = cli.json("report", str(out))
    for key in told:
        assert f"  {key} " in manual, key
    for word in ("examples:", "exit status:", "which process:"):
        assert word in manual
    assert all(len(line) <= 100 for line in manual.splitlines())
