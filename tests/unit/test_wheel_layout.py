"""How a wheel is laid out that is published: packaging/wheels/finish.py."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from support.common import ROOT

FILES = {
    "pyhugetext.pth": b"import os\n",
    "pyhugetext.start": b"a:b\n",
    "pyhugetext/__init__.py": b"",
    "pyhugetext/_boot.cpython-311-x86_64-linux-gnu.so": b"\x7fELF",
    "pyhugetext/libpreload.so": b"\x7fELF",
    "pyhugetext/store/__init__.py": b"",
    "pyhugetext-1.dist-info/RECORD": b"",
    "pyhugetext-1.dist-info/METADATA": b"",
}


def wheel(place: Path, names: list[str], year: int, mode: int) -> Path:
    place.mkdir()
    path = place / "pyhugetext-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(zipfile.ZipInfo("pyhugetext/", (year, 1, 1, 0, 0, 0)), b"")
        for name in names:
            entry = zipfile.ZipInfo(name, (year, 2, 3, 4, 5, 6))
            entry.external_attr = mode << 16
            file.writestr(entry, FILES[name])
    return path


def finish(*places: Path, epoch: str = "1700000000") -> subprocess.CompletedProcess[str]:
    script = ROOT / "packaging" / "wheels" / "finish.py"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    return subprocess.run(
        [sys.executable, script, *places],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_starts_with_every_python_comes_after_all_that_it_loads(tmp_path: Path) -> None:
    # As auditwheel writes it: what lies at the top comes first.
    path = wheel(tmp_path / "auditwheel", list(FILES), 2020, 0o100600)
    assert finish(path).returncode == 0
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        assert {name: file.read(name) for name in names} == FILES
        modes = {name: file.getinfo(name).external_attr >> 16 & 0o777 for name in names}
    assert names[-4:] == [
        "pyhugetext.pth",
        "pyhugetext.start",
        "pyhugetext-1.dist-info/METADATA",
        "pyhugetext-1.dist-info/RECORD",
    ]
    assert {name for name in names if modes[name] == 0o755} == {n for n in names if ".so" in n}
    assert set(modes.values()) == {0o755, 0o644}


def test_order_times_and_rights_of_the_build_do_not_show(tmp_path: Path) -> None:
    first = wheel(tmp_path / "first", list(FILES), 2020, 0o100600)
    second = wheel(tmp_path / "second", list(reversed(FILES)), 2026, 0o100755)
    assert finish(tmp_path / "first", second).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    # Once more changes nothing, and an archive cannot be older than 1980.
    finish(first)
    assert first.read_bytes() == second.read_bytes()
    assert finish(first, epoch="0").returncode == 0
    with zipfile.ZipFile(first) as file:
        assert file.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
