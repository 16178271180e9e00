"""What start-up calls when an entry is missing: build it now, or say why not.

Synchronously, as .pyc files are written; no thread, no process, no fsync. What a machine cannot do
is found out once and remembered in the store's `verdict`.
"""

import os

from pyhugetext import _boot, _settings
from pyhugetext.store import places

OVERLAYFS = 0x794C7630
HUGE = 2 << 20

# What the last build could not do, for stats(): sentences.
reasons = []  # type: list[str]

# Verdicts on a file system: huge right after writing; only after write-back and eviction; never.
WRITTEN, EVICTED, NEVER = "written", "evicted", "never"


_spent = 0  # bytes this process has built


def build_missing(settings, backing: int) -> None:  # type: ignore[no-untyped-def]
    """Builds entries for the regions that wait for one, in the stores that `backing` (the core's
    number) draws on; `reasons` says why others were not."""
    wanted = _boot.missing()
    always = settings.build == "always"
    shm_only = backing == _settings.BACKINGS["shm"]
    if settings.store and not always and not shm_only and _on_overlay(settings.store):
        _tell(
            f"store {settings.store}: on overlayfs it would be built at every start of a "
            "container; warm it in the image (pyhugetext warm) or set PYHUGETEXT_BUILD=always"
        )
        return
    from pyhugetext.store import catalogue

    stores = []
    if settings.store and not shm_only:
        stores.append(catalogue.Catalogue(settings.store, settings.store_limit, False))
    if backing != _settings.BACKINGS["store"]:
        stores.append(catalogue.Catalogue(settings.shm_store, settings.shm_limit, True))
    for store in stores:
        try:
            wanted = _build_into(store, wanted, settings.build_limit, always)
        except (OSError, places.Untrusted, catalogue.Busy) as error:
            _tell(f"store {store.root}: {_text(error)}")
        if not wanted:
            return


def _build_into(store, wanted, limit, always):  # type: ignore[no-untyped-def]
    """Builds into one store; returns what it could not take."""
    store.prepare()
    verdict = WRITTEN if store.shared_memory else judge(store)
    lock = store.lock(wait=always)
    try:
        if verdict != WRITTEN:
            again = "; pyhugetext warm can fill it" if verdict == EVICTED else ""
            reason = f"this file system gives no huge pages to new files{again}"
            _tell(f"store {store.root}: {reason}")
            for path, bias in wanted:
                store.note(path, bias, reason)
            return wanted
        return [(path, bias) for path, bias in wanted if not _build(store, path, bias, limit)]
    finally:
        os.close(lock)


def _build(store, path: str, bias: int, limit: int) -> bool:  # type: ignore[no-untyped-def]
    """Builds one entry; whether nobody else needs to try."""
    from pyhugetext.store import catalogue, elf

    global _spent
    lasting = True
    try:
        # What another process may still build is not remembered.
        lasting = os.stat(path).st_size > limit
        reason = _forbidden(store, path, limit)
        if not reason:
            where, written = store.add(path, bias, durable=False)
            _spent += written
            if store.shared_memory:
                collapse(os.path.join(store.base, where))
            return True
    except elf.Refused as error:
        store.note(path, bias, str(error))
        _tell(f"{path}: {error}")
        return False
        lasting = lasting or not reason.startswith("PYHUGETEXT_BUILD_LIMIT")
    except (OSError, catalogue.Full) as error:
        reason, lasting = _text(error), True
    _tell(f"store {store.root}: {path}: {reason}")
    if lasting:
        store.note(path, bias, reason)
    return False


def _forbidden(store, path: str, limit: int) -> "str | None":  # type: ignore[no-untyped-def]
    """Why this file is not built now, or None."""
    import resource

    size = os.stat(path).st_size
    if _spent + size > limit:
        return "PYHUGETEXT_BUILD_LIMIT leaves no room to build its entry"
    # The copy is padded to 2 MiB here and there; SIGXFSZ would kill the program.
    ceiling = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if ceiling != resource.RLIM_INFINITY and size + (16 << 20) > ceiling:
        return f"RLIMIT_FSIZE of {ceiling} bytes is too small for its copy"
    if not store.shared_memory and too_many(store, path):
        return "it is loaded at ever other addresses; its entries are bounded"
    return None


MOST_BIASES = 4


def too_many(store, path: str) -> bool:  # type: ignore[no-untyped-def]
    """Whether this file has entries for several load addresses already: each is a whole copy."""
    status = os.stat(path)
    prefix = f"{os.major(status.st_dev):x}-{os.minor(status.st_dev):x}-{status.st_ino:x}-"
    return sum(name.startswith(prefix) for name in os.listdir(store.index)) >= MOST_BIASES


def _on_overlay(path: str) -> bool:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return bool(_boot.filesystem(fd) == OVERLAYFS)
    finally:
        os.close(fd)


def collapse(path: str) -> None:
    """Puts a copy in shared memory on 2 MiB pages, as far as the kernel does it."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size & -HUGE
        _boot.probe(fd, 0, size, True)
    finally:
        os.close(fd)


def judge(store) -> str:  # type: ignore[no-untyped-def]
    """What the store's file system does with a file written in steps of 2 MiB: tried once with a
    small file, then remembered for this kernel and file system."""
    try:
        with open(store.verdict_file) as file:
            known, _, verdict = file.read().strip().rpartition(" ")
        if known == _here(store) and verdict in (WRITTEN, EVICTED, NEVER):
            return verdict
    except OSError:
        pass
    lock = store.lock(wait=False)
    try:
        verdict = _try(os.path.join(store.tmp, f"{os.getpid()}-probe"))
        remember(store, verdict)
        return verdict
    finally:
        os.close(lock)


def _here(store) -> str:  # type: ignore[no-untyped-def]
    return f"{os.stat(store.base).st_dev:x} {os.uname().release}"


def remember(store, verdict: str) -> None:  # type: ignore[no-untyped-def]
    """Writes down what judge() is to answer on this kernel and file system."""
    temporary = os.path.join(store.tmp, f"{os.getpid()}-verdict")
    with open(temporary, "w") as file:
        file.write(f"{_here(store)} {verdict}\n")
    os.rename(temporary, store.verdict_file)


def _try(path: str) -> str:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
        data = b"\x90" * HUGE
        os.pwrite(fd, data, 0)
        os.pwrite(fd, data, HUGE)
        if _boot.probe(fd, HUGE, HUGE, False):
            return WRITTEN
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return EVICTED if _boot.probe(fd, HUGE, HUGE, False) else NEVER
    finally:
        os.close(fd)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f" ({error.filename})" if error.filename else "")
    return str(error)


def _tell(reason: str) -> None:
    if reason not in reasons:
        reasons.append(reason)
