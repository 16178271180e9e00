"""What a run of the tests must not leave behind: stores in shared memory, entries in the store of the
user who runs them, temporary directories, gigabytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

MOST_BYTES = 300 << 20  # that a run leaves in the temporary directory, for who looks at a failure


def bytes_below(directory: Path) -> int:
    """Disk that all below a directory takes."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _names(directory: Path) -> set[str]:
    try:
        return set(os.listdir(directory))
    except OSError:
        return set()


class Leftovers:
    """Compares the machine after a run with what it was before."""

    def __init__(self, prefix: str, cache: str) -> None:
        """`prefix` is that of this run's temporary directories, `cache` where the user's store is."""
        self._prefix = prefix
        self._stores = [Path(cache, "pyhugetext"), *self._shared_memory()]
        self._records = {store: self._index(store) for store in self._stores}

    @staticmethod
    def _shared_memory() -> list[Path]:
        names = sorted(_names(Path("/dev/shm")))
        hidden = (".pyhugetext", "pyhugetext")
        return [Path("/dev/shm", name) for name in names if name.startswith(hidden)]

    @staticmethod
    def _index(store: Path) -> set[Path]:
        return {store / "v1/index" / name for name in _names(store / "v1/index")}

    def in_shared_memory(self) -> list[str]:
        return [
            f"{path} was not there before"
            for path in self._shared_memory()
            if path not in self._stores
        ]

    def found(self, base: Path | None, ours: Iterable[str]) -> list[str]:
        """Sentences. `base` is what pytest keeps, `ours` are beginnings of paths that no other program
        runs from: other processes of this user may fill the user's stores meanwhile."""
        out = self.in_shared_memory()
        for store in self._stores:
            for record in sorted(self._index(store) - self._records[store]):
                try:
                    content = record.read_bytes()
                except OSError:
                    continue
                out += [
                    f"{record} is an entry of a file of the tests below {path}"
                    for path in ours
                    if path.encode() in content
                ]
        for directory in {"/tmp", tempfile.gettempdir()}:
            out += [
                f"{directory}/{name} was left"
                for name in sorted(_names(Path(directory)))
                if name.startswith(self._prefix)
            ]
        size = bytes_below(base) if base else 0
        if size > MOST_BYTES:
            out.append(f"{base} takes {size >> 20} MiB")
        return out
