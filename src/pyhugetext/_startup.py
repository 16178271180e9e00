"""The start-up hook: what `pyhugetext.pth` and `pyhugetext.start` call in every Python process.

It runs before the program, so it is silent, never raises, and imports as little as it can: no
`re`, no `typing`, no `__future__`, and nothing native when `PYHUGETEXT=0`.
"""

import sys

# The settings where the environment sets none; here, because most starts need only these.
AUTO = 5  # Backing::automatic of the core
MIN_TEXT = 256 << 10
PRIVATE_LIMIT = 64 << 20
# As the native part takes them: backing, minimum text, private limit, include, exclude.
DEFAULTS = (AUTO, MIN_TEXT, PRIVATE_LIMIT, b"", b"")

# What start() found, for stats(): why the native part is missing, if it is.
native_error = None  # type: BaseException | None


def start() -> None:
    """Remap this process's text as the environment says. Never raises, never prints by itself."""
    global native_error
    try:
        environ = sys.modules["os"].environ
        if environ.get("PYHUGETEXT") == "0":  # the .pth has looked before; a .start has not
            return
        settings = None
        for name in environ:
            if name.startswith("PYHUGETEXT"):
                from pyhugetext import _settings

                settings = _settings.current()
                if settings.off:
                    if settings.debug:
                        _report()
                    return
                break
        try:
            from pyhugetext import _boot
        except ImportError as error:
            native_error = error
            return
        if settings is None or _boot.secure_mode():
            # A process with more rights than its caller takes no settings from it.
            request = DEFAULTS
        else:
            request = settings.request()
        _boot.start(*request)
        debug = settings is not None and settings.debug
        watch(debug)
        if debug:
            _report()
    except BaseException as error:
        # Whatever it was, the program must not notice; stats() tells.
        native_error = error


def watch(debug: bool = False) -> None:
    """Look for new libraries after every import of an extension module, in this interpreter."""
    from pyhugetext import _boot

    external = sys.modules.get("_frozen_importlib_external")
    if external is not None:
        _boot.watch_imports(external.ExtensionFileLoader, _report if debug else None)


def _report() -> None:
    from pyhugetext import _debug

    _debug.report()
