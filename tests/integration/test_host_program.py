"""What the program has replaced, forbidden or put in the way is nothing to us: an import on a store
without the module's entry is as one without the package, and the entry is made all the same."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from support.host import Host

# Runs what argv names of HOSTILE, imports the module, puts everything back, and tells what it
# computed and which of the program's own functions were called meanwhile.
PROGRAM = """
import _thread, builtins, codecs, gc, io, locale, os, posix, posixpath, signal, time, warnings

precious, victims = sys.argv[1], sys.argv[2].split(",")
called, patches = [], []
os_open, os_write, real = os.open, os.write, {}

def record(name, answer):
    def function(*arguments, **keywords):
        called.append(name)
        result = answer(*arguments, **keywords) if callable(answer) else answer
        if isinstance(result, BaseException):
            raise result
        return result
    return function

def replace(place, name, answer):
    if hasattr(place, name):
        patches.append((place, name, getattr(place, name)))
        setattr(place, name, record(f"{place.__name__}.{name}", answer))

modules = dict(sys.modules)
{victims}
for victim in victims:
    hostile[victim]()
import hostbig
answer = hostbig.triple(14)
sys.settrace(None)
sys.setprofile(None)
signal.setitimer(signal.ITIMER_REAL, 0)
for place, name, value in reversed(patches):
    setattr(place, name, value)
sys.modules.update(modules)
os.environ = environ
print(answer, sorted(set(called)))
"""

# Each turns something of the program's against whoever relies on it. What importing calls itself
# is passed through, and is called as often without the package.
HOSTILE = """
environ = os.environ
FUNCTIONS = [
    "access", "chdir", "chmod", "close", "fchmod", "fdatasync", "fstat", "fstatvfs", "fsync",
    "ftruncate", "getcwd", "geteuid", "getpid", "getuid", "link", "lseek", "lstat", "makedirs",
    "mkdir", "open", "posix_fadvise", "posix_fallocate", "pread", "pwrite", "read", "readlink",
    "remove", "removedirs", "rename", "replace", "rmdir", "scandir", "listdir", "stat", "statvfs",
    "symlink", "sysconf", "truncate", "umask", "uname", "unlink", "utime", "walk", "write",
    "fsencode", "fsdecode", "strerror", "getenv",
]

def all_functions(answer):
    for name in FUNCTIONS:
        replace(os, name, answer)

def of(place, *names, answer):
    return lambda: [replace(place, name, answer) for name in names] and None

class Entry:
    name, path = "m.csv", precious
    is_dir = is_file = is_symlink = lambda self, **_: False

class Scan(list):
    __enter__ = lambda self: self
    __exit__ = close = lambda self, *_: None

def garbage_modules():
    for name in NAMES:
        if name not in ("sys", "builtins", "threading"):
            sys.modules[name] = object()
    for name in ("", "._after", "._settings", "._debug", ".store", ".store.build"):
        sys.modules["pyhugetext" + name] = object()

def no_modules():
    for name in NAMES:
        if name not in ("sys", "builtins", "threading"):
            sys.modules[name] = None
    sys.modules["pyhugetext"] = None

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        called.append("find " + name)

class Environ(dict):
    def get(self, *_):
        raise RuntimeError("the program's environ")
    __getitem__ = __iter__ = __contains__ = copy = items = get

def set_environ():
    os.environ = Environ()

def clear_environ():
    os.environ.clear()

def pass_through(place, *names):
    for name in names:
        if hasattr(place, name):
            patches.append((place, name, getattr(place, name)))
            setattr(place, name, record("through " + name, getattr(place, name)))

def trace(frame, event, argument):
    called.append("trace " + frame.f_code.co_filename.rpartition("/")[2])

def audit(event, arguments):
    if listening:
        called.append("audit " + event)
        if event in ("os.listdir", "os.scandir", "os.remove", "os.rename", "resource.setrlimit"):
            raise PermissionError(event)

listening = False
def listen():
    global listening
    sys.addaudithook(audit)
    listening = True
    patches.append((sys.modules["__main__"], "listening", False))

class Stream:
    encoding, errors = "ascii", "strict"
    def write(self, text):
        called.append("write " + text)
    def flush(self):
        pass

