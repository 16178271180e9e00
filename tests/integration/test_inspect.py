"""Looking at another process: the figures are those that it gives itself."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyhugetext.process import inspect
from pyhugetext.process.cells import of as cells_of
from support.cli import (
    AS_STRANGER,
    in_namespace,
    make_library,
    need_for_others,
    need_root,
    need_tool,
    own_shared_memory,
    public_directory,
)
from support.common import HUGE, TESTS, Run
from support.inspecting import BY_NAME_IF_TOLD, assert_agreement, figures, region, running
from support.layouts import LINKERS, skip_unless_huge

LOAD = "import ctypes, sys; library = ctypes.CDLL(sys.argv[1])"


@pytest.mark.parametrize("backing", ["store", "shm", "memfd", "thp"])
def test_figures_are_the_process_s_own(library: Path, tmp_path: Path, backing: str) -> None:
    if backing in ("memfd", "thp"):
        skip_unless_huge(backing)
    env = {"PYHUGETEXT_BACKING": backing, "PYHUGETEXT_STORE": str(tmp_path / "store")}
    prefix = own_shared_memory() if backing == "shm" else ()
    with running(LOAD, str(library), prefix=prefix, **env) as target:
        own = assert_agreement(target, "import pyhugetext; pyhugetext.remap()")
        mine = region(own, library)
        if backing in ("store", "shm") and not mine["mapped_bytes"]:
            pytest.skip(f"no {backing} here: {mine['reason']}")
        assert mine["mapped_bytes"] == mine["coverable_bytes"] > HUGE
        assert mine["backing"] == backing
        # Untouched pages of a store come at their first use.
        assert_agreement(target, "library.f_triple(-12345 + 1)")
        restored = assert_agreement(target, "pyhugetext.restore()")
        assert restored["mapped_bytes"] == 0


def test_copy_that_was_removed_from_the_store(library: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    env = {"PYHUGETEXT_BACKING": "store", "PYHUGETEXT_STORE": str(store)}
    with running(LOAD, str(library), **env) as target:
        own = target.ask("import pyhugetext; pyhugetext.remap()")
        if not region(own, library)["mapped_bytes"]:
            pytest.skip(f"no store here: {region(own, library)['reason']}")
        shutil.rmtree(store)
        own = assert_agreement(target)
        assert region(own, library)["backing"] == "store"


def test_anonymous_memory_on_a_kernel_that_names_none(library: Path) -> None:
    skip_unless_huge("thp")
    env = {"PYHUGETEXT_BACKING": "thp", "PYHUGETEXT_INCLUDE": str(library)}
    unname = """
        import pyhugetext
        (region,) = [r for r in pyhugetext.remap().regions if r.swapped_bytes]
        size = ctypes.c_ulong(region.end - region.start)
        set_vma, anon_name = ctypes.c_ulong(0x53564D41), ctypes.c_ulong(0)
        arguments = set_vma, anon_name, ctypes.c_ulong(region.start), size, None
        ctypes.CDLL(None).prctl(*arguments)
    """
    with running(LOAD, str(library), PYHUGETEXT="0", **env) as target:
        own = assert_agreement(target, unname)
        maps = Path(f"/proc/{target.pid}/maps").read_text(errors="replace")
        assert "[anon:pyhugetext" not in maps
        assert region(own, library)["mapped_bytes"] > HUGE


def test_reserved_huge_pages(library: Path) -> None:
    need_root()
    free = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    if not free.exists() or int(free.read_text()) < 16:
        pytest.skip("no 16 huge pages are reserved here, and the test changes no setting")
    env = {"PYHUGETEXT_BACKING": "hugetlb"}
    with running(LOAD, str(library), **env) as target:
        own = assert_agreement(target, "import pyhugetext; pyhugetext.remap()")
        assert region(own, library)["backing"] == "hugetlb"


def test_original_file_in_huge_pages(library: Path, tmp_path: Path) -> None:
    # Written in one piece, a file lies in large folios on file systems that have them.
    copy = tmp_path / "libwhole.so"
    data = library.read_bytes()
    data += bytes(-len(data) % HUGE)
    fd = os.open(copy, os.O_CREAT | os.O_WRONLY, 0o755)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    env = {"PYHUGETEXT_BACKING": "file", "PYHUGETEXT_INCLUDE": str(copy)}
    with running(LOAD, str(copy), **env) as target:
        own = assert_agreement(target, "import pyhugetext; pyhugetext.remap()")
        if not region(own, copy)["mapped_bytes"]:
            pytest.skip(f"not on this kernel: {region(own, copy)['reason']}")
        assert region(own, copy)["backing"] == "file"


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("layout", ["separate-code", "noseparate-code"])
def test_layouts_of_linkers(compile_library, linker: str, layout: str) -> None:
    need_tool(f"ld.{linker}")
    skip_unless_huge("memfd")
    source = """
        int triple(int x) { if (x == -12345) __asm__ volatile(".skip 5000000, 0x90"); return 3 * x; }
        __attribute__((used)) int (*const table[30000])(int) = { triple, triple };
        static char big[3000000]; char *get(void) { return big; }
    """
    flags = (f"-fuse-ld={linker}", f"-Wl,-z,{layout}")
    try:
        library = compile_library(source, *flags, name="liblayout.so")
    except subprocess.CalledProcessError:
        pytest.skip(f"{linker} does not know -z {layout}")
    env = {"PYHUGETEXT_BACKING": "memfd", "PYHUGETEXT_INCLUDE": str(library)}
    with running(LOAD, str(library), PYHUGETEXT="0", **env) as target:
        before = assert_agreement(target)
        after = assert_agreement(target, "import pyhugetext; pyhugetext.remap()")
        assert region(after, library)["mapped_bytes"] > HUGE
        assert region(before, library)["text_bytes"] == region(after, library)["text_bytes"]


def test_page_that_was_left_as_it_is(library: Path) -> None:
    skip_unless_huge("thp")
    env = {"PYHUGETEXT_BACKING": "thp", "PYHUGETEXT_INCLUDE": str(library)}
    change = """
        # As a debugger changes it: the page becomes a private copy.
        at = ctypes.cast(library.f_triple, ctypes.c_void_p).value + 3 * 1024 * 1024
        page, libc = at // 4096 * 4096, ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(page), 4096, 7) == 0
        ctypes.memset(page, 0x90, 1)
        assert libc.mprotect(ctypes.c_void_p(page), 4096, 5) == 0
        import pyhugetext; pyhugetext.remap()
    """
    with running(LOAD, str(library), PYHUGETEXT="0", **env) as target:
        target.ask()
        own = assert_agreement(target, change)
        mine = region(own, library)
        assert 0 < mine["mapped_bytes"] < mine["coverable_bytes"]
        seen = region(inspect.inspect(target.pid).as_dict(), library)
        assert re.search("left as (it was|they were)", seen["reason"])


def test_memory_shared_with_a_child_is_not_private(library: Path) -> None:
    skip_unless_huge("memfd")
    env = {"PYHUGETEXT_BACKING": "memfd"}
    fork = """
        import os, signal, time
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    """
    with running(LOAD, str(library), **env) as target:
        alone = assert_agreement(target, "import pyhugetext; pyhugetext.remap()")
        shared = assert_agreement(target, fork)
        target.ask("os.kill(child, signal.SIGKILL); os.waitpid(child, 0)")
        assert shared["private_bytes"] < alone["private_bytes"] == alone["huge_bytes"]


def test_process_of_an_ordinary_user(compile_library, tmp_path: Path, python: Run) -> None:
    # Root opens what is mapped through map_files, others by its name.
    need_root()
    need_tool("setpriv")
    with public_directory() as directory:
        library = shutil.copy(make_library(compile_library), directory / "libf.so")
        need_for_others(library, os.path.realpath(sys.executable))
        skip_unless_huge("memfd")
        env = {"PYHUGETEXT_BACKING": "memfd"}
        code = "import sys, json; from pyhugetext.process import inspect\n"
        code += "print(json.dumps(inspect.inspect(int(sys.argv[1])).as_dict()))"
        with running(LOAD, str(library), prefix=AS_STRANGER, **env) as target:
            own = assert_agreement(target, "import pyhugetext; pyhugetext.remap()")
            told = python(code, str(target.pid), prefix=AS_STRANGER, env={"PYHUGETEXT": "0"})
            assert figures(json.loads(told.stdout)) == figures(own)
            assert region(own, library)["mapped_bytes"] > 0


CHANGES = {
    "deleted": "os.unlink(path)",
    "replaced": "os.rename(path + '.new', path)",
    "a directory": "os.unlink(path); os.mkdir(path)",
    "a FIFO": "os.unlink(path); os.mkfifo(path)",
    "a link out": "os.unlink(path); os.symlink('/dev/zero', path)",
    "a link to a FIFO": "os.unlink(path); os.mkfifo(path + '.f'); os.symlink(path + '.f', path)",
    "truncated": "os.unlink(path); open(path, 'w').write('\\x7fELF')",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("swapped", [False, True])
def test_file_that_is_not_the_mapped_one_any_more(
    library: Path, python: Run, change: str, swapped: bool
) -> None:
    skip_unless_huge("memfd")
    shutil.copy(library, f"{library}.new")
    env = {"PYHUGETEXT_BACKING": "memfd", "PYHUGETEXT_INCLUDE": str(library)}
    remap = "import pyhugetext; pyhugetext.remap()" if swapped else "import pyhugetext"
    code = (
        BY_NAME_IF_TOLD
        + """
        import json
        print(json.dumps(inspect.inspect(int(sys.argv[1])).as_dict()))
    """
    )
    with running(LOAD, str(library), PYHUGETEXT="0", **env) as target:
        own = target.ask(f"{remap}; import os; path = {str(library)!r}; {CHANGES[change]}")
        name = f"{library} (deleted)"
        off = {"PYHUGETEXT": "0"}
        by_name = json.loads(python(code, str(target.pid), "by name", env=off, timeout=20).stdout)
        seen = region(by_name, name)
        assert "deleted or replaced" in seen["reason"]
        # The text of the file alone where nothing was swapped; else with the data beside it.
        mine = next(r for r in own["regions"] if r["path"].startswith(str(library)))
        assert seen["text_bytes"] >= mine["text_bytes"]
        assert seen["swapped_bytes"] == mine["swapped_bytes"]
        assert seen["huge_bytes"] == mine["huge_bytes"]
        assert seen["backing"] == ("memfd" if swapped else "none")
        if os.geteuid() == 0:
            told = json.loads(python(code, str(target.pid), "", env=off, timeout=20).stdout)
            assert region(told, name)["coverable_bytes"] == mine["coverable_bytes"]
            assert region(told, name)["mapped_bytes"] == mine["mapped_bytes"]


def test_library_that_maps_its_own_text_once_more(library: Path) -> None:
    # As libffi does for its trampolines: between other libraries, where no second one would fit.
    load = """
        import ctypes, mmap, sys
        sys.path.insert(0, sys.argv[2])
        from support import child as h
        library = ctypes.CDLL(sys.argv[1])
        [offset] = [line[3] for line in h.maps() if line[5] == sys.argv[1] and "x" in line[2]]
        with open(sys.argv[1], "rb") as file:
            flags, protection = mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC
            again = mmap.mmap(file.fileno(), mmap.PAGESIZE, flags, protection, offset=offset)
    """
    with running(load, str(library), str(TESTS), PYHUGETEXT="0") as target:
        own = assert_agreement(target)
        again = [r for r in own["regions"] if r["path"] == str(library)]
        assert sorted(r["text_bytes"] for r in again)[0] == mmap.PAGESIZE
        assert len(again) == 2


def test_object_without_a_name(library: Path, python: Run) -> None:
    skip_unless_huge("memfd")
    load = """
        import ctypes, os, sys
        fd = os.memfd_create("odd")
        os.write(fd, open(sys.argv[1], "rb").read())
        library = ctypes.CDLL(f"/proc/self/fd/{fd}")
        os.close(fd)
    """
    with running(load, str(library), PYHUGETEXT="0") as target:
        own = target.ask()
        seen = inspect.inspect(target.pid).as_dict()
        mine, there = (region(stats, "/memfd:odd (deleted)") for stats in (own, seen))
        assert there["text_bytes"] == mine["text_bytes"]
        if os.geteuid() == 0:
            assert figures(seen) == figures(own)
        else:
            assert "has no name" in there["reason"]


def test_file_of_another_mount_namespace(library: Path) -> None:
    need_root()
    need_tool("unshare", "mount")
    place = library.parent / "hidden"
    place.mkdir()
    script = f"mount -t tmpfs none {place} && cp {library} {place}/libf.so"
    hidden = str(place / "libf.so")
    with running(LOAD, hidden, prefix=in_namespace(script), PYHUGETEXT="0") as target:
        assert not os.path.exists(hidden)
        own = assert_agreement(target)
        assert region(own, hidden)["text_bytes"] > 2 * HUGE


def test_names_that_are_hard_to_read(library: Path) -> None:
    names = ("lib\n.so", "lib\r.so", "lib \\012 .so ", "lib\x1b[31m.so", "lib\udcff.so", "é .so")
    paths = [str(library.parent / name) for name in names]
    for path in paths:
        shutil.copy(library, path)
    load = f"import ctypes; libraries = [ctypes.CDLL(path) for path in {paths!r}]"
    with running(load, PYHUGETEXT="0") as target:
        own = assert_agreement(target)
        told = [r["path"] for r in own["regions"]]
        assert [p for p in paths if p in told] == paths


def test_executable_mapping_of_a_file_that_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(bytes(3 * HUGE))
    code = f"""
        import mmap
        file = open({str(path)!r}, "rb")
        text = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    """
    with running(code, PYHUGETEXT="0") as target:
        own = assert_agreement(target)
        assert region(own, path)["text_bytes"] == 3 * HUGE


def test_program_that_is_not_python() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            time.sleep(0.1)
            stats = inspect.inspect(sleeper.pid)
            assert not stats.active
            assert stats.reason == "it does not run Python, and the preload library is not in it"
            assert any(r.path.endswith("/sleep") for r in stats.regions)
            assert stats.text_bytes == sum(r.text_bytes for r in stats.regions) > 0
        finally:
            sleeper.kill()


def test_cells_are_those_the_process_sees_itself(library: Path) -> None:
    skip_unless_huge("memfd")
    env = {"PYHUGETEXT_BACKING": "memfd", "PYHUGETEXT_INCLUDE": str(library)}
    with running(LOAD, str(library), PYHUGETEXT="0", **env) as target:
        stats = target.ask("import pyhugetext; pyhugetext.remap()")
        # Their own reading, handed over through a file: the answer is stats().
        file = library.parent / "cells"
        tell = "from pyhugetext.process.cells import of as cells_of; import json; "
        tell += f"json.dump(cells_of(None), open({str(file)!r}, 'w'))"
        target.ask(tell)
        own = [tuple(cell) for cell in json.loads(file.read_text())]
        cells = cells_of(target.pid)
        # Imported for the reading, small objects may have come since.
        assert {c for c in cells if c.path == str(library)} == {
            c for c in own if c[1] == str(library)
        }
        assert [c.address for c in cells] == sorted({c.address for c in cells})
        assert all(c.address % HUGE == 0 and 0 < c.text_bytes <= HUGE for c in cells)
        mine = region(stats, library)
        swapped = [c for c in cells if c.kind != "small"]
        assert sum(c.huge_bytes for c in swapped) == mine["huge_bytes"] > 0
        assert {c.path for c in swapped} == {str(library)}
        assert sum(c.text_bytes for c in cells) == inspect.inspect(target.pid).text_bytes
