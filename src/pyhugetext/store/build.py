"""What start-up calls when an entry is missing: build it now, or say why not.

Synchronously, as .pyc files are written; no thread, no process, no fsync. What a machine cannot do
is found out once and remembered in the store's `verdict`.
"""

import errno
import os

from pyhugetext import _boot, _settings
from pyhugetext.store import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyhugetext.store.catalogue import Catalogue

TMPFS = 0x01021994
HUGE = 2 << 20
SMALL_FILES = 8 << 20  # what trying a file system and writing records takes at most

# What the last build could not do, for stats(): sentences.
reasons = []  # type: list[str]

# Verdicts on a file system: huge right after writing; only after write-back and eviction; never.
WRITTEN, EVICTED, NEVER = "written", "evicted", "never"


_spent = 0  # bytes this process has built


def build_missing(settings: _settings.Settings, backing: int) -> None:
    """Builds entries for the regions that wait for one, in the stores that `backing` (the core's
    number) draws on; `reasons` says why others were not."""
    import resource

    wanted = _boot.missing()
    always = settings.build == "always"
    shm_only = backing == _settings.BACKINGS["shm"]
    # Where Python ignores SIGXFSZ this would be an error to catch; embedded it kills the program.
    ceiling = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if ceiling != resource.RLIM_INFINITY and ceiling < SMALL_FILES:
        _tell(f"RLIMIT_FSIZE of {ceiling} bytes is too small for a store")
        return
    from pyhugetext.store import catalogue

    stores = []
    if settings.store and not shm_only and _has_home(settings.store):
        stores.append(catalogue.Catalogue(settings.store, settings.store_limit, False))
    if backing != _settings.BACKINGS["store"] and _has_shared_memory(settings.shm_store):
        store = catalogue.Catalogue(settings.shm_store, settings.shm_limit, True)
        # What is in shared memory cannot be reclaimed but by swapping.
        store.limit = _boot.shared_allowance(settings.shm_limit, _present(store))
        store.limit_is_own = store.limit < settings.shm_limit
        stores.append(store)
    for store in stores:
        try:
            wanted = _build_into(store, wanted, settings.build_limit, always)
        except catalogue.Busy as error:
            # The other process builds it. A second copy in shared memory would be one too many.
            _tell(reason_of(error))
            return
        except (OSError, places.Untrusted) as error:
            _tell(f"store {store.root}: {reason_of(error)}")
        if not wanted:
            return


def _build_into(
    store: "Catalogue", wanted: "list[tuple[str, int]]", limit: int, always: bool
) -> "list[tuple[str, int]]":
    """Builds into one store; returns what it could not take."""
    store.prepare()
    lock, waited = _lock(store, always)
    try:
        if waited:  # for somebody who was building, most likely the same
            _boot.retry(False)
            wanted = _boot.missing()
        reason = _unfit(store)
        if reason:
            _tell(f"store {store.root}: {reason}")
            for path, bias in wanted:
                store.note(path, bias, reason)
            return wanted
        return [(path, bias) for path, bias in wanted if not _build(store, path, bias, limit)]
    finally:
        store.unlock(lock)


_patience = 0.1  # seconds this process still waits for others that build


def _lock(store: "Catalogue", always: bool) -> "tuple[int, bool]":
    """Takes the writer's lock; waits a moment for it, so that workers that are started together
    on a new machine run from the one copy and not each from its own. Returns the descriptor and
    whether it had to wait. catalogue.Busy when that takes too long."""
    import time

    from pyhugetext.store import catalogue

    global _patience
    waited = False
    while True:
        try:
            return store.lock(wait=always), waited
        except catalogue.Busy:
            if _patience <= 0:
                raise
        began = time.monotonic()
        time.sleep(0.004)
        _patience -= time.monotonic() - began
        waited = True


def _unfit(store: "Catalogue") -> "str | None":
    """Why nothing built into this store would run from huge pages, or None."""
    if os.statvfs(store.base).f_flag & os.ST_NOEXEC:
        return "this file system is mounted noexec"
    if store.shared_memory:
        return None
    verdict = judge(store)
    if verdict == WRITTEN:
        return None
    again = "; pyhugetext warm can fill it" if verdict == EVICTED else ""
    return f"this file system gives no huge pages to new files{again}"


def _build(store: "Catalogue", path: str, bias: int, limit: int) -> bool:
    """Builds one entry; whether nobody else needs to try."""
    from pyhugetext.store import catalogue, elf, record, room

    global _spent
    lasting, brief = True, False
    try:
        # What another process may still build is not remembered.
        lasting = os.stat(path).st_size > limit
        reason = _forbidden(store, path, limit)
        if not reason:
            where, written = store.add(path, bias, durable=False)
            _spent += written
            error = collapse(os.path.join(store.base, where)) if store.shared_memory else 0
            if not error:
                return True
            # Of no use, and paid for in memory.
            store.drop_record(record.key(os.stat(path), bias))
            reason = f"the kernel does not collapse shared memory: {os.strerror(error)}"
            lasting, brief = True, error in _PASSING or _is_restricted()
    except elf.Refused as error:
        store.note(path, bias, str(error), isinstance(error, catalogue.Changed))
        _tell(f"{path}: {error}")
        return False
    except (OSError, room.Full) as error:
        reason = reason_of(error)
        # Of this process and this moment.
        lasting = getattr(error, "errno", None) not in (errno.EINTR, errno.ENOMEM)
        brief = store.limit_is_own and isinstance(error, room.Full)
    _tell(f"store {store.root}: {path}: {reason}")
    if lasting:
        store.note(path, bias, reason, brief)
    return False