def streams():
    patches.extend([(sys, "stderr", sys.stderr), (sys, "stdout", sys.stdout)])
    sys.stderr = sys.stdout = Stream()

def hooks():
    for name in ("excepthook", "unraisablehook", "displayhook", "breakpointhook"):
        replace(sys, name, None)

def warn():
    warnings.resetwarnings()
    warnings.simplefilter("error")
    replace(warnings, "warn", RuntimeError("warned"))

def no_directory():
    posix.mkdir("gone")
    posix.chdir("gone")
    posix.rmdir("../gone")

def umask():
    posix.umask(0o777)

def path():
    sys.path[:] = [sys.path[0], 5, None, object(), b"/", precious, "/nonexistent"]

def alarm():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

def handlers():
    for number in range(1, 65):
        try:
            signal.signal(number, record(f"signal {number}", None))
        except (OSError, ValueError):
            pass

def collect():
    gc.callbacks.append(lambda *_: called.append("gc"))
    gc.collect = record("gc.collect", None)

def set_locale():
    try:
        locale.setlocale(locale.LC_ALL, "C")
    except locale.Error:
        pass
    replace(codecs, "lookup", LookupError("codec"))
    replace(locale, "getpreferredencoding", "rot13")
    replace(sys, "getfilesystemencoding", "rot13")

