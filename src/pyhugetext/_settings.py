"""The environment variables, as the native part reads them (src/native/settings). A malformed value
is recorded and its default used."""

import os

from pyhugetext import _backing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyhugetext import _boot
else:
    try:
        from pyhugetext import _boot
    except ImportError:
        _boot = None

NO_LIMIT = (1 << 63) - 1
BUILDING = ("never", "auto", "always")  # by number, as Building of the core

# Where there is no native part nobody reads the environment, and nothing is done anyway.
_NOTHING: "dict[str, Any]" = {
    "off": False, "backing": 7, "building": 0, "min_text": 0, "private_limit": 0, "include": (),
    "exclude": (), "system_store": "", "store": None, "shm_store": None, "store_limit": 0,
    "shm_limit": 0, "build_time": None, "strict": False, "problems": (),
}  # fmt: skip


class Settings:
    """What one environment asks for: that of this process, or another one, whose `NAME=value` are
    given. Sizes in bytes."""

    __slots__ = tuple(_NOTHING)

    off: bool
    backing: str
    building: str
    min_text: int
    private_limit: int
    include: "tuple[str, ...]"
    exclude: "tuple[str, ...]"
    system_store: str
    store: "str | None"  # None where neither a variable nor HOME names one
    shm_store: str
    store_limit: int
    shm_limit: int
    build_time: "int | None"  # nanoseconds; None: a share of the processor time
    strict: bool  # only whole pages of text
    problems: "tuple[str, ...]"  # what was wrong

    def __init__(self, *environment: "list[bytes]") -> None:
        found = _NOTHING if _boot is None else _boot.settings(*environment)
        for name in self.__slots__:
            setattr(self, name, found[name])
        self.backing = _backing.NAMES[found["backing"]]
        self.building = BUILDING[found["building"]]
        # There is none for a process with more rights than its caller.
        self.shm_store = self.shm_store or "/nonexistent"


def encoded(names: "tuple[str, ...] | list[str]") -> bytes:
    """Patterns or paths as the core reads them: file-name bytes, each ended by a NUL."""
    return b"".join(os.fsencode(name) + b"\0" for name in names)


_current = None  # type: Settings | None


def current() -> Settings:
    """The settings of this process, read from its environment once, before the program began. A
    process with more rights than its caller takes no settings from it, uses no store of a user's,
    and builds nothing."""
    global _current
    if _current is None:
        _current = Settings()
    return _current
