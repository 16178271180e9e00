"""RECORDs that follow a changed file, and what stays as it is."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from pathlib import Path

import pytest

from pyhugetext.image import record
from pyhugetext.image.alignment import Patch
from pyhugetext.image.record import Records

OLD, NEW = b"old" * 100, b"new" * 100


def hashed(content: bytes, algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm, content).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


class Wheel:
    """An installed distribution with one library."""

    def __init__(self, root: Path, name: str = "some/lib.so") -> None:
        self.root, self.name = root, name
        self.library = root / name
        (root / "some" / "sub").mkdir(parents=True)
        Path(os.path.normpath(self.library)).parent.mkdir(exist_ok=True)
        self.library.write_bytes(NEW)
        self.record = root / "some-1.0.dist-info" / "RECORD"
        self.record.parent.mkdir()

    def write(self, told: str, end: str = "\n") -> None:
        name = f'"{self.name}"' if "," in self.name else self.name
        lines = [
            f"some/__init__.py,{hashed(b'')},0",
            f"{name},{told},{len(NEW)}",
            "some-1.0.dist-info/RECORD,,",
        ]
        self.record.write_bytes("".join(line + end for line in lines).encode())

    def follow(self) -> str:
        with self.library.open("rb") as file:
            after = record.digests(file.fileno())
            return Records([str(self.root)]).follow(
                os.path.realpath(self.library),
                lambda algorithm: hashed(OLD, algorithm).partition("=")[2],
                after,
            )

    def told(self) -> tuple[str, str]:
        with self.record.open(newline="") as file:
            ((_, told, size),) = [row for row in csv.reader(file) if row[0] == self.name]
        return told, size


@pytest.mark.parametrize("name", ["some/lib.so", "some/a, b.so.1", "some/sub/../lib.so"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_hash_follows_and_the_rest_stays(tmp_path: Path, name: str, end: str) -> None:
    wheel = Wheel(tmp_path, name)
    wheel.write(hashed(OLD), end)
    before = wheel.record.read_bytes()
    wheel.record.chmod(0o640)
    os.utime(wheel.record, ns=(1, 1_000_000_007))
    assert wheel.follow() == ""
    assert wheel.told() == (hashed(NEW), str(len(NEW)))
    expected = before.replace(hashed(OLD).encode(), hashed(NEW).encode())
    assert wheel.record.read_bytes() == expected
    status = wheel.record.stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, 1_000_000_007)
    assert os.listdir(wheel.record.parent) == ["RECORD"]
    assert wheel.follow() == ""
    assert wheel.record.read_bytes() == expected


def test_other_kinds_of_hashes_follow_too(tmp_path: Path) -> None:
    wheel = Wheel(tmp_path)
    wheel.write(hashed(OLD, "sha512"))
    assert wheel.follow() == ""
    assert wheel.told()[0] == hashed(NEW, "sha512")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("", ""),
        ("sha256=", ""),
        (hashed(b"something else"), "another content"),
        ("crc7=abc", "unknown kind"),
    ],
)
def test_what_was_not_right_before_stays_as_it_is(tmp_path: Path, told: str, words: str) -> None:
    wheel = Wheel(tmp_path)
    wheel.write(told)
    before = wheel.record.read_bytes(), wheel.record.stat().st_ino
    said = wheel.follow()
    assert words in said if words else said == ""
    assert (wheel.record.read_bytes(), wheel.record.stat().st_ino) == before


def test_missing_record_is_told(tmp_path: Path) -> None:
    wheel = Wheel(tmp_path)
    assert wheel.follow() == ""
    other = tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "RECORD").touch()
    assert wheel.follow() == "no RECORD lists it"
    wheel.record.write_bytes(b"\xff\xfe,,\n")
    assert wheel.follow() == "no RECORD lists it"


def test_hard_linked_record_is_not_replaced(tmp_path: Path) -> None:
    wheel = Wheel(tmp_path)
    wheel.write(hashed(OLD))
    os.link(wheel.record, tmp_path / "cached")
    with pytest.raises(record.Behind, match="stays as it is: it has 2 names"):
        wheel.follow()
    assert wheel.told()[0] == hashed(OLD)


def test_library_in_a_directory_of_no_module_belongs_to_what_brought_it(tmp_path: Path) -> None:
    wheel = Wheel(tmp_path, "some.libs/lib.so")
    wheel.write(hashed(OLD))
    found = Records([str(tmp_path)]).of(os.path.realpath(wheel.library))
    assert found is not None
    assert found.modules == ("some",)


@pytest.mark.parametrize("at", [0, 1, 13, 16, 24, 90])
def test_digest_of_a_change_is_that_of_the_changed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(record, "_CHUNK", 16)
    content = bytes(range(98))
    file = tmp_path / "file"
    file.write_bytes(content)
    patch = Patch(at, 0, 0x1122334455667788)
    changed = content[:at] + patch.data + content[at + 8 :]
    with file.open("rb") as opened:
        told = record.digests(opened.fileno(), patch)("sha256")
    assert f"sha256={told}" == hashed(changed)
