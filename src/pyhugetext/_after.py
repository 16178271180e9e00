"""After a pass: build the entries it found missing, pass again, and tell decisions if asked to."""

import _thread
import os

from pyhugetext import _boot, _settings

# One build at a time, by one thread: what is imported while it builds, here or in another thread,
# may find libraries of its own, and must not wait for the store's lock that this process holds.
_building = _thread.RLock()
os.register_at_fork(after_in_child=_building._at_fork_reinit)  # type: ignore[attr-defined]
_more = False  # found meanwhile


def run() -> None:
    """As complete(), with the backing of the settings; tells what was decided where it is wanted."""
    settings = _settings.current()
    complete(settings.backing)
    if settings.debug:
        from pyhugetext import _debug

        _debug.report()


def complete(backing: int, wait: bool = False) -> None:
    """Builds what the last pass found missing in the stores that `backing` (the core's number)
    draws on, as far as the settings allow, and passes again. Never leaves a region waiting:
    whatever the building comes to, the next backing follows. While another thread does this it is
    left to that, or with `wait` done after it; and to this thread where it is further up in it."""
    global _more
    _more = True
    if _is_mine():
        return
    while _more or wait:
        try:
            # Inside, for what a signal handler raises as soon as the lock is taken.
            if not _building.acquire(wait):
                return
            wait = False
            while True:
                _more = False
                _build_missing(backing)
                if not _more:
                    break
                _boot.retry(False)
        finally:
            if _is_mine():
                _boot.retry(True)
                _building.release()


def _is_mine() -> bool:
    return _building._is_owned()  # type: ignore[attr-defined, no-any-return]


def _build_missing(backing: int) -> None:
    settings = _settings.current()
    if settings.build == "never" or not _boot.missing():
        return
    from pyhugetext.store import build

    build.build_missing(settings, backing)
