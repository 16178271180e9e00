"""uWSGI, of Debian or PyPI: an interpreter inside another program, whose text is in libpython."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from support.ground import SERVICE, Ground, require_this_python
from support.preloaded import preload_library
from support.servers import EXAMPLES, Kind, same_from_store, same_while_made

UWSGI = shutil.which("uwsgi")
if UWSGI is None:
    pytest.skip("uWSGI is not installed: uwsgi-core, uwsgi-plugin-python3", allow_module_level=True)
PLUGIN = Path("/usr/lib/uwsgi/plugins/python3_plugin.so")
require_this_python(PLUGIN if PLUGIN.exists() else Path(UWSGI))


def uwsgi(*options: str, user: str = "") -> Kind:
    def command(place: Path, port: int) -> list[str]:
        assert UWSGI
        settings = ["--set", "program=application", "--set", f"environment={sys.prefix}"]
        base = [UWSGI, *settings, "--ini", str(EXAMPLES / "uwsgi.ini"), "--disable-logging"]
        return [*base, f"--http-socket=127.0.0.1:{port}", "--pythonpath", str(place), *options]

    return Kind(command, user=user, host=("uwsgi-core", "uwsgi"))


KINDS = {
    "one user": uwsgi(),
    "service user": uwsgi(f"--uid={SERVICE}", f"--gid={SERVICE}", user=SERVICE),
}
each = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@each
def test_it_runs_from_the_store_and_is_the_same_otherwise(kind: Kind, warm: Ground) -> None:
    same_from_store(warm, kind)


@each
def test_it_is_the_same_in_a_preloaded_program(kind: Kind, warm: Ground) -> None:
    same_from_store(warm, kind, LD_PRELOAD=str(preload_library()))


@each
def test_it_is_the_same_while_the_store_is_made(kind: Kind, cold: Ground) -> None:
    same_while_made(cold, kind)