def _forbidden(store: "Catalogue", path: str, limit: int) -> "str | None":
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


def too_many(store: "Catalogue", path: str) -> bool:
    """Whether this file, as it is, has entries for several load addresses already: each is a
    whole copy."""
    from pyhugetext.store import record

    same_file = record.key(os.stat(path), 0).rsplit("-", 1)[0] + "-"
    entries = sum(name.startswith(same_file) for name in os.listdir(store.index))
    return entries >= MOST_BIASES


def _has_home(store: str) -> bool:
    """Whether the home that a store is to be in is there. It is not ours to make: it may be meant
    not to exist, or not be mounted yet."""
    home, cache, _ = store.rpartition("/.cache/pyhugetext")
    if not cache or os.path.isdir(home):
        return True
    _tell(f"store {store}: there is no {home}")
    return False


def _present(store: "Catalogue") -> int:
    """Bytes of shared memory that the store's copies take now."""
    from pyhugetext.store import room

    try:
        return room.used_bytes(store)
    except OSError:  # it is not there yet
        return 0


def _has_shared_memory(path: str) -> bool:
    """Whether the place of the store in shared memory is memory: where /dev/shm is missing, or
    an ordinary directory, nothing is made."""
    directory = os.path.dirname(path)
    if _filesystem(directory) == TMPFS:
        return True
    _tell(f"store {path}: {directory} is no tmpfs")
    return False


def _filesystem(path: str) -> int:
    """The type of a directory's file system, as in statfs(2); 0 where that cannot be told."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(_boot.filesystem(fd))
    finally:
        os.close(fd)


# Errors of MADV_COLLAPSE that tell of this moment: a page was busy, no 2 MiB were free.
_PASSING = (errno.EAGAIN, errno.EBUSY, errno.ENOMEM)
_PAUSES = (0, 0.001, 0.004, 0.016)  # seconds before each try


def collapse(path: str) -> int:
    """Makes a copy in shared memory huge. Returns 0 when it is, if only in part, else an errno."""
    import time

    result = errno.EINVAL
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size & -HUGE
        for pause in _PAUSES:
            time.sleep(pause)
            try:
                return 0 if _boot.probe(fd, 0, size, True) else errno.EINVAL
            except OSError as error:
                result = error.errno or errno.EINVAL
            if result not in _PASSING:
                break
    finally:
        os.close(fd)
    return result


def judge(store: "Catalogue") -> str:
    """What the store's file system does with a file written in steps of 2 MiB: tried with a small
    file, then remembered for this kernel and file system. The lock must be held."""
    verdict = remembered(store)
    if verdict:
        return verdict
    if _has_huge_pages_disabled():
        # The verdict is for every process, and this one cannot tell.
        raise OSError(errno.EPERM, "huge pages are disabled for this process (prctl)")
    verdict = _try(os.path.join(store.tmp, f"{os.getpid()}-probe"))
    remember(store, verdict)
    return verdict


def remembered(store: "Catalogue") -> "str | None":
    """What was found out for this kernel and file system; None where it was not yet. For a day
    where it was not huge, which a moment without free 2 MiB may have caused."""
    import time

    from pyhugetext.store import catalogue

    try:
        with os.fdopen(places.open_trusted(store.verdict_file)) as file:
            known, _, verdict = file.read().strip().rpartition(" ")
            age = time.time() - os.fstat(file.fileno()).st_mtime
        lasts = verdict == WRITTEN or 0 <= age < catalogue.NOTE_LASTS
        if known == _here(store) and verdict in (WRITTEN, EVICTED, NEVER) and lasts:
            return verdict
    except (OSError, ValueError, places.Untrusted):
        pass  # none yet, or nothing that was written here
    return None


def _has_huge_pages_disabled() -> bool:
    """Whether prctl(PR_SET_THP_DISABLE) was called; see proc_pid_status(5)."""
    with open("/proc/self/status") as file:
        return "\nTHP_enabled:\t0" in file.read()


def _is_restricted() -> bool:
    """Whether the kernel may have refused this process what it grants to others: its answer is not
    the machine's. A seccomp filter answers with whatever errno it likes."""
    with open("/proc/self/status") as file:
        status = file.read()
    return "\nTHP_enabled:\t0" in status or "\nSeccomp:\t0" not in status


def _here(store: "Catalogue") -> str:
    device = os.stat(store.base).st_dev
    return f"{os.major(device):x}:{os.minor(device):x} {os.uname().release}"


def remember(store: "Catalogue", verdict: str) -> None:
    """Writes down what judge() is to answer on this kernel and file system."""
    store.write_file(store.verdict_file, f"{_here(store)} {verdict}\n".encode(), False)


def _try(path: str) -> str:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
        return try_file(fd)
    finally:
        os.close(fd)


def try_file(fd: int) -> str:
    """Writes 4 MiB to an empty file as a copy is written, and returns the verdict on its file
    system. OSError where it cannot be written or mapped."""
    from pyhugetext.store import copy

    data = copy.buffer()
    data[:: 4 << 10] = b"\x90" * (HUGE >> 12)
    os.pwrite(fd, data, 0)
    os.pwrite(fd, data, HUGE)
    if _boot.probe(fd, HUGE, HUGE, False):
        return WRITTEN
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return EVICTED if _boot.probe(fd, HUGE, HUGE, False) else NEVER


def reason_of(error: BaseException) -> str:
    """What the file system or the store refused, in words."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f" ({error.filename})" if error.filename else "")
    return str(error)


def _tell(reason: str) -> None:
    if reason not in reasons:
        reasons.append(reason)
