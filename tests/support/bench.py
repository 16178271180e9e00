"""What the tests of `pyhugetext bench` share."""

from __future__ import annotations

from pathlib import Path

# A private backing is there wherever huge pages are, whatever the file system.
QUICK = ("--backing", "memfd", "--processes", "1", "--slot", "0.005", "--seconds", "0.3")


def mark(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


def is_gone(pid: int) -> bool:
    """Whether a process has ended; who takes care of orphans may take its time to bury it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")
