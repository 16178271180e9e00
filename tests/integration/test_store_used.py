"""How much of an object starts store: what is used, and the rest of those of which much is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from support.growing import FAR, bits, chunks_of, record_of, texts, use, verify
from support.store import Store
from support.users import namespace


def test_what_was_not_used_comes_in_later_starts_where_much_is(store: Store, far: Path) -> None:
    """A program uses other text when it works than when it is loaded."""
    much = ",".join(str(n) for n in range(0, FAR, 5))
    told = use(store, far, much, after="3,22")
    before = told["swapped_bytes"]
    for _ in range(4):
        told = use(store, far, much, after="3,22")
        assert told["swapped_bytes"] >= before
        before = told["swapped_bytes"]
    _, record = record_of(store, far)
    assert record.lacking == 0
    assert texts(far) <= bits(record.present)
    assert told["status"] == "huge"
    # And nothing is asked for again.
    before = store.fingerprint()
    use(store, far, much, after="3,22")
    assert store.fingerprint() == before


def test_of_what_is_hardly_used_no_more_than_that_is_stored(store: Store, far: Path) -> None:
    for _ in range(4):
        told = use(store, far, "3")
    _, record = record_of(store, far)
    assert record.lacking == 0
    assert chunks_of(far, 3) <= bits(record.present)
    assert len(bits(record.present) & texts(far)) < len(texts(far)) / 4
    assert told["status"] == "partial"
    before = store.fingerprint()
    use(store, far, "3")
    assert store.fingerprint() == before
    # What another program uses is added.
    use(store, far, "3,20")
    use(store, far, "3,20")
    _, record = record_of(store, far)
    assert chunks_of(far, 3, 20) <= bits(record.present)
    assert record.lacking == 0
    verify(store)


def test_entry_in_part_is_made_nowhere_else(store: Store, far: Path) -> None:
    """Where starts cannot add to it: a copy in shared memory would serve nobody."""
    with namespace() as space:
        here = space.store(store.root)
        for _ in range(2):
            use(here, far, "3")
        here.is_filled_by_warm_only()
        use(here, far, "3,20")
        # Nor is that tried at each start.
        assert record_of(here, far)[1].rests_until > time.time()
        before = here.fingerprint()
        use(here, far, "3,20")
        assert here.fingerprint() == before
        assert list(space.sees("/dev/shm").glob("pyhugetext-*/v1/objects/*/*")) == []


def adds_to_its_entry(store: Store, far: Path, code: str, *arguments: str) -> str:
    """Runs what uses more of a library than was stored, which has to come; what it printed."""
    for _ in range(2):
        use(store, far, "3")
    assert not chunks_of(far, 20) <= bits(record_of(store, far)[1].present)
    result = store.run(code, str(far), *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert chunks_of(far, 3, 20) <= bits(record_of(store, far)[1].present)
    return result.stdout


LATER = """
import ctypes, sys
import pyhugetext
library = ctypes.CDLL(sys.argv[1])
assert library.g3(7) == 24
pyhugetext.remap(backing="store")
assert library.g20(7) == 41
stats = pyhugetext.remap(backing="auto")
(region,) = (r for r in stats.regions if r.path == sys.argv[1])
print(region.backing)
"""


def test_rest_of_what_a_named_store_has_comes_from_there_too(store: Store, far: Path) -> None:
    assert adds_to_its_entry(store, far, LATER) == "store\n"


WORKS = """
import ctypes, importlib.util, os, sys, time
import pyhugetext
library = ctypes.CDLL(sys.argv[1])
assert library.g3(7) == 24
pyhugetext.remap()
descriptors = os.listdir("/proc/self/fd")
def work():  # it looks when the program has run twice as long, at one in sixteen imports or more
    until = 2.1 * time.process_time()
    while time.process_time() < until:
        pass
    spec = importlib.util.spec_from_file_location("small", sys.argv[2])
    for _ in range(16):
        importlib.util.module_from_spec(spec)
        assert os.listdir("/proc/self/fd") == descriptors
work()
assert library.g20(7) == 41
work()
work()  # it finds nothing more
"""


def test_what_is_used_after_a_while_is_added_at_a_later_import(
    store: Store, far: Path, compile_extension: Callable[..., Path]
) -> None:
    small = compile_extension("small", "int result(void) { return 1; }")
    assert adds_to_its_entry(store, far, WORKS, str(small)) == ""


FORKS = """
import ctypes, importlib.util, os, sys, time
import pyhugetext
library = ctypes.CDLL(sys.argv[1])
spec = importlib.util.spec_from_file_location("small", sys.argv[2])
assert library.g3(7) == 24
pyhugetext.remap()
def work(until):
    while time.process_time() < until:
        pass
    for _ in range(32):
        importlib.util.module_from_spec(spec)
work(2.1 * time.process_time())
work(2)  # it looks again when the program has run twice as long
pid = os.fork()
if not pid:
    assert library.g20(7) == 41
    work(0.1)  # of this process, which is new
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_forked_child_looks_for_itself_however_long_its_parent_ran(
    store: Store, far: Path, compile_extension: Callable[..., Path]
) -> None:
    small = compile_extension("small", "int result(void) { return 1; }")
    assert adds_to_its_entry(store, far, FORKS, str(small)) == ""
