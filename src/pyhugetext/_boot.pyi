# Held against the module by tests/test_stubs.py.

from typing import TypedDict, type_check_only

@type_check_only
class RawSettings(TypedDict):
    """What an environment asks for; see src/native/settings/settings.h. Sizes in bytes."""

    off: bool
    debug: bool
    backing: int
    building: int
    min_text: int
    private_limit: int
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    system_store: str
    store: str | None
    shm_store: str | None
    store_limit: int
    shm_limit: int
    build_limit: int
    problems: tuple[str, ...]

engine: object  # a capsule with the table of functions in src/native/engine/engine_api.h

def begin() -> None: ...
def settings(environment: list[bytes] = ..., /) -> RawSettings: ...
def watch() -> None: ...
def is_main_interpreter() -> bool: ...
