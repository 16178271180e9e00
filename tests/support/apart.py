"""A mount namespace of its own for each of several processes that run tests: the store in shared memory
is one for each user, so that two tests of one user's would find each other's there."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


def enter() -> None:
    """Gives this thread, and all that it starts, a /dev/shm of its own, which ends with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]

    def check(failed: int, what: str) -> None:
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)

    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "/")
    check(libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"mode=1777"), "/dev/shm")


def possible() -> bool:
    """Whether a process may do that here: it needs root's rights."""
    child = os.fork()
    if not child:
        try:
            enter()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
