"""The processor's counters of TLB misses, by perf_event_open(2): user space only, with threads and
children that are started later. Where a machine, its hypervisor or its administrator gives none,
the reason stands in place of a figure."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any, NamedTuple

from pyhugetext import _native, _words
from pyhugetext.measure import walks

# enum perf_type_id, perf_hw_id, perf_hw_cache_id in linux/perf_event.h.
_HARDWARE, _CACHE = 0, 3
_CYCLES, _INSTRUCTIONS = 0, 1
_DTLB, _ITLB = 3, 4
_READ_MISS = 0 << 8 | 1 << 16  # PERF_COUNT_HW_CACHE_OP_READ, PERF_COUNT_HW_CACHE_RESULT_MISS

_READ = struct.Struct("=QQQ")


class Event(NamedTuple):
    """What to count: the name in the output, type and config of perf_event_open(2)."""

    name: str
    type: int
    config: int


CYCLES = Event("cycles", _HARDWARE, _CYCLES)
ITLB_MISSES = Event("iTLB misses", _CACHE, _ITLB | _READ_MISS)


def refusal(event: Event) -> int:
    """The errno with which the kernel refuses to count an event; 0 where it counts."""
    try:
        os.close(_native.open_counter(event.type, event.config, commands=False))
    except OSError as error:
        return error.errno or 0
    return 0


def tlb_events() -> list[Event]:
    """What there is to know about the TLB on this kind of processor."""
    events = [
        ITLB_MISSES,
        Event("dTLB load misses", _CACHE, _DTLB | _READ_MISS),
        Event("instructions", _HARDWARE, _INSTRUCTIONS),
    ]
    # What page walks take has no generic name.
    of_text, of_loads = walk_event(), walks.load_walks()
    if of_text is not None:
        events.insert(1, of_text)
    if of_loads is not None:
        events.append(Event("dTLB load walk cycles", walks.RAW, of_loads.config))
    return events


def walk_event() -> Event | None:
    """The page walks for instructions on this processor, or their cycles."""
    found = walks.instruction_walks()
    if found is None:
        return None
    return Event("iTLB walk cycles" if found.cycles else "iTLB walks", walks.RAW, found.config)


class Unavailable(Exception):
    """An event that cannot be counted; the text says why."""


class Counter:
    """Counts an event in this thread and in threads and processes that it starts from now on.

    With `commands` it counts nothing here, but in the next child from its execve(2) on: in one
    only, because a child may take the event away with it (the kernel exchanges the contexts of
    parent and child when it switches between them). Unavailable where the kernel refuses.
    """

    def __init__(self, event: Event, *, commands: bool = False) -> None:
        self.event = event
        try:
            self._fd = _native.open_counter(event.type, event.config, commands=commands)
        except OSError as error:
            raise Unavailable(_why(error.errno or 0)) from None

    def read(self) -> tuple[int, int, int]:
        """Count so far, and nanoseconds that it was wanted and that it ran: with more events than
        the processor has counters the kernel takes turns."""
        count, enabled, running = _READ.unpack(os.read(self._fd, _READ.size))
        return count, enabled, running

    def close(self) -> None:
        os.close(self._fd)


def _why(number: int) -> str:
    name = _words.symbol(number)
    if number in (errno.EACCES, errno.EPERM):
        return f"{name} (kernel.perf_event_paranoid or a container's policy forbids it)"
    if number in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
        return f"{name} (this processor, or its hypervisor, gives no such counter)"
    if number == errno.ENOSYS:
        return f"{name} (the kernel or a sandbox has no perf_event_open)"
    return f"{name} ({os.strerror(number)})"


class Meters:
    """Events counted for both sides: begin() and end(side) around what is to be counted."""

    def __init__(self, events: list[Event], *, commands: bool = False) -> None:
        self.refused: dict[str, str] = {}
        self._commands = commands
        self._open: list[Counter] = []
        self._start(events)
        self._before: list[tuple[int, int, int]] = []
        self._sums = {
            (counter.event.name, side): [0, 0, 0]
            for counter in self._open
            for side in ("small", "huge")
        }
        self.slots = {"small": 0, "huge": 0}

    def _start(self, events: list[Event]) -> None:
        for event in events:
            try:
                self._open.append(Counter(event, commands=self._commands))
            except Unavailable as reason:
                self.refused[event.name] = str(reason)

    def begin(self) -> None:
        if self._commands:
            events = [counter.event for counter in self._open]
            self.close()
            self._start(events)
        self._before = [counter.read() for counter in self._open]

    def end(self, side: str) -> None:
        self.slots[side] += 1
        for counter, before in zip(self._open, self._before):
            total = self._sums[counter.event.name, side]
            for i, (now, then) in enumerate(zip(counter.read(), before)):
                total[i] += now - then

    def close(self) -> None:
        for counter in self._open:
            counter.close()
        self._open = []

    def as_dict(self, runs: int) -> dict[str, Any]:
        """By event {small, huge}: how many a run, or {unavailable: why}; `runs` are in a slot."""
        out: dict[str, Any] = {}
        for (name, side), (count, enabled, running) in self._sums.items():
            entry = out.setdefault(name, {})
            divisor = self.slots[side] * runs
            if divisor and running:
                entry[side] = count * (enabled / running) / divisor
            else:
                entry["unavailable"] = "the kernel never let it count"
        for name, reason in self.refused.items():
            out[name] = {"unavailable": reason}
        return out
