"""Runs the machine code of this process from 2 MiB pages; see `stats()` for what came of it.

The start-up hook imports this package in every Python process of the machine, so nothing is
imported here before it is asked for.
"""

__version__ = "0.1.0"

__all__ = ["Kernel", "Region", "Stats", "__version__", "remap", "restore", "stats"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyhugetext._api import remap, restore, stats
    from pyhugetext._stats import Kernel, Region, Stats


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