READ_WRITE = os.O_RDWR
hostile = {
    "listdir": of(os, "listdir", answer=lambda *_: [precious, "m.csv"]),
    "scandir": of(os, "scandir", answer=lambda *_: Scan([Entry()])),
    "walk": of(os, "walk", answer=lambda *_: [("/", [], [precious])]),
    "remove": of(os, "unlink", "remove", "rmdir", "removedirs", answer=None),
    "rename": of(os, "rename", "replace", "link", "symlink", answer=None),
    "open": of(builtins, "open", answer=lambda *_, **__: io.StringIO("m.csv")),
    "io.open": of(io, "open", "open_code", answer=OSError(5, "open")),
    "os.open": of(os, "open", answer=lambda *_, **__: os_open(precious, READ_WRITE)),
    "os.write": of(os, "write", "pwrite", answer=lambda fd, data, *_: os_write(fd, b"")),
    "stat": of(os, "stat", "lstat", "fstat", answer=lambda *_, **__: real["stat"]),
    "statvfs": of(os, "statvfs", "fstatvfs", answer=OSError(5, "statvfs")),
    "mkdir": of(os, "mkdir", "makedirs", answer=FileExistsError(17, "mkdir")),
    "mode": of(os, "chmod", "fchmod", "umask", "utime", answer=PermissionError(1, "mode")),
    "fork": of(os, "register_at_fork", "getpid", "geteuid", "getuid", answer=7),
    "os.path": lambda: [replace(posixpath, name, "/") for name in (
        "join", "isdir", "isfile", "islink", "exists", "lexists", "realpath", "abspath",
        "dirname", "basename", "normpath", "split")] and None,
    "every call raises": lambda: all_functions(RuntimeError("the program's own")),
    "every call does nothing": lambda: all_functions(None),
    "every call exits": lambda: all_functions(SystemExit(3)),
    "clocks stand": of(time, "monotonic", "time", "perf_counter", "time_ns", answer=0),
    "clocks run back": lambda: [replace(time, name, lambda: -len(called)) for name in (
        "monotonic", "time", "perf_counter")] and None,
    "sleep": of(time, "sleep", answer=KeyboardInterrupt()),
    "locks": of(_thread, "RLock", answer=RuntimeError("locks")),
    "modules of another kind": garbage_modules,
    "no modules": no_modules,
    "finder": lambda: sys.meta_path.insert(0, Finder),
    "import": lambda: pass_through(builtins, "__import__"),
    "builtins": lambda: pass_through(builtins, "len", "sorted", "min", "max", "sum", "any",
        "all", "repr", "id", "iter", "next", "hash", "ord", "chr", "getattr", "hasattr"),
    "environ": set_environ,
    "no environ": clear_environ,
    "path": path,
    "warnings": warn,
    "trace": lambda: sys.settrace(trace),
    "profile": lambda: sys.setprofile(trace),
    "audit": listen,
    "streams": streams,
    "hooks": hooks,
    "collector": collect,
    "handlers": handlers,
    "alarm": alarm,
    "locale": set_locale,
    "working directory": no_directory,
    "umask": umask,
}
real["stat"] = os.stat(precious)
"""
VICTIMS = [line.split('"')[1] for line in HOSTILE.splitlines() if line.startswith('    "') and
           '": ' in line]  # fmt: skip


def package_files() -> list[Path]:
    spec = importlib.util.find_spec("pyhugetext")
    assert spec is not None
    assert spec.origin is not None
    return sorted(Path(spec.origin).parent.rglob("*.py"))


def imported_names() -> list[str]:
    """Every module outside the package that some part of it imports."""
    names = set()
    for path in package_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    # And what was imported once, or is where such a program may come to need it.
    names |= {"_signal", "binascii", "bisect", "collections", "contextlib", "dataclasses", "enum",
              "errno", "fcntl", "json", "mmap", "re", "resource", "stat", "struct", "time",
              "typing", "ctypes", "functools", "warnings"}  # fmt: skip
    return sorted(names - {"pyhugetext"})


def run_hostile(host: Host, victims: list[str], **settings: str) -> tuple[int, str, str]:
    # The file for which the first version of the store would have looked.
    precious = host.place / "precious/a.txt"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("not ours")
    names = f"NAMES = {imported_names()!r}\n"
    code = PROGRAM.replace("{victims}", names + HOSTILE)
    env = host.environment(**settings)
    result = host.run(code, str(precious), ",".join(victims), env=env, cwd=host.place)
    assert precious.read_text() == "not ours"
    return result


# What an import itself makes use of.
CALLED = {"audit", "builtins", "collector", "finder", "import", "profile", "trace"}


@pytest.mark.parametrize("victim", VICTIMS)
def test_program_that_replaces_what_others_rely_on(host: Host, victim: str) -> None:
    plain = (0, "42 []\n", "")
    if victim in CALLED:
        plain = run_hostile(host, [victim], PYHUGETEXT="0")
        assert (plain[0], plain[1][:3], plain[2]) == (0, "42 ", "")
    assert run_hostile(host, [victim]) == plain
    # While signals keep coming a store may be left alone.
    assert host.has_record_of("hostbig") or victim == "alarm"


def test_program_that_replaces_all_of_it(host: Host) -> None:
    victims = [name for name in VICTIMS if name != "alarm"]
    plain = run_hostile(host, victims, PYHUGETEXT="0")
    assert (plain[0], plain[1][:3], plain[2]) == (0, "42 ", "")
    before = host.files()
    assert run_hostile(host, victims) == plain
    assert host.files() == before
    backing, reasons = host.backing()
    assert backing == "store", reasons


@pytest.mark.parametrize("configured", [True, False], ids=["settings", "no settings"])
def test_modules_beside_the_program_are_not_ours_to_import(
    host: Host,
    configured: bool,
) -> None:
    env = host.environment() if configured else host.default()
    theirs, log = host.place / "theirs", host.place / "log"
    theirs.mkdir()
    log.touch()
    # What a plain interpreter has at its start it finds there itself.
    _, loaded, _ = host.run("print(*sys.modules)", env={**env, "PYHUGETEXT": "0"})
    names = [name for name in imported_names() if name not in loaded.split()]
    assert {"resource", "mmap", "fcntl"} <= set(names)
    for name in names:
        (theirs / f"{name}.py").write_text(
            f"with open({str(log)!r}, 'a', encoding='ascii') as file:\n"
            f"    file.write({name + ' '!r})\n"
            "raise SystemExit(3)\n"
        )
    env = {**env, "PYTHONPATH": str(theirs)}
    code = "import hostbig; print(hostbig.triple(14), [n for n in sys.modules if n in {}])".format(
        repr([*names, "pyhugetext.store"])
    )
    plain = host.run(code, env={**env, "PYHUGETEXT": "0"})
    assert plain == (0, "42 []\n", "")
    for _ in ("cold", "warm"):
        assert host.run(code, env=env) == plain, log.read_text()
        assert log.read_text() == ""
    assert host.backing(env={**env, "PYTHONPATH": ""})[0] == "store"
