"""Running the commands that documents show."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.documents import Command


def run_command(
    command: Command, programs: Path, place: Path, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """In a shell, in the directory `place`, with what is installed in `programs` first."""
    return subprocess.run(
        ["bash", "-c", command.text],
        cwd=place,
        env={**environ, "PATH": f"{programs}:{environ.get('PATH', '/usr/bin:/bin')}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
