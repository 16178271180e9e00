"""Signals while an entry is built: whoever is to die dies at once, what a handler raises reaches the
program, no wait outlasts a signal, and the C library's own signals get through at any time."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from support.cli import need_for_others, need_root
from support.common import STRANGER
from support.host import Host, wait_until, writer_of

PATIENCE = 0.4  # seconds after which a child is most likely in the wait it is meant to reach
OWN_SIGNALS = 0b111 << 31  # 32, 33, 34: what C libraries send among their own threads


# --- the deadlock of a thread that builds and one that changes users ---

CHANGES_USER = """
import os, threading
group, user = {group}, {user}
thread = threading.Thread(target=__import__, args=("hostbig",))
thread.start()
changes = 0
while True:
    if {groups} and os.geteuid() == 0: os.setgroups([])
    os.setresgid(*[group if changes > {after} else -1] * 3)
    os.setresuid(*[user if changes > {after} else -1] * 3)
    changes += 1
    if changes > {after} + 1 and not thread.is_alive():
        break
import hostbig
print(hostbig.triple(14), os.getresuid() == (user,) * 3)
"""


def ten_at_once(hosts: list[Host], **values: int) -> None:
    """Ten cold starts, whose thread changes its users at another moment each."""
    for i, one in enumerate(hosts):
        one.start(CHANGES_USER.format(after=2 * i, **values))
    assert [one.finish(one.children[0]) for one in hosts] == [(0, "42 True\n", "")] * len(hosts)


@pytest.fixture
def hosts(host: Host) -> Iterator[list[Host]]:
    made = []
    for i in range(10):
        place = host.place / str(i)
        place.mkdir()
        made.append(Host(place))
    yield made
    for one in made:
        one.end()


def test_thread_that_sets_its_users_beside_one_that_imports(hosts: list[Host]) -> None:
    ten_at_once(hosts, group=os.getegid(), user=os.geteuid(), groups=False)


def test_thread_that_drops_roots_rights_beside_one_that_imports(hosts: list[Host]) -> None:
    need_root()
    need_for_others(hosts[0].modules)
    ten_at_once(hosts, group=STRANGER, user=STRANGER, groups=True)


# --- dying, and what handlers raise ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1])
def test_signal_that_kills_does_not_wait_until_an_entry_is_built(
    host: Host,
    number: signal.Signals,
) -> None:
    host.run("", env=host.environment())
    for _ in range(5):
        child = host.start("import hosthuge")
        wait_until(lambda: host.is_building() or child.poll() is not None)  # noqa: B023
        child.send_signal(number)
        assert host.finish(child) in ((-number, "", ""), (0, "", ""))
        if child.returncode and not host.has_record_of("hosthuge"):
            return
        host.clear()
        host.run("", env=host.environment())
    pytest.fail("it went on building until it was done, each time")


def test_killed_at_any_moment_by_a_signal_of_default_disposition(host: Host) -> None:
    chance = random.Random(9)
    for _ in range(20):
        child = host.start("import signal, hostbig; print('done', flush=True); signal.pause()")
        time.sleep(chance.uniform(0, 0.2))
        child.terminate()
        status, out, errors = host.finish(child)
        assert (status, errors) == (-signal.SIGTERM, "")
        assert out in ("", "done\n")
        if chance.random() < 0.3:
            host.clear()
    assert host.run("import hostbig", env=host.environment()) == (0, "", "")
    assert host.backing()[0] == "store"
    assert not host.is_building()


HANDLES = """
import signal, sys
class Mine({base}): pass
def handler(*_):
    raise Mine
signal.signal(signal.SIGTERM, handler)
try:
    print("ready", flush=True)
    import hostbig
    while True: signal.pause()
except Mine:
    print("caught", hasattr(sys.modules.get("hostbig"), "triple") in (True, False))
    sys.exit(7)
