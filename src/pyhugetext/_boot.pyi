# Held against the module by tests/test_stubs.py.

from collections.abc import Callable

engine: object  # a capsule with the table of functions in src/native/boot/engine_api.h

def start(
    backing: int,
    minimum_text: int,
    private_limit: int,
    include: bytes,
    exclude: bytes,
    /,
) -> bool: ...
def watch_imports(loader: type, report: Callable[[], object] | None, /) -> bool: ...
def secure_mode() -> bool: ...
