"""A distribution's RECORD, which has the hash and the size of each installed file. Of one whose
content is changed the hash follows, if it was right before: of nothing else is anything changed."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pyhugetext import _words
from pyhugetext.image import rewriting, rights
from pyhugetext.image.alignment import Patch
from pyhugetext.image.rights import Left

_LARGEST = 64 << 20  # bytes of a RECORD
_CHUNK = 4 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Digest = Callable[[str], str]  # by algorithm, as a RECORD has it


class Behind(Exception):
    """A RECORD that could not follow; the text is a sentence."""


class Distribution(NamedTuple):
    """An installed distribution: where its RECORD is, and what is imported of it."""

    record: str
    modules: tuple[str, ...]


class Records:
    """The RECORDs below some directories, by the shared objects that they list."""

    def __init__(self, roots: list[str]) -> None:
        self._of: dict[str, Distribution] = {}
        self._roots: list[str] = []  # those that hold distributions
        for root in roots:
            for path in _records(root):
                self._read(root, path)
                if root not in self._roots:
                    self._roots.append(root)

    def _read(self, root: str, path: str) -> None:
        try:
            with open(path, "rb") as opened:
                rows = list(_rows(_content(opened.fileno())))
        except (OSError, Left, csv.Error, UnicodeDecodeError):
            return
        tops = {name.partition("/")[0] for name, _ in rows if name.endswith("/__init__.py")}
        tops |= {name[:-3] for name, _ in rows if "/" not in name and name.endswith(".py")}
        modules = tuple(sorted(name for name in tops if name.isidentifier()))
        for name, _ in rows:
            if name.endswith(".so") or ".so." in name:
                file = os.path.realpath(os.path.join(root, name))
                self._of[file] = Distribution(path, modules)

    def of(self, path: str) -> Distribution | None:
        """The distribution that a file belongs to."""
        return self._of.get(path)

    def directories(self) -> set[str]:
        """Where the RECORDs are."""
        return {os.path.dirname(one.record) for one in self._of.values()}

    def follow(self, path: str, before: Digest, after: Digest) -> str:
        """Has the RECORD tell of a file's content as it is now, where it told of it as it was
        before. A sentence where it did not; empty where it does, or needs not. Behind."""
        found = self.of(path)
        if found is None:
            # What is the system's, or the interpreter's own, is in none anyway.
            expected = any(path.startswith(f"{root}/") for root in self._roots)
            return "no RECORD lists it" if expected else ""
        root = os.path.dirname(os.path.dirname(found.record))
        try:
            return _follow(found.record, root, path, before, after)
        except (Left, OSError, csv.Error, UnicodeDecodeError) as error:
            raise Behind(f"its RECORD stays as it is: {_words.reason(error)}") from None


def digests(fd: int, patch: Patch | None = None) -> Digest:
    """The digests of an open file, as if it were changed so."""

    def digest(algorithm: str) -> str:
        made = hashlib.new(algorithm)
        at = 0
        while True:
            data = os.pread(fd, _CHUNK, at)
            if not data:
                break
            if patch is not None and at - 8 < patch.at < at + len(data):
                # p_align may lie on the border of two chunks.
                changed = bytearray(data)
                for i, byte in enumerate(patch.data, patch.at - at):
                    if 0 <= i < len(changed):
                        changed[i] = byte
                data = bytes(changed)
            made.update(data)
            at += len(data)
        return base64.urlsafe_b64encode(made.digest()).rstrip(b"=").decode()

    return digest


def _records(root: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(root):
            path = os.path.join(root, name, "RECORD")
            if name.endswith(".dist-info") and os.path.isfile(path):
                yield path


def _content(fd: int) -> str:
    if os.fstat(fd).st_size > _LARGEST:
        raise Left("it is too large")
    with open(fd, "rb", closefd=False) as file:
        return file.read(_LARGEST).decode()


def _rows(text: str) -> Iterator[tuple[str, str]]:
    """The paths and hashes of a RECORD."""
    for row in csv.reader(text.splitlines()):
        if row:
            yield row[0], row[1] if len(row) > 1 else ""


def _follow(record: str, root: str, path: str, before: Digest, after: Digest) -> str:
    with rewriting.directory_of(record) as (directory, name):
        source = os.open(name, _READ, dir_fd=directory)
        try:
            lines = _content(source).splitlines(keepends=True)
            for number, line in enumerate(lines):
                if not _is_of(line, root, path):
                    continue
                told = next(_rows(line))[1]
                algorithm, _, value = told.partition("=")
                if not value or value == after(algorithm):
                    return ""
                if value != before(algorithm):
                    return "its RECORD told of another content before"
                lines[number] = line.replace(told, f"{algorithm}={after(algorithm)}")
                _replace(directory, name, source, "".join(lines).encode())
                return ""
        except ValueError:  # hashlib's
            return "its RECORD has a hash of an unknown kind"
        finally:
            os.close(source)
    return "no RECORD lists it"


def _is_of(line: str, root: str, path: str) -> bool:
    """Whether a line of a RECORD is that of a file."""
    if os.path.basename(path) not in line:
        return False
    name = next(_rows(line), ("", ""))[0]
    return bool(name) and os.path.realpath(os.path.join(root, name)) == path


def _replace(directory: int, name: str, source: int, content: bytes) -> None:
    rights.check_owner(os.fstat(source))
    rights.check_place(directory)
    with rewriting.Beside(directory, name, source) as new:
        new.write(lambda fd: rewriting.write_all(fd, content, 0))
        new.place()
