"""The environment variables. A malformed value is recorded and its default used."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from pyhugetext import _boot

    _T = TypeVar("_T")

    # Backing, minimum text, private limit, fall back, include, exclude, stores, stores in shared
    # memory.
    Request = tuple[int, int, int, int, bytes, bytes, bytes, bytes]
else:
    try:
        from pyhugetext import _boot
    except ImportError:  # no native part: settings are read to tell what is wrong with them
        _boot = None

AUTO = 7  # Backing::automatic of the core
MIN_TEXT = 256 << 10
PRIVATE_LIMIT = 64 << 20
SYSTEM_STORE = "/var/cache/pyhugetext"
NO_LIMIT = (1 << 63) - 1
BUILD_LIMIT = 512 << 20
STORE_LIMIT = 4 << 30
SHM_LIMIT = 512 << 20

# Names a user may ask for, with the core's numbers (Backing in core/status.h).
BACKINGS = {
    "auto": AUTO, "file": 1, "store": 2, "shm": 3, "memfd": 4, "thp": 5, "hugetlb": 6,
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

_SUFFIXES = {"K": 10, "M": 20, "G": 30}


class Settings:
    """What one environment asks for. Attributes are plain values; `problems` says what was wrong."""

    __slots__ = (
        "backing",
        "build",
        "build_limit",
        "debug",
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

    def __init__(self, environ: "os._Environ[str] | dict[str, str]") -> None:
        self.problems = []  # type: list[str]
        self.off = self._choice(environ, "PYHUGETEXT", _SWITCH, False, "0, 1, auto")
        self.debug = self._choice(environ, "PYHUGETEXT_DEBUG", _FLAG, False, "0, 1")
        self.backing = self._choice(
            environ, "PYHUGETEXT_BACKING", BACKINGS, AUTO, ", ".join(BACKINGS)
        )
        self.include = split_patterns(environ.get("PYHUGETEXT_INCLUDE", ""))
        self.exclude = split_patterns(environ.get("PYHUGETEXT_EXCLUDE", ""))
        self.min_text = self._size(environ, "PYHUGETEXT_MIN_TEXT", MIN_TEXT)
        self.private_limit = self._size(environ, "PYHUGETEXT_PRIVATE_LIMIT", PRIVATE_LIMIT)
        names = dict(zip(BUILDING, BUILDING))
        self.build = self._choice(environ, "PYHUGETEXT_BUILD", names, "auto", ", ".join(names))
        self.build_limit = self._size(environ, "PYHUGETEXT_BUILD_LIMIT", BUILD_LIMIT)
        self.store_limit = self._size(environ, "PYHUGETEXT_STORE_LIMIT", STORE_LIMIT)
        self.shm_limit = self._size(environ, "PYHUGETEXT_SHM_LIMIT", SHM_LIMIT)
        *_, stores, shm = _boot.default_request() if _boot else (b"", b"")
        # There is none for a process with more rights than its caller.
        self.shm_store = os.fsdecode(shm.rstrip(b"\0")) or "/nonexistent"  # type: str
        self.store = self._store(environ, stores)
        for name in environ:
            if name.startswith("PYHUGETEXT") and name not in VARIABLES:
                self.problems.append(
                    f"{name} is no setting of pyhugetext and was ignored; there are: "
                    + ", ".join(VARIABLES)
                )

    def request(
        self,
        backing: "int | None" = None,
        include: "tuple[str, ...] | None" = None,
        exclude: "tuple[str, ...] | None" = None,
    ) -> "Request":
        """The settings as the native part takes them, with what remap() was given in their
        place."""
        backing = self.backing if backing is None else backing
        stores = [SYSTEM_STORE] + ([self.store] if self.store else [])
        return (
            backing,
            self.min_text,
            self.private_limit,
            BUILDING[self.build],
            encode_patterns(self.include if include is None else include),
            encode_patterns(self.exclude if exclude is None else exclude),
            encode_patterns(tuple(stores)),
            encode_patterns((self.shm_store,)),
        )

    def _store(self, environ: "os._Environ[str] | dict[str, str]", default: bytes) -> "str | None":
        """The user's store on disk; None where neither a variable nor HOME names one."""
        value = environ.get("PYHUGETEXT_STORE", "")
        if value.startswith("/"):
            return os.path.normpath(value)
        if value:
            self.problems.append(
                f"PYHUGETEXT_STORE={value!r} is no absolute path; the default is used"
            )
        _, _, roots = os.fsdecode(default).partition("\0")  # the first is the system's
        return roots.rstrip("\0") or None

    def _choice(
        self,
        environ: "os._Environ[str] | dict[str, str]",
        name: str,
        choices: "dict[str, _T]",
        default: "_T",
        allowed: str,
    ) -> "_T":
        value = environ.get(name, "")
        key = value.strip().lower()
        if not key:
            return default
        if key in choices:
            return choices[key]
        self.problems.append(f"{name}={value!r} is not one of {allowed}; the default is used")
        return default

    def _size(self, environ: "os._Environ[str] | dict[str, str]", name: str, default: int) -> int:
        value = environ.get(name, "")
        if not value.strip():
            return default
        size = parse_size(value)
        if size is None:
            self.problems.append(
                f"{name}={value!r} is not a size (bytes, with K, M or G, below 8E; or "
                f"'unlimited'); the default {default} is used"
            )
            return default
        return size


# `off` and its like are what people type; taking them for `on` would do harm.
_SWITCH = {
    "0": True, "off": True, "no": True, "false": True,
    "1": False, "auto": False, "on": False, "yes": False, "true": False,
}  # fmt: skip
_FLAG = {"0": False, "1": True}


def parse_size(text: str) -> "int | None":
    """Bytes in a text like `512K`, `64M`, `2G`, `1048576` or `unlimited`; None if it is none."""
    text = text.strip()
    if text.lower() == "unlimited":
        return NO_LIMIT
    shift = _SUFFIXES.get(text[-1:].upper(), 0)
    digits = text[:-1] if shift else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19:
        return None
    size = int(digits) << shift
    return size if size <= NO_LIMIT else None


def split_patterns(text: str) -> "tuple[str, ...]":
    """The patterns of a colon-separated list, like the directories of PATH."""
    return tuple(pattern for pattern in text.split(":") if pattern)


def encode_patterns(patterns: "tuple[str, ...]") -> bytes:
    """The patterns as the core reads them: file-name bytes, each ended by a NUL."""
    return b"".join(os.fsencode(pattern) + b"\0" for pattern in patterns)


_current = None  # type: Settings | None


def current() -> Settings:
    """The settings of this process, read from the environment once. A process with more rights
    than its caller takes no settings from it, uses no store of a user's, and builds nothing."""
    global _current
    if _current is None:
        secure = bool(_boot) and _boot.secure_mode()
        _current = Settings({} if secure else os.environ)
        if secure:
            _current.build = "never"
    return _current