"""


def test_exception_of_a_signal_handler_reaches_the_program(host: Host) -> None:
    chance = random.Random(10)
    for i in range(20):
        child = host.start(HANDLES.format(base=("Exception", "BaseException", "SystemExit")[i % 3]))
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.05))
        child.terminate()
        assert host.finish(child) == (7, "caught True\n", "")
        host.clear()


def test_interrupt_during_a_start_ends_it(host: Host) -> None:
    """As it ends a start without the package: after it the program does not run."""
    chance = random.Random(11)
    for _ in range(20):
        child = host.start("import time; print('swallowed', flush=True); time.sleep(30)")
        time.sleep(chance.uniform(0, 0.08))
        child.send_signal(signal.SIGINT)
        status, _, errors = host.finish(child)
        # Python itself drops what is raised while a weak reference ends, and says so.
        assert status != 0 or "Exception ignored in" in errors
        assert status == -signal.SIGINT or "KeyboardInterrupt" in errors
        host.clear()


# --- waits for another builder ---

ALWAYS = {"PYHUGETEXT_BUILD": "always"}


@pytest.fixture
def waiting(host: Host) -> Host:
    """A store that has the interpreter's entry, and not the module's."""
    host.run("", env=host.environment())
    return host


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_that_kills_ends_a_wait_for_another_builder(
    waiting: Host, number: signal.Signals
) -> None:
    code = (
        f"import signal; signal.signal({number.value}, signal.SIG_DFL)\n"
        "print('ready', flush=True); import hostbig; signal.pause()"
    )
    with writer_of(waiting.store):
        child = waiting.start(code, env=waiting.environment(**ALWAYS))
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(PATIENCE)
        child.send_signal(number)
        assert waiting.finish(child) == (-number, "", "")


def test_exception_of_a_handler_ends_a_wait_for_another_builder(waiting: Host) -> None:
    with writer_of(waiting.store):
        for base in ("Exception", "KeyboardInterrupt"):
            child = waiting.start(HANDLES.format(base=base), env=waiting.environment(**ALWAYS))
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(PATIENCE)
            child.terminate()
            assert waiting.finish(child) == (7, "caught True\n", "")


def test_interrupt_ends_a_start_that_waits_for_another_builder(host: Host) -> None:
    with writer_of(host.store):
        child = host.start("print('swallowed')", env=host.environment(**ALWAYS))
        time.sleep(PATIENCE)
        child.send_signal(signal.SIGINT)
        status, out, errors = host.finish(child)
    assert status != 0
    assert out == ""
    assert status == -signal.SIGINT or "KeyboardInterrupt" in errors


STOPPED_CLOCKS = """
import signal, time
time.time = time.monotonic = time.perf_counter = lambda: 0
time.sleep = lambda _: None
import hostbig
print(hostbig.triple(14))
"""


def test_wait_for_another_builder_is_bounded_whatever_the_clocks_say(waiting: Host) -> None:
    with writer_of(waiting.store):
        children = [
            waiting.start(STOPPED_CLOCKS, env=waiting.environment(**settings))
            for settings in (ALWAYS, {})
        ]
        assert [waiting.finish(child) for child in children] == [(0, "42\n", "")] * 2
    assert not waiting.has_record_of("hostbig")


# --- masks ---


def blocked_masks(pid: int) -> dict[str, int]:
    """Which signals each thread of a process has blocked now; those that are gone, not."""
    out = {}
    task = f"/proc/{pid}/task"
    try:
        for thread in os.listdir(task):
            with open(f"{task}/{thread}/status", encoding="ascii", errors="replace") as file:
                (line,) = [line for line in file if line.startswith("SigBlk:")]
            out[thread] = int(line.split()[1], 16)
    except (OSError, ValueError):
        pass
    return out


def test_signals_are_not_blocked_while_an_entry_is_built(host: Host) -> None:
    host.run("", env=host.environment())
    # A signal that kills, and those of the C library, which at no moment are blocked.
    open_to_signals = []
    for _ in range(3):
        child = host.start("import hosthuge")
        while child.poll() is None:
            before = host.is_building()
            masks = blocked_masks(child.pid).values()
            assert not any(mask & OWN_SIGNALS for mask in masks)
            if before and host.is_building():
                open_to_signals += [not mask >> signal.SIGTERM - 1 & 1 for mask in masks]
        assert host.finish(child) == (0, "", "")
        host.clear()
    assert open_to_signals, "it was never seen to build"
    # The engine's own lock is held for moments.
    assert sum(open_to_signals) > len(open_to_signals) / 2


def test_no_call_blocks_the_signals_of_the_c_library(host: Host) -> None:
    def masks(**settings: str) -> set[str]:
        lines = host.traced("rt_sigprocmask", host.environment(**settings)).splitlines()
        return {line.split("(", 1)[1] for line in lines if "SIG_BLOCK" in line or "SETMASK" in line}

    def blocks(call: str) -> bool:
        _, _, rest = call.partition(", ")
        listed = rest.partition("[")[2].partition("]")[0].split()
        own = [name in listed for name in ("RTMIN", "RT_1", "RT_2")]
        return not all(own) if rest.startswith("~") else any(own)

    plain = masks(PYHUGETEXT="0")
    ours = masks()
    assert [call for call in ours - plain if blocks(call)] == []
    assert host.has_record_of("hostbig")


CHILDREN = """
import _thread, gc, os, subprocess, sys, threading
def own_mask():
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
        return [line.split()[1] for line in file if line.startswith("SigBlk")][0]

def childs_mask():
    command = ["grep", "SigBlk", "/proc/self/status"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.split()[1]

masks, started = set(), [0]
def look(*_):
    if not busy:
        busy.append(1)
        masks.add(own_mask())
        if started[0] < 5:
            started[0] += 1
            masks.add(childs_mask())
        busy.clear()
busy = []
own_mask(), childs_mask()
def trace(frame, *_):
    if frame.f_code.co_filename not in ("<string>", subprocess.__file__, threading.__file__):
        look()
thread = threading.Thread(target=__import__, args=("hosthuge",))
threading.setprofile(trace)
thread.start()
threading.setprofile(None)
while thread.is_alive():
    masks.add(childs_mask())
thread.join()
print(*masks)
"""


def test_children_started_while_an_entry_is_built_inherit_no_blocked_signals(
    host: Host,
) -> None:
    """By another thread, or by what the program has run in the one that imports."""
    plain = host.run(CHILDREN, env=host.environment(PYHUGETEXT="0"))
    assert (plain[0], plain[2]) == (0, "")
    assert host.run(CHILDREN, env=host.environment()) == plain
