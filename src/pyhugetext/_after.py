"""After a pass: build the entries it found missing, pass again, and tell decisions if asked to."""

import _thread
import os

from pyhugetext import _boot, _settings

# One build at a time, by one thread: what is imported while it builds, here or in another thread,
# may find libraries of its own, and must not wait for the store's lock that this process holds.
_building = _thread.allocate_lock()
_builder = 0  # the process that holds it; what fork() copied is nobody's
_more = False  # found meanwhile


def run() -> None:
    """As complete(), with the backing of the settings; tells what was decided where it is wanted."""
    settings = _settings.current()
    complete(settings.backing)
    if settings.debug:
        from pyhugetext import _debug

        _debug.report()


def complete(backing: int) -> None:
    """Builds what the last pass found missing in the stores that `backing` (the core's number)
    draws on, as far as the settings allow, and passes again. Never leaves a region waiting:
    whatever the building comes to, the next backing follows. While another thread does this, or
    this one further up, it is left to that."""
    global _building, _builder, _more
    _more = True
    if _building.locked() and _builder != os.getpid():
        _building = _thread.allocate_lock()
    _builder = os.getpid()
    while _more and _building.acquire(False):
        try:
            while _more:
                _more = False
                _build_missing(backing)
                if _more:
                    _boot.retry(False)
        finally:
            _boot.retry(True)
            _building.release()


def _build_missing(backing: int) -> None:
    settings = _settings.current()
    if settings.build == "never" or not _boot.missing():
        return
    from pyhugetext.store import build

    build.build_missing(settings, backing)
