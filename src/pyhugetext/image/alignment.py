"""Whether an object comes to a multiple of 2 MiB by itself, and the eight bytes that make it.

The C library (and, for programs, the kernel) puts an object where the largest p_align of its
PT_LOADs says. glibc refuses a PT_LOAD whose address and offset are not congruent modulo its own
p_align; so it is that of the first one that is changed, which is as a rule congruent, and only where
the file itself remembers what it was: what a linker gives a segment is the size of a page, which the
other segments tell, or, where a section in it asks for more, what that section asks for.
"""

from __future__ import annotations

from typing import NamedTuple

from pyhugetext._units import HUGE, PAGE
from pyhugetext.process import elf
from pyhugetext.process.elf import Head

# An object's addresses are its own; it asks for 2 MiB; it can be made to; it cannot.
FIXED, ALIGNED, CAN, CANNOT = "fixed", "aligned", "can", "cannot"


class Patch(NamedTuple):
    """Eight bytes of a file, little endian: a p_align."""

    at: int
    old: int
    new: int

    @property
    def data(self) -> bytes:
        return self.new.to_bytes(8, "little")

    @property
    def reverse(self) -> Patch:
        return Patch(self.at, self.new, self.old)


class Asked(NamedTuple):
    """What an object asks for. `bias` is its load bias modulo 2 MiB where it comes aligned; `patch`
    what would have it so, or, of one that was so changed, what puts it back."""

    state: str
    bias: int
    patch: Patch | None = None
    reason: str = ""


def ask(fd: int, head: Head) -> Asked:
    """What the object behind a descriptor asks for. OSError as pread(2)."""
    if head.fixed:
        return Asked(FIXED, 0)
    first = elf.first_load(fd, head)
    if first is None:
        return Asked(CANNOT, 0, reason="its headers cannot be read")
    bias = -first.address % HUGE
    largest = max(first.align, first.others)
    # 0, which is none that a linker makes, where the others have none that one makes.
    remembered = max(first.least, first.sections) if _legal(first.others) else 0
    congruent = (first.address - first.offset) % HUGE == 0
    if largest >= HUGE:
        ours = first.align == HUGE and congruent and _legal(remembered)
        return Asked(ALIGNED, bias, Patch(first.at, HUGE, remembered) if ours else None)
    if not congruent or not first.size:
        reason = "the address and the offset of its first segment differ modulo 2 MiB"
    elif not _legal(first.align):
        reason = "the alignment of its first segment is none that a linker makes"
    elif first.align != remembered:
        reason = (
            "nothing in it tells the alignment of its first segment, which could not be put back"
        )
    else:
        return Asked(CAN, bias, Patch(first.at, first.align, HUGE))
    return Asked(CANNOT, bias, reason=reason)


def _legal(align: int) -> bool:
    """Whether it may stand in a file that was not changed: whatever is congruent modulo 2 MiB is so
    modulo this, too."""
    return PAGE <= align < HUGE and align & (align - 1) == 0
