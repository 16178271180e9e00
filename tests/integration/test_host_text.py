"""A program with a Python inside, whose own text is large: it lies at another address in each process,
so that no store can serve it."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support.common import TESTS, clean_environment, tool
from support.store import require_huge_disk

TEXT = '\n__asm__(".text\\n.skip 6 << 20, 0x90\\n");\n'
TELL = "import json, pyhugetext; print(json.dumps(pyhugetext.stats().as_dict()))"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    directory = sysconfig.get_config_var("LIBDIR")
    name = f"python{sysconfig.get_config_var('LDVERSION')}"
    source, target = tmp_path / "host.c", tmp_path / "host"
    source.write_text((TESTS / "servers/embedding.c").read_text() + TEXT)
    command = [
        tool("cc", "gcc", "clang"), "-fPIE", "-pie", "-o", target, source,
        f"-I{sysconfig.get_path('include')}", f"-L{directory}", f"-Wl,-rpath,{directory}", f"-l{name}",
    ]  # fmt: skip
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"there is no shared library of this Python: {made.stderr.splitlines()[0]}")
    return target


def test_program_itself_gets_no_copy_of_its_own(host: Path, tmp_path: Path) -> None:
    require_huge_disk(tmp_path)
    for backing in ("auto", "auto", "memfd"):
        env = clean_environment(
            PYHUGETEXT_STORE=str(tmp_path / "store"),
            PYHUGETEXT_BACKING=backing,
            HOME="/nonexistent",
        )
        done = subprocess.run(
            [host, sys.executable, TELL], env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (3, "")
        stats = json.loads(done.stdout.splitlines()[0])
        (own,) = (region for region in stats["regions"] if region["path"] == str(host))
        assert own["coverable_bytes"] >= 2 << 20
        if backing == "memfd":  # whoever asks for one has it
            assert own["private_bytes"] >= 2 << 20
        else:
            assert own["private_bytes"] == 0
            assert "has Python inside" in own["reason"]
