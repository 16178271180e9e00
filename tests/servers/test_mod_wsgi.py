"""Debian's Apache with mod_wsgi, in daemon mode: Python is started after the process has become another
user, or by a server that is nobody special from the beginning."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from support.ground import SERVICE, Ground, require_this_python
from support.servers import EXAMPLES, Kind, same_from_store, same_while_made

MODULES = Path("/usr/lib/apache2/modules")
APACHE = shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
if APACHE is None or not (MODULES / "mod_wsgi.so").exists():
    pytest.skip(
        "Apache with mod_wsgi is not installed: apache2-bin, libapache2-mod-wsgi-py3",
        allow_module_level=True,
    )
require_this_python(MODULES / "mod_wsgi.so")

CONFIGURATION = """
ServerRoot {place}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {place}/apache.pid
DefaultRuntimeDir {place}
ErrorLog {place}/errors
LogLevel warn
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
{user}
WSGISocketPrefix {place}/wsgi
Define APPLICATION {place}
Define ENVIRONMENT {environment}
Define SERVICE {service}
Include {example}
"""


def mod_wsgi(as_root: bool) -> Kind:
    def command(place: Path, port: int) -> list[str]:
        assert APACHE
        user = f"User {SERVICE}\nGroup {SERVICE}" if as_root else ""
        file = place / "apache.conf"
        told = CONFIGURATION.format(
            place=place, port=port, modules=MODULES, user=user, environment=sys.prefix,
            service=SERVICE, example=EXAMPLES / "mod_wsgi.conf",
        )  # fmt: skip
        file.write_text(told)
        become = ("setpriv", f"--reuid={SERVICE}", f"--regid={SERVICE}", "--init-groups")
        return [*(() if as_root else become), APACHE, "-DFOREGROUND", "-f", str(file)]

    slow = "still did not exit|Truncated or oversized response headers"
    return Kind(
        command, user=SERVICE, reload=None, logs=("errors",), host=("apache2",), sometimes=slow
    )


KINDS = {"one user": mod_wsgi(as_root=False), "service user": mod_wsgi(as_root=True)}
each = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@each
def test_it_runs_from_the_store_and_is_the_same_otherwise(kind: Kind, warm: Ground) -> None:
    same_from_store(warm, kind)


@each
def test_it_is_the_same_while_the_store_is_made(kind: Kind, cold: Ground) -> None:
    same_while_made(cold, kind)
