"""Laying out copies, of files that cannot be read or are no longer what they were."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from pyhugetext import _native
from support.raw_elf import PF_R, PF_X, Part, blank_elf

PAGE = 4096


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A library with 5 MiB of text, most of it a hole."""
    made = blank_elf([Part(0, 0x500000, 0x500000, PF_R | PF_X)])
    path = tmp_path / "libtext.so"
    path.write_bytes(made.head)
    os.truncate(path, made.size)
    return path


def lay_out(path: Path, size: int | None = None, bias: int = 0) -> dict:
    fd = os.open(path, os.O_RDONLY)
    try:
        return dict(_native.lay_out(fd, os.fstat(fd).st_size if size is None else size, bias))
    finally:
        os.close(fd)


def test_layout_says_where_everything_goes(text: Path) -> None:
    made = lay_out(text)
    assert made["refused"] is None
    assert made["pieces"] == [(0, 0, 0x500000)]
    assert made["ranges"] == [(0, 0x400000, 0)]
    assert made["size"] == 0x500000
    assert made["build_id"] == b""
    assert [at for at, _ in made["patches"]] == [0, 64]
    # Where the load bias takes the header off the 2 MiB boundary the copy has one of its own.
    moved = lay_out(text, bias=0x155000)
    assert moved["pieces"] == [(0x155000, 0, 0x500000)]
    assert moved["ranges"] == [(0x200000 - 0x155000, 0x400000, 0x200000)]


@pytest.mark.parametrize("bias", [0, 0x1FF000])
def test_bias_counts_modulo_2_mib(text: Path, bias: int) -> None:
    assert lay_out(text, bias=bias) == lay_out(text, bias=bias + (77 << 21))


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        lay_out(tmp_path, 1 << 20)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        lay_out(Path("/proc/self/mem"), 1 << 20)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        _native.lay_out(-1, 1 << 20, 0)


def test_what_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path in (empty, Path(__file__)):
        assert lay_out(path) == {"refused": "is no ELF file"}
    small = tmp_path / "small"
    made = blank_elf([Part(0, PAGE, PAGE, PF_R | PF_X)])
    small.write_bytes(made.head.ljust(made.size, b"\0"))
    assert "no 2 MiB page" in lay_out(small)["refused"]


def test_file_that_shrank_is_refused_or_laid_out_from_what_is_left(text: Path) -> None:
    # As large as it was when it was opened; its bytes may be gone since.
    size = text.stat().st_size
    for left in (0, 63, 64, 119, 120, PAGE, size - 1):
        os.truncate(text, left)
        made = lay_out(text, size)
        if left < 64:
            assert made["refused"] == "is no ELF file"
        elif left < 120:
            assert made["refused"] == "is truncated in its program headers"
        else:
            assert made["refused"] is None
        os.truncate(text, size)
        text.write_bytes(blank_elf([Part(0, 0x500000, 0x500000, PF_R | PF_X)]).head)
        os.truncate(text, size)


@pytest.mark.parametrize("size", [1 << 61, (1 << 64) - 1])
def test_size_that_no_file_has_is_refused(text: Path, size: int) -> None:
    assert "too far apart" in lay_out(text, size)["refused"]


def test_segment_without_permissions_is_not_mapped_huge(tmp_path: Path) -> None:
    # Touching it must go on failing.
    code = PF_R | PF_X
    parts = [Part(0, 0x200000, 0x200000, code), Part(0x200000, PAGE, PAGE, 0)]
    made = blank_elf([*parts, Part(0x201000, 0x3FF000, 0x3FF000, code)])
    path = tmp_path / "libguarded.so"
    path.write_bytes(made.head)
    os.truncate(path, made.size)
    starts = [(address, length) for address, length, _ in lay_out(path)["ranges"]]
    assert starts == [(0, 0x200000), (0x400000, 0x200000)]


def test_interpreter_s_own_file_is_laid_out_in_order() -> None:
    with open("/proc/self/maps") as maps:
        paths = {
            line.split(None, 5)[5].strip() for line in maps if "python" in line and " /" in line
        }
    made = [lay_out(Path(path)) for path in paths if Path(path).read_bytes()[:4] == b"\x7fELF"]
    laid_out = [layout for layout in made if layout["refused"] is None]
    assert made, sys.executable
    for layout in laid_out:
        ends = [at + length for at, _, length in layout["pieces"]]
        assert all(end <= at for end, (at, _, _) in zip(ends, layout["pieces"][1:]))
        assert layout["ranges"]
