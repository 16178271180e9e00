"""While a thread builds: signals whose handlers raise, imports and calls of other threads."""

from __future__ import annotations

import textwrap

import pytest

from support.common import big_source
from support.extensions import BIG
from support.store import require_huge_disk

# In a child: a lock on its own store, as another process has it that builds. `wait_for_builder`
# returns once a thread of this one wants it, with BUILD=always; `let_go` gives it back.
LOCKED = """
import fcntl, os, struct, sys, threading, time
lock_path = os.path.join(os.environ["PYHUGETEXT_STORE"], "v1", "lock")
lock = os.open(lock_path, os.O_RDWR)
def set_lock(kind):
    whole = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, whole)
def let_go():
    set_lock(fcntl.F_UNLCK)
def wait_for_builder():
    for _ in range(6000):
        names = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                names.append(os.readlink("/proc/self/fd/" + fd))
            except OSError:
                pass
        if names.count(lock_path) > 1:
            return
        time.sleep(0.01)
    raise AssertionError("nobody builds")
set_lock(fcntl.F_WRLCK)
"""


@pytest.fixture
def always(python, tmp_path):
    """Settings for a store that has the interpreter's entry, and waits of any length."""
    require_huge_disk(tmp_path)
    env = {
        "PYHUGETEXT_BUILD": "always",
        "PYHUGETEXT_BACKING": "store",
        "PYHUGETEXT_STORE": str(tmp_path / "store"),
    }
    python("", env=env)
    return env


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "Timeout", "SystemExit"])
@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
def test_what_a_signal_handler_raises_reaches_the_program(
    python, compile_extension, always, raised, before
):
    # The signal comes while an entry of the library just imported is to be built, or of one that
    # was loaded before the import. It is not remembered as impossible.
    module = compile_extension("sampled", BIG)
    compile_extension("small", "int result(void) { return 1; }")
    code = f"""
        import ctypes, glob, signal
{textwrap.indent(LOCKED, " " * 8)}
        class Timeout(Exception): pass
        def handle(*_): raise dict(Timeout=Timeout, SystemExit=SystemExit,
                                   KeyboardInterrupt=KeyboardInterrupt)[sys.argv[2]]
        signal.signal(signal.SIGUSR1, handle)
        sys.path.insert(0, sys.argv[1])
        main = threading.main_thread().ident
        def interrupt():
            wait_for_builder()
            signal.pthread_kill(main, signal.SIGUSR1)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            if sys.argv[3] == "True":
                library = ctypes.CDLL(glob.glob(sys.argv[1] + "/sampled*.so")[0])
                import small
            else:
                import sampled
            print("imported")
        except BaseException as error:
            print(type(error).__name__)
        thread.join()
        let_go()
        import pyhugetext
        print(*[r.backing for r in pyhugetext.remap().regions if "sampled" in r.path])
    """
    arguments = (str(module.parent), raised, str(before))
    result = python(code, *arguments, env=always)
    assert (result.stdout, result.stderr) == (f"{raised}\nstore\n", "")


def test_what_is_found_while_an_entry_is_built(python, compile_extension, always):
    # An import of another thread finds a library of its own: whoever builds holds the store's
    # lock, for which it must not wait; and builds what was found meanwhile.
    modules = [compile_extension(name, BIG) for name in ("one", "two")]
    compile_extension("small", "int result(void) { return 1; }")
    code = f"""
        import ctypes
{textwrap.indent(LOCKED, " " * 8)}
        import pyhugetext
        sys.path[:0] = sys.argv[2:]
        libraries = []
        def meanwhile():
            wait_for_builder()
            libraries.append(ctypes.CDLL(sys.argv[1]))
            import small
            let_go()
        thread = threading.Thread(target=meanwhile)
        thread.start()
        import one
        assert len(libraries) == 1
        backings = [r.backing for r in pyhugetext.stats().regions
                    if "one." in r.path or "two." in r.path]
        assert backings == ["store", "store"], backings
    """
    places = [str(module.parent) for module in modules]
    result = python(code, str(modules[1]), *places, env=always, timeout=60)
    assert (result.stdout, result.stderr) == ("", "")


def test_remap_waits_for_what_another_thread_builds(python, compile_extension, always):
    module = compile_extension("one", BIG)
    code = f"""
{textwrap.indent(LOCKED, " " * 8)}
        import pyhugetext
        pyhugetext.stats()  # nothing is at its first import when another thread forks
        sys.path.insert(0, sys.argv[1])
        told, begun = [], threading.Event()
        def remap():
            begun.set()
            told.extend(pyhugetext.remap().regions)
        def meanwhile():
            wait_for_builder()
            thread.start()
            begun.wait()
            time.sleep(0.1)
            # A child made meanwhile builds for itself.
            child = os.fork()
            if child == 0:
                [region] = [r for r in pyhugetext.remap().regions if "one." in r.path]
                os._exit(region.status != "huge")
            let_go()
            status.append(os.waitpid(child, 0)[1])
        status, thread = [], threading.Thread(target=remap)
        other = threading.Thread(target=meanwhile)
        other.start()
        import one
        other.join()
        thread.join()
        [region] = [r for r in told if "one." in r.path]
        assert region.backing == "store", region
        assert status == [0], status
    """
    result = python(code, str(module.parent), env=always, flags=("-Wignore",), timeout=60)
    assert (result.stdout, result.stderr) == ("", "")


def test_threads_that_import_at_once(python, compile_extension):
    directory = ""
    for i in range(4):
        source = (
            big_source(160, tag=f"f{i}", padding=20000)
            + f"\nint result(void) {{ return f{i}_7(5); }}"
        )
        directory = str(compile_extension(f"late{i}", source).parent)
    code = """
        import importlib, sys, threading
        sys.path.insert(0, sys.argv[1])
        barrier, results = threading.Barrier(4), []
        def work(i):
            barrier.wait()
            results.append(importlib.import_module(f"late{i}").result())
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        import pyhugetext
        late = [r for r in pyhugetext.stats().regions if "/late" in r.path and r.coverable_bytes]
        assert len(late) == 4, late
        print(results, {r.status for r in late})
    """
    for _ in range(3):
        result = python(code, directory)
        assert (result.stdout, result.stderr) == ("[22, 22, 22, 22] {'huge'}\n", "")
