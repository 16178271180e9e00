# Held against the module by tests/test_stubs.py.

from collections.abc import Callable

engine: object  # a capsule with the table of functions in src/native/boot/engine_api.h

def start(
    backing: int,
    minimum_text: int,
    private_limit: int,
    fall_back: bool,
    include: bytes,
    exclude: bytes,
    stores: bytes,
    shm_stores: bytes,
    /,
) -> int | None: ...
def missing() -> list[tuple[str, int]]: ...
def retry(fall_back: bool, /) -> int: ...
def probe(fd: int, offset: int, size: int, collapse: bool, /) -> int: ...
def filesystem(fd: int, /) -> int: ...
def watch_imports(
    loader: type, callback: Callable[[], object], report: bool, /
) -> bool: ...
def secure_mode() -> bool: ...
