"""Runs the machine code of this process from 2 MiB pages; see `stats()` for what came of it.

The start-up hook imports this package in every Python process of the machine before the program,
and each import costs 0.15 ms. So what every start needs is here, and nothing else is imported
before it is asked for: no `re`, no `typing`, no `__future__`.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyhugetext._api import remap, restore, stats
    from pyhugetext._kernel import Kernel
    from pyhugetext._stats import Region, Stats

    # Backing, minimum text, private limit, fall back, include, exclude, stores, stores in shared
    # memory.
    Request = tuple[int, int, int, bool, bytes, bytes, bytes, bytes]

__version__ = "0.1.0"

__all__ = ["Kernel", "Region", "Stats", "__version__", "remap", "restore", "stats"]

# The settings where the environment sets none.
_AUTO = 7  # Backing::automatic of the core
_MIN_TEXT = 256 << 10
_PRIVATE_LIMIT = 64 << 20
_SYSTEM_STORE = "/var/cache/pyhugetext"

# What went wrong in the hook, for stats().
_failure = None  # type: BaseException | None


def _start() -> None:
    """The start-up hook: what `pyhugetext.pth` and `pyhugetext.start` call in every process.

    Remaps the text as the environment says. Never raises, prints nothing unless asked to.
    """
    global _failure
    try:
        environ = sys.modules["os"].environ
        if environ.get("PYHUGETEXT") == "0":  # the .pth has looked before; a .start has not
            return
        for name in environ:
            if name.startswith("PYHUGETEXT"):
                from pyhugetext import _settings

                settings = _settings.current()
                if settings.off:
                    if settings.debug:
                        from pyhugetext import _boot, _debug

                        if not _boot.secure_mode():
                            _debug.report()
                    return
                request, debug = settings.request(), settings.debug
                break
        else:
            request, debug = _default_request(environ), False
        from pyhugetext import _boot

        if _boot.secure_mode():
            # A process with more rights than its caller takes no settings from it.
            from pyhugetext import _settings

            _settings.ignore_environment()
            request, debug = _default_request({}), False
        missing = _boot.start(*request)
        _watch(debug)
        if missing or debug:
            _later()
    except BaseException as error:
        # Whatever it was, the program must not notice; stats() tells.
        _failure = error


def _default_request(environ: "Mapping[str, str]") -> "Request":
    """What the native part takes: backing, minimum text, private limit, whether to fall back
    before the store was built, include, exclude, stores, stores in shared memory."""
    stores = _SYSTEM_STORE + "\0"
    cache = environ.get("XDG_CACHE_HOME", "")
    home = environ.get("HOME", "")
    if cache.startswith("/"):
        stores += cache.rstrip("/") + "/pyhugetext\0"
    elif home.startswith("/"):
        stores += home.rstrip("/") + "/.cache/pyhugetext\0"
    os = sys.modules["os"]
    shm = b"/dev/shm/pyhugetext-%d\0" % os.geteuid()
    build = bool(environ)  # not in secure mode
    return _AUTO, _MIN_TEXT, _PRIVATE_LIMIT, not build, b"", b"", os.fsencode(stores), shm


def _watch(debug: bool) -> None:
    """Look for new libraries after every import of an extension module, in this interpreter."""
    from pyhugetext import _boot

    external = sys.modules.get("_frozen_importlib_external")
    if external is not None:
        _boot.watch_imports(external.ExtensionFileLoader, _later, debug)


def _later() -> None:
    """Called after a pass that left something to Python: entries to build, decisions to tell."""
    from pyhugetext import _after

    _after.run()


def __getattr__(name: str) -> object:
    if name in ("remap", "restore", "stats"):
        from pyhugetext import _api as module
    elif name in ("Kernel", "Region", "Stats"):
        from pyhugetext import _stats as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted(__all__)
