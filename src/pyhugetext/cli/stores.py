"""The stores that a command addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pyhugetext import _settings, _words
from pyhugetext._settings import Settings
from pyhugetext.cli.outcome import USAGE, Failure
from pyhugetext.store import places
from pyhugetext.store.places import Store

# What a wrong value of would let a command work on another store than was meant.
_DECISIVE = (
    "PYHUGETEXT_STORE",
    "PYHUGETEXT_STORE_LIMIT",
    "PYHUGETEXT_SHM_LIMIT",
    "PYHUGETEXT_BACKING",
    "PYHUGETEXT_MIN_TEXT",
)


def settings() -> Settings:
    """The environment's settings. Failure where one that decides about the store is malformed."""
    from pyhugetext import _native  # noqa: F401  without it nobody reads the environment

    found = _settings.current()
    for problem in found.problems:
        if problem.partition("=")[0] in _DECISIVE:
            raise Failure(problem.replace("the default is used", "nothing was done"), USAGE)
    return found


def addressed(use_system: bool) -> list[Store]:
    """The system's store, or the user's on disk and in shared memory; of these only the one that
    PYHUGETEXT_BACKING asks for."""
    found = settings()
    if use_system:
        return [places.system(found)]
    own = places.user(found) if found.backing != "shm" else None
    shm = places.shared_memory(found) if found.backing != "store" else None
    return [store for store in (own, shm) if store is not None]


def need_root() -> None:
    """Failure unless this process may write to the system's store."""
    if os.geteuid() != 0:
        raise Failure(f"only root may write to the system's store {settings().system_store}")


def exists(store: Store) -> bool:
    """Whether there is such a store. Failure where there is something else, or where somebody else
    could have written it."""
    try:
        places.open_store(store)
    except places.Trouble as error:
        # Whoever could put one there matters as soon as there is one.
        if error.kind == places.GONE or not os.path.lexists(store.root):
            return False
        raise _failure(store, error) from None
    return True


def make(store: Store) -> None:
    """Makes a store that is not there. Failure where that is not possible."""
    with told(store):
        places.open_store(store, make=True)


@contextmanager
def told(store: Store) -> Iterator[None]:
    """Turns what the file system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise _failure(store, error) from error


def _failure(store: Store, error: OSError) -> Failure:
    reason = _words.sentence(error)
    return Failure(f"store {reason}" if store.root in reason else f"store {store.root}: {reason}")
