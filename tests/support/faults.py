"""Which system calls of a traced program are ours, and how each of them may fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What our code asks the kernel for, and how that may fail. A seccomp filter answers EPERM, mostly.
ERRORS = {
    "openat": "EACCES EMFILE ENOSPC EDQUOT EINTR",
    "statx": "EACCES EIO ENOMEM",
    "mmap": "ENOMEM EACCES",
    "munmap": "ENOMEM",
    "mremap": "ENOMEM",
    "mprotect": "ENOMEM EACCES",
    "madvise": "EINVAL ENOMEM EAGAIN",
    "read": "EIO EINTR",
    "pread64": "EIO EINTR",
    "lseek": "EINVAL EIO",
    "fallocate": "EOPNOTSUPP EIO",
    "fcntl": "EAGAIN EINTR ENOLCK",
    "getdents64": "EIO ENOMEM",
    "mkdirat": "ENOSPC EDQUOT EACCES EIO",
    "renameat2": "ENOSPC EDQUOT EACCES EIO",
    "unlinkat": "EACCES EIO",
    "fchmod": "EIO EACCES",
    "fchmodat": "EIO EACCES",
    "pwrite64": "ENOSPC EDQUOT EIO EINTR",
    "write": "ENOSPC EDQUOT EIO EINTR",
    "ftruncate": "ENOSPC EDQUOT EIO EINTR",
    "fdatasync": "EIO ENOSPC",
    "fsync": "EIO ENOSPC",
    "utimensat": "EACCES",
    "clock_gettime": "EINVAL",
    "ioctl": "ENOTTY EIO ENOMEM",
    "statfs": "EIO ENOMEM",
    "fstatfs": "EIO ENOMEM",
    "sync_file_range": "EIO ENOSPC ENOSYS",
    "readlinkat": "EIO ENOMEM",
    "close": "EIO EINTR",
    "process_vm_readv": "ENOMEM ENOSYS",
    "memfd_create": "ENOMEM EMFILE",
    "openat2": "ENOSYS EACCES EMFILE ELOOP EXDEV EAGAIN",
    "flock": "EAGAIN EINTR ENOLCK",
    "nanosleep": "EINTR",
    "prlimit64": "EINVAL",
    "fadvise64": "EINVAL",
    "prctl": "EINVAL ENOMEM",
    "move_pages": "ENODEV ENOMEM ENOSYS",
    "uname": "EFAULT",
    "getresuid": "EFAULT",
    "faccessat": "EACCES EROFS",
    "rt_sigprocmask": "EINVAL",
}
CHANGING = [
    "mkdirat", "renameat2", "unlinkat", "fchmod", "fchmodat", "pwrite64", "write", "ftruncate",
    "utimensat", "openat",
]  # fmt: skip

LINE = re.compile(r"(?:\d+ +)?\[(?P<at>[0-9a-f]+)\] (?P<name>\w+)\((?P<rest>.*)$")


@dataclass(frozen=True)
class Call:
    name: str
    number: int  # among its like, of the whole process
    text: str

    @property
    def injected(self) -> bool:
        return "(INJECTED)" in self.text

    def stays_below(self, root: Path) -> bool:
        """Whether it changes nothing outside a store; `strace -y` shows what descriptors are."""
        if self.name not in CHANGING or (self.name == "openat" and "O_CREAT" not in self.text):
            return True
        found = re.match(r'\w+\((\d+<([^>]*)>)(?:, "([^"]*)")?', self.text)
        if not found:
            return False
        below = f"{found[2]}/".startswith(f"{root}/")
        # A step of the way to the store, made when it was not there.
        makes = self.name in ("mkdirat", "fchmodat")
        return below or (makes and f"{root}/".startswith(f"{found[2]}/{found[3]}/"))


def calls_of_ours(log: Path) -> Iterator[Call]:
    """Of all system calls in a log, up to the mark, those that were made by an instruction of our
    own: `strace -i` tells where it is. Calls that Python and libc make are not ours to survive."""
    counts: dict[str, int] = {}
    low = high = 0
    for line in log.read_text(errors="replace").splitlines():
        found = LINE.match(line)
        if not found:
            continue
        at, name = int(found["at"], 16), found["name"]
        if name == "getppid":
            return
        counts[name] = counts.get(name, 0) + 1
        if not low and name == "mmap" and "/_boot." in line:
            low = int(line.rsplit(" ", 1)[1], 16)
            high = low + int(found["rest"].split(",")[1])
        elif low <= at < high and name != "getpid" and not name.startswith("syscall_"):
            # getpid(2) cannot fail; what strace has no name for it cannot let fail.
            yield Call(name, counts[name], line[line.index(name + "(") :])
