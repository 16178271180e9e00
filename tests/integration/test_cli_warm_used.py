"""pyhugetext warm --used: only the text that what is run uses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.cli import Cli, assert_one_sentence, make_module, status_of
from support.growing import bits, chunks_of, record_of, texts, verify
from support.store import Store
from support.users import namespace


@pytest.mark.parametrize("command", [False, True], ids=["module", "command"])
def test_what_is_used_is_prepared_for_good(
    disk: Cli, far: Path, tmp_path: Path, command: bool
) -> None:
    run = ["--", sys.executable, "-c", "import far, pyhugetext; pyhugetext.remap()"]
    what = run if command else ["far"]
    make_module(tmp_path, "far", far, "assert library.g3(7) == 24")
    store = Store(disk.store)
    document = disk.json("warm", "--used", *what, PYTHONPATH=str(tmp_path))
    assert status_of(document, far) == "promoted"
    assert all(entry["durable"] for entry in disk.entries())
    _, record = record_of(store, far)
    assert chunks_of(far, 3) <= bits(record.present)
    assert len(bits(record.present) & texts(far)) < len(texts(far)) / 4
    verify(store)
    # What is there for good already is nothing to tell.
    document = disk.json("warm", "--used", *what, PYTHONPATH=str(tmp_path))
    assert str(far) not in [one["path"] for one in document["objects"]]
    # All of it is another matter.
    document = disk.json("warm", "far", PYTHONPATH=str(tmp_path))
    assert status_of(document, far) == "built"
    assert texts(far) <= bits(record_of(store, far)[1].present)


SETTINGS = """
import json, os, pyhugetext, sys
with open(sys.argv[1], "w") as file:
    json.dump({name: value for name, value in os.environ.items() if name.startswith("PYHUGETEXT")}, file)
"""


def test_what_the_settings_forbid_is_not_done_by_what_is_run(disk: Cli, tmp_path: Path) -> None:
    """It runs from what it stores: with no data executable, and in no more room than there may be."""
    given = {
        "PYHUGETEXT_STRICT": "1",
        "PYHUGETEXT_STORE_LIMIT": "64M",
        "PYHUGETEXT_SHM_LIMIT": "32M",
        "PYHUGETEXT_PRIVATE_LIMIT": "8M",
    }
    told = tmp_path / "told"
    what = ["--", sys.executable, "-c", SETTINGS, str(told)]
    result = disk("warm", "--used", *what, **given)
    assert result.returncode == 0, result.stderr
    assert given.items() <= json.loads(told.read_text()).items()


@pytest.mark.parametrize("limit", ["2M", "256M"])
def test_shared_memory_is_filled_within_its_limit(tmp_path: Path, far: Path, limit: str) -> None:
    never = tmp_path / "never"
    never.mkdir()
    make_module(tmp_path, "far", far, "assert library.g3(7) == 24")
    with namespace(f"mount -t tmpfs tmpfs {never}") as space:
        disk = Cli(never / "store")
        disk.prefix = space.prefix
        settings = {"PYHUGETEXT_BACKING": "auto", "PYHUGETEXT_SHM_LIMIT": limit}
        result = disk("warm", "--used", "far", PYTHONPATH=str(tmp_path), **settings)
        assert "shared memory is filled instead" in result.stderr
        copies = space.shm_store().copies
        taken = sum(copy.stat().st_blocks * 512 for copy in copies)
    if limit == "2M":
        assert taken < 2 << 20
    else:
        assert far.name in [copy.name for copy in copies]


@pytest.mark.parametrize("other", ["--system", "--all-installed", "/bin/true"])
def test_it_is_for_what_is_run(disk: Cli, other: str) -> None:
    result = disk("warm", "--used", other)
    assert result.returncode == 2
    assert_one_sentence(result, "--used", "what is run")
