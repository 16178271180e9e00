"""What a build leaves in the process and on the machine: an entry in the store, and nothing else."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from support.host import Host

# Calls that change what they name, always or (the first three) depending on their flags.
OPENS = ("open", "openat", "openat2")
CHANGES = (
    "creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "unlink",
    "unlinkat", "rmdir", "link", "linkat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat",
    "fchmodat2", "chown", "lchown", "fchown", "fchownat", "truncate", "ftruncate", "utime",
    "utimes", "utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "mount", "acct",
    "chroot", "pivot_root", "swapon",
)  # fmt: skip
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "fallocate", "copy_file_range")


def changed_paths(log: str, cwd: Path) -> set[str]:
    """Every file that the calls of strace's log (-f -y) were to change, by its whole path."""
    found = set()
    for line in log.splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)$", line)
        if not match:
            continue
        call, rest = match.groups()
        if call in OPENS and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)", rest):
            continue
        # The part with the arguments: names in quotes, after the directory that they are below.
        directory = str(cwd)
        for place, name in re.findall(r'(?:\d+|AT_FDCWD)<([^>]*)>|"((?:[^"\\]|\\.)*)"', rest):
            if place:
                directory = place
                if call in WRITES or (call.startswith("f") and not call.endswith("at")):
                    found.add(place)
            elif call not in WRITES:
                found.add(str(Path(directory, name)))
    return found


@pytest.mark.parametrize("state", ["cold", "warm"])
@pytest.mark.parametrize("configured", [True, False], ids=["settings", "no settings"])
def test_no_file_outside_the_store_is_touched(host: Host, state: str, configured: bool) -> None:
    env = host.environment() if configured else host.default()
    calls = ",".join(f"?{name}" for name in (*OPENS, *CHANGES, *WRITES))

    def changed(**settings: str) -> set[str]:
        log = host.traced(calls, {**env, **settings}, "-y", "-s", "4096")
        return changed_paths(log, host.place)

    if state == "warm":
        assert host.run("import hostbig", env=env) == (0, "", "")
    plain = changed(PYHUGETEXT="0")
    ours = changed() - plain
    assert host.has_record_of("hostbig")
    assert ours or state == "warm"
    # The way to the store is made where there is none, and memory files have no name outside.
    allowed = {str(host.store), str(host.store.parent)}
    inside = (f"{host.store}/", "/memfd:")
    assert [path for path in ours if path not in allowed and not path.startswith(inside)] == []


LOADED = """
names = set(sys.modules)
import hostbig
print(*sorted(names | set(sys.modules)))
"""


def test_build_leaves_no_module_of_python_behind(host: Host) -> None:
    env = host.default()
    _, plain, _ = host.run(LOADED, env={**env, "PYHUGETEXT": "0"})
    for kind in ("cold", "warm"):
        status, loaded, errors = host.run(LOADED, env=env)
        assert (status, errors) == (0, "")
        assert set(loaded.split()) - set(plain.split()) == {"pyhugetext._boot"}, kind
    assert host.has_record_of("hostbig")


MEMORY = """
import hostbig
with open("/proc/self/status", encoding="ascii", errors="replace") as file:
    print(*[line.split()[1] for line in file if line.startswith(("RssAnon", "VmData"))])
"""


def test_build_leaves_no_memory_behind(host: Host) -> None:
    env = host.default()
    used: dict[str, list[list[int]]] = {"cold": [], "warm": []}
    for _ in range(5):
        host.clear()
        for kind in used:
            status, told, errors = host.run(MEMORY, env=env)
            assert (status, errors) == (0, "")
            used[kind].append([int(kilobytes) for kilobytes in told.split()])
        assert host.has_record_of("hostbig")
    for i, what in enumerate(("VmData", "RssAnon")):
        cold, warm = (statistics.median(run[i] for run in used[kind]) for kind in used)
        assert cold - warm < 300, f"{what}: {cold} kB after a build, {warm} kB without one"
