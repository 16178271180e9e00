# Held against the module by tests/test_stubs.py.

from typing import Any, TypedDict, type_check_only

from typing_extensions import TypeAlias

# Status, call, errno; see src/native/words/status.h.
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
    reasons: list[str]  # why entries of the stores were not built

@type_check_only
class MemoryRoom(TypedDict):
    """What this process may still take; see src/native/limits/memory.h. Bytes, None where
    nothing limits."""

    version: int  # of the control groups; 0 where none was seen
    group: str  # the one with the limit
    limit: int | None
    used: int  # of that group, without what can be reclaimed
    free: int | None  # the least that a group leaves
    addresses: int | None  # RLIMIT_AS and RLIMIT_DATA leave
    data: int | None
    together: int | None  # all processes of the groups may still copy
    known: _Outcome

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

# What a store could not do: its kind (see src/native/builder/trouble.h), errno or 0, a sentence.
_Problem: TypeAlias = tuple[str, int, str]
# Root, limit in bytes, whether it is in shared memory, whether it is for everyone.
_Spec: TypeAlias = tuple[bytes, int, bool, bool, bool, bytes]
# The fields of pyhugetext.store.upkeep.Entry, the copy below v1.
_Entry: TypeAlias = dict[str, Any]

@type_check_only
class RawMade(TypedDict):
    """What became of one object that was to have an entry."""

    status: str
    problem: _Problem | None
    small: bool  # the kernel gave it small pages
    size: int
    written: int
    huge: int | None  # None where that was not looked at
    name: bytes  # of its record

@type_check_only
class RawHealed(TypedDict):
    """What became of an entry that was to be mended, in 2 MiB pages."""

    pages: int
    cached: int
    before: int
    after: int
    reason: str  # empty where none is small any more

BACKINGS: tuple[str, ...]
STATUSES: tuple[str, ...]
SENTENCES: tuple[str, ...]  # by status, for people
CALLS: tuple[str, ...]
BUSY: int  # what remap() returns where another thread had the engine

# What is left out is as the settings say. Patterns and directories each ended by a NUL.
def remap(
    *,
    backing: int = ...,
    building: int = ...,
    min_text: int = ...,
    private_limit: int = ...,
    store_limit: int = ...,
    shm_limit: int = ...,
    build_time: int = ...,
    include: bytes = ...,
    exclude: bytes = ...,
    stores: bytes = ...,
    shm_stores: bytes = ...,
    inward: bool = ...,  # the plan of other tools, for benchmarks
) -> int: ...
def complete() -> None: ...
def restore() -> bool: ...  # False as BUSY
def snapshot() -> RawSnapshot: ...

# Of other processes; see src/native/process/elsewhere.h.
def open_elsewhere(directory: int, name: bytes, way: int) -> int: ...
def read_head(
    path_fd: int, dev_major: int, dev_minor: int, inode: int
) -> tuple[_Outcome, bool, bytes, bytes]: ...
def plan_elsewhere(
    load_bias: int,
    headers: bytes,
    is_main: bool,
    dev_major: int,
    dev_minor: int,
    inode: int,
    backing: int,
    build_id: bytes,
    mappings: list[tuple[int, int, int, int, int, int, str, bool]],
) -> RawRegion: ...
def find_entries(pagemap: int, start: int, count: int) -> bytes: ...
def memory_room() -> MemoryRoom: ...
def shared_allowance(configured: int, present: int) -> int: ...

# A copy of an ELF file; see src/native/builder/layout.h. OSError where it cannot be read.
def lay_out(fd: int, size: int, bias: int) -> RawLayout: ...

# Stores; see src/native/engine/store_api.h.
def store_open(spec: _Spec, make: bool) -> _Problem | None: ...
def store_entries(spec: _Spec) -> tuple[_Problem | None, list[_Entry]]: ...
def store_verify(spec: _Spec, name: bytes) -> tuple[_Problem | None, _Entry | None, bool]: ...
def store_heal(spec: _Spec, name: bytes) -> tuple[_Problem | None, RawHealed]: ...
def store_prune(spec: _Spec) -> tuple[_Problem | None, list[tuple[str, str, int]]]: ...
def store_clear(spec: _Spec) -> tuple[_Problem | None, int]: ...
def store_warm(
    spec: _Spec, path: bytes, bias: int, keep: bytes, files: bool, used: bool
) -> RawMade: ...
def store_judge(spec: _Spec) -> tuple[_Problem | None, str]: ...
def store_verdict(spec: _Spec) -> str: ...
def store_remember(spec: _Spec, verdict: str) -> _Problem | None: ...
def store_used(spec: _Spec) -> tuple[_Problem | None, int]: ...
def free_bytes(directory: int) -> tuple[_Problem | None, int]: ...
def try_file(fd: int) -> tuple[_Problem | None, str]: ...

# What doctor asks the machine. probe() tells how many bytes of a file the kernel maps in 2 MiB pages
# when it is mapped as text is; filesystem() the type, as in statfs(2). Memory is anything writable, steps are counted, times in ns.
def probe(fd: int, offset: int, size: int, collapse: bool) -> int: ...
def filesystem(path: bytes) -> int: ...
def address_of(memory: memoryview) -> int: ...
def link_cells(memory: memoryview, stride: int) -> None: ...
def chase_cells(memory: memoryview, steps: int) -> int: ...
def ask_prctl(option: int) -> int: ...
def open_counter(type: int, config: int, commands: bool) -> int: ...
