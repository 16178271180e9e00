"""Runs the machine code of this process from 2 MiB pages; see `stats()` for what came of it.

At start-up the hook (`pyhugetext.pth`) loads the native module `_boot` alone. This package is
imported when the program asks for it; each import costs 0.15 ms, so nothing else is imported before
it is needed.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyhugetext._api import remap, restore, stats
    from pyhugetext._stats.kernel import Kernel
    from pyhugetext._stats.model import Region, Stats

__version__ = "0.1.0"

__all__ = ["Kernel", "Region", "Stats", "__version__", "remap", "restore", "stats"]

# What went wrong in the hook, for _api.
_failure = None  # type: BaseException | None


def _start() -> None:
    """The start-up hook for whoever does not load `_boot` directly: `pyhugetext.start`,
    sitecustomize, an installation that keeps its files elsewhere than the .pth.

    Remaps the text as the environment says. Prints nothing unless asked to, and raises only what a
    signal handler of the program raised meanwhile.
    """
    global _failure
    import os

    # The .pth has looked before; a .start has not.
    if os.environ.get("PYHUGETEXT") in ("0", "off", "no", "false"):
        return
    try:
        from pyhugetext import _boot
    except Exception as error:
        # Whatever it was, the program must not notice; stats() tells.
        _failure = error
        return
    _boot.begin()


def __getattr__(name: str) -> object:
    if name in ("remap", "restore", "stats"):
        from pyhugetext import _api as module

        module.start_failure = _failure
    elif name in ("Kernel", "Region", "Stats"):
        from pyhugetext._stats import model as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted(__all__)
