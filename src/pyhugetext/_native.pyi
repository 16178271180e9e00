# Held against the module by tests/test_stubs.py.

from typing import TypedDict, type_check_only

from typing_extensions import TypeAlias

# Status, call, errno; see src/native/core/status.h.
_Outcome: TypeAlias = tuple[int, int, int]

@type_check_only
class RawRegion(TypedDict):
    """One loaded object. Addresses and sizes in bytes, `elapsed_ns` in nanoseconds."""

    path: str
    build_id: str  # hexadecimal; empty where the object has none
    low: int
    high: int
    text_bytes: int
    coverable_bytes: int
    mapped_bytes: int
    elapsed_ns: int
    backing: int  # into BACKINGS
    outcome: _Outcome
    is_main: bool
    tried: list[_Outcome]  # by backing: why that one was not taken
    pages: list[tuple[int, int, bool, _Outcome]]  # planned 2 MiB pages: start, end, swapped, why
    texts: list[tuple[int, int]]  # executable file text: start, end

@type_check_only
class RawSnapshot(TypedDict):
    """What the engine knows of this process."""

    started: bool
    enabled: bool
    machine: _Outcome
    last: _Outcome
    elapsed_ns: int
    regions: list[RawRegion]

@type_check_only
class RawLayout(TypedDict, total=False):
    """Where in a copy is what; only `refused` where the file cannot be represented."""

    refused: str | None  # the end of a sentence about the file
    pieces: list[tuple[int, int, int]]  # offset in the copy, offset in the original, bytes
    patches: list[tuple[int, bytes]]  # offset in the copy; they go over the pieces
    ranges: list[tuple[int, int, int]]  # what can be mapped huge: virtual address, bytes, offset
    size: int
    build_id: bytes
    build_id_at: int  # in the copy
    header_size: int

BACKINGS: tuple[str, ...]
STATUSES: tuple[str, ...]
CALLS: tuple[str, ...]

def remap(
    backing: int,
    minimum_text: int,
    private_limit: int,
    building: int,
    include: bytes,
    exclude: bytes,
    stores: bytes,
    shm_stores: bytes,
    inward: bool = ...,  # the plan of other tools, for benchmarks
) -> int: ...
def restore() -> None: ...
def snapshot() -> RawSnapshot: ...

# Of other processes; see src/native/core/elsewhere.h.
def open_elsewhere(directory: int, name: bytes, way: int) -> int: ...
def read_head(
    path_fd: int, dev_major: int, dev_minor: int, inode: int
) -> tuple[_Outcome, bool, str, bytes]: ...
def plan_elsewhere(
    load_bias: int,
    headers: bytes,
    is_main: bool,
    dev_major: int,
    dev_minor: int,
    inode: int,
    backing: int,
    build_id: str,
    mappings: list[tuple[int, int, int, int, int, int, str, bool]],
) -> RawRegion: ...
def find_entries(pagemap: int, start: int, count: int) -> bytes: ...

# A copy of an ELF file; see src/native/builder/layout.h. OSError where it cannot be read.
def lay_out(fd: int, size: int, bias: int) -> RawLayout: ...

# What doctor asks the machine. Memory is anything writable, steps are counted, times in ns.
def address_of(memory: memoryview) -> int: ...
def link_cells(memory: memoryview, stride: int) -> None: ...
def chase_cells(memory: memoryview, steps: int) -> int: ...
def ask_prctl(option: int) -> int: ...
def try_counter(type: int, config: int) -> int: ...
