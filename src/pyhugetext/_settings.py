"""The environment variables, as the native part reads them (src/native/settings). A malformed value
is recorded and its default used."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyhugetext import _boot

    # Backing, minimum text, private limit, building, include, exclude, stores, stores in shared
    # memory, and the limits of the store, of shared memory and of what is built.
    Request = tuple[int, int, int, int, bytes, bytes, bytes, bytes, int, int, int]
else:
    try:
        from pyhugetext import _boot
    except ImportError:
        _boot = None

SYSTEM_STORE = "/var/cache/pyhugetext"
NO_LIMIT = (1 << 63) - 1

# Names a user may ask for, with the core's numbers (Backing in core/status.h).
BACKINGS = {
    "auto": 7, "file": 1, "store": 2, "shm": 3, "memfd": 4, "thp": 5, "hugetlb": 6,
}  # fmt: skip
BUILDING = {"auto": 1, "always": 2, "never": 0}  # Building of the core

VARIABLES = (
    "PYHUGETEXT",
    "PYHUGETEXT_BACKING",
    "PYHUGETEXT_BUILD",
    "PYHUGETEXT_BUILD_LIMIT",
    "PYHUGETEXT_DEBUG",
    "PYHUGETEXT_EXCLUDE",
    "PYHUGETEXT_INCLUDE",
    "PYHUGETEXT_MIN_TEXT",
    "PYHUGETEXT_PRIVATE_LIMIT",
    "PYHUGETEXT_SHM_LIMIT",
    "PYHUGETEXT_STORE",
    "PYHUGETEXT_STORE_LIMIT",
)

# Where there is no native part nobody reads the environment, and nothing is done anyway.
_NOTHING = {
    "off": False, "backing": 7, "building": 0, "min_text": 0, "private_limit": 0, "include": (),
    "exclude": (), "store": None, "shm_store": None, "store_limit": 0, "shm_limit": 0,
    "build_limit": 0, "problems": (),
}  # type: dict[str, object]  # fmt: skip


class Settings:
    """What one environment asks for: that of this process, or another one. Attributes are plain
    values, sizes in bytes; `problems` says what was wrong."""

    __slots__ = (
        "backing",
        "build_limit",
        "building",
        "exclude",
        "include",
        "min_text",
        "off",
        "private_limit",
        "problems",
        "shm_limit",
        "shm_store",
        "store",
        "store_limit",
    )

    def __init__(self, environ: "Mapping[str, str] | None" = None) -> None:
        if _boot is None:
            found = _NOTHING
        elif environ is None:
            found = _boot.settings()
        else:
            # A value ends at its first NUL, as in any environment.
            entries = [
                (os.fsencode(name) + b"=" + os.fsencode(value)).partition(b"\0")[0]
                for name, value in environ.items()
            ]
            found = _boot.settings(entries)
        self.off = found["off"]
        self.backing = found["backing"]
        self.building = found["building"]
        self.min_text = found["min_text"]
        self.private_limit = found["private_limit"]
        self.include = found["include"]
        self.exclude = found["exclude"]
        self.store = found["store"]  # None where neither a variable nor HOME names one
        # There is none for a process with more rights than its caller.
        self.shm_store = found["shm_store"] or "/nonexistent"
        self.store_limit = found["store_limit"]
        self.shm_limit = found["shm_limit"]
        self.build_limit = found["build_limit"]
        self.problems = found["problems"]

    def request(
        self,
        backing: "int | None" = None,
        include: "tuple[str, ...] | None" = None,
        exclude: "tuple[str, ...] | None" = None,
    ) -> "Request":
        """The settings as the native part takes them, with what remap() was given in their
        place."""
        stores = [SYSTEM_STORE] + ([self.store] if self.store else [])
        return (
            self.backing if backing is None else backing,
            self.min_text,
            self.private_limit,
            self.building,
            encode_patterns(self.include if include is None else include),
            encode_patterns(self.exclude if exclude is None else exclude),
            encode_patterns(tuple(stores)),
            encode_patterns((self.shm_store,)),
            self.store_limit,
            self.shm_limit,
            self.build_limit,
        )


def parse_size(text: str) -> "int | None":
    """Bytes in a text like `512K`, `64M`, `2G`, `1048576` or `unlimited`; None if it is none."""
    return _boot.parse_size(os.fsencode(text))


def encode_patterns(patterns: "tuple[str, ...]") -> bytes:
    """The patterns as the core reads them: file-name bytes, each ended by a NUL."""
    return b"".join(os.fsencode(pattern) + b"\0" for pattern in patterns)


_current = None  # type: Settings | None


def current() -> Settings:
    """The settings of this process, read from its environment once, before the program began. A
    process with more rights than its caller takes no settings from it, uses no store of a user's,
    and builds nothing."""
    global _current
    if _current is None:
        _current = Settings()
    return _current
