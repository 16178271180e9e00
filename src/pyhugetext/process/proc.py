"""Another process in /proc, without touching it: neither stopped nor traced, only read where the
kernel allows whom it lets read (PTRACE_MODE_READ; see ptrace(2) and proc(5))."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from pyhugetext import _words
from pyhugetext._stats import smaps

MOST = 1 << 22  # process ids end below; see proc_sys_kernel(5)
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_READ = os.O_RDONLY | os.O_CLOEXEC


class NotInspectable(Exception):
    """A process that cannot be looked at; the text is one sentence that says why."""


class Gone(NotInspectable):
    """There is no such process, or none any more."""


class Forbidden(NotInspectable):
    """The kernel does not let this user read it; `cause` says why, without naming the process."""

    def __init__(self, sentence: str, cause: str) -> None:
        super().__init__(sentence)
        self.cause = cause


class NoMemory(NotInspectable):
    """A kernel thread or a zombie: nothing is mapped in it."""


class State(NamedTuple):
    """What /proc/PID/stat tells. Addresses are 0 where we may not read the process."""

    name: str
    letter: str  # Z for a zombie
    kernel_thread: bool
    started: int  # clock ticks since boot
    image: tuple[int, ...]  # addresses that are other ones after execve(2)
    start_code: int


class Process:
    """An open directory of /proc: what is read through it belongs to this process and to no later
    one with its number. A context manager. NotInspectable where there is nothing to read."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        if not 0 < pid < MOST:
            raise Gone(f"{pid} is no process id")
        try:
            self.directory = os.open(
                f"/proc/{pid}", _READ | os.O_DIRECTORY | getattr(os, "O_PATH", 0)
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                raise Gone(f"there is no process {pid}") from None
            why = _words.reason(error)
            raise Forbidden(f"process {pid} cannot be read: {why}", str(error)) from None
        try:
            self._read_status()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.directory)

    def _read_status(self) -> None:
        fields = dict(
            line.split(":", 1) for line in self.text("status").splitlines() if ":" in line
        )
        group = int(fields["Tgid"])
        self.owner = int(fields["Uid"].split()[1])
        if group != self.pid:
            raise NoMemory(f"{self.pid} is a thread of process {group}")

    def text(self, name: str, limit: int = 1 << 16) -> str:
        """A small file of it, up to so many bytes. Gone or Forbidden where it cannot be read."""
        try:
            fd = os.open(name, _READ, dir_fd=self.directory)
            try:
                data = os.read(fd, limit)
            finally:
                os.close(fd)
        except OSError as error:
            raise self.reason(error) from None
        return data.decode("utf-8", "surrogateescape")

    def state(self) -> State:
        """What it is doing now."""
        text = self.text("stat")
        # The name is anything, brackets and spaces included.
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        if len(fields) < 50:
            raise Gone(f"process {self.pid} is gone")
        numbers = [int(field) for field in fields[1:]]
        # From the man page's numbers, which begin at 1: state is 3.
        image = tuple(numbers[n - 4] for n in (26, 27, 28, 45, 47, 48, 50))
        kernel = bool(numbers[9 - 4] & _KERNEL_THREAD)
        return State(name, fields[0], kernel, numbers[22 - 4], image, numbers[26 - 4])

    def mappings(self, file: str = "smaps") -> list[smaps.Mapping]:
        """What is mapped in it, from smaps, or from maps: without sizes, in a tenth of the time."""
        try:
            found = smaps.read(file, self.directory)
        except OSError as error:
            raise self.reason(error) from None
        if not found:
            raise self._nothing_mapped()
        return found

    def _nothing_mapped(self) -> NotInspectable:
        state = self.state()
        if state.kernel_thread:
            return NoMemory(f"process {self.pid} ({state.name}) is a kernel thread")
        if state.letter in "ZX":
            return NoMemory(f"process {self.pid} ({state.name}) has ended: it is a zombie")
        return Gone(f"process {self.pid} ended, or runs another program, while it was read")

    def reason(self, error: OSError) -> NotInspectable:
        """What an error of reading it means."""
        if error.errno in (errno.ESRCH, errno.ENOENT):
            return Gone(f"process {self.pid} is gone")
        if error.errno not in (errno.EACCES, errno.EPERM):
            why = _words.reason(error)
            return Forbidden(f"process {self.pid} cannot be read: {why}", why)
        state = self.state()
        if state.kernel_thread or state.letter in "ZX":
            return self._nothing_mapped()
        if os.geteuid() == 0:
            why = cause = "it has rights that this one has not (CAP_SYS_PTRACE is missing)"
        elif self.owner != os.geteuid():
            why = f"it belongs to user {self.owner}; root may read it"
            cause = "another user's; root may read it"
        else:
            cause = "more rights than its user, or made undumpable by itself; root may read it"
            why = f"it has {cause}"
        return Forbidden(f"process {self.pid} ({state.name}) cannot be read: {why}", cause)
