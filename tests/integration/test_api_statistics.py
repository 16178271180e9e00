"""What stats() returns: what it is, what its text looks like, and that it agrees with the kernel."""

from __future__ import annotations

import pytest

from support.common import run_silently
from support.extensions import BIG

pytestmark = pytest.mark.quick


def test_statistics_are_immutable_and_ready_for_json(python):
    code = """
        import copy, json, pickle, pyhugetext
        stats = pyhugetext.stats()
        for thing in (stats, stats.regions[0], stats.kernel):
            for name in thing._fields:
                try:
                    setattr(thing, name, None)
                except AttributeError:
                    continue
                raise AssertionError(name)
        assert type(stats.regions) is type(stats.problems) is tuple
        hash(stats)
        as_dict = stats.as_dict()
        assert json.loads(json.dumps(as_dict)) == as_dict
        assert list(as_dict) == list(stats._fields)
        as_dict["regions"].clear()
        assert stats.regions
        assert pickle.loads(pickle.dumps(stats)) == stats == copy.deepcopy(stats)
        assert isinstance(stats, pyhugetext.Stats) and isinstance(stats.kernel, pyhugetext.Kernel)
    """
    run_silently(python, code)


def test_text_of_statistics_is_an_aligned_table(python, compile_extension):
    module = compile_extension("a_rather_long_name_of_a_module", BIG)
    code = """
        import sys, pyhugetext
        sys.path.insert(0, sys.argv[1])
        import a_rather_long_name_of_a_module
        stats = pyhugetext.stats()
        print(stats)
        lines = str(stats).splitlines()
        assert lines[0] == "pyhugetext: active"
        header = next(i for i, line in enumerate(lines) if line.startswith("object "))
        total = next(i for i, line in enumerate(lines) if line.startswith("total "))
        assert total - header >= 3
        # Numbers end where the words above them end, texts begin where those begin.
        ends = [lines[header].index(w) + len(w) for w in ("KiB", "coverable", "mapped", "huge")]
        begins = [lines[header].index(word) for word in ("backing", "status")]
        for line in lines[header : total + 1]:
            assert all(line[at - 1] != " " and line[at] == " " for at in ends), line
            assert all(line[at - 2 : at] == "  " for at in begins if at < len(line)), line
            assert line[0] != " " and line[begins[0]] != " ", line
        numbers = lines[total].split()
        expected = [stats.text_bytes, stats.coverable_bytes, stats.mapped_bytes, stats.huge_bytes,
                    stats.private_bytes]
        assert numbers[1:6] == [f"{size // 1024:,}" for size in expected], numbers
        assert str(pyhugetext.restore()).startswith("pyhugetext: not active: put back")
    """
    result = python(code, str(module.parent))
    assert result.stderr == ""


SMAPS = """
import re, sys
import pyhugetext

def smaps():  # start, end, permissions, inode, path, {field: bytes}
    found = []
    for line in open("/proc/self/smaps"):
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\\S+) \\S+ \\S+ (\\d+) *(.*)", line)
        if head:
            start, end = (int(head[i], 16) for i in (1, 2))
            found.append((start, end, head[3], int(head[4]), head[5], {}))
        elif line.endswith(" kB\\n"):
            name, size = line.split(":")
            found[-1][5][name] = int(size.split()[0]) * 1024
    return found

HUGE = ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Private_Hugetlb", "Shared_Hugetlb")
"""


@pytest.mark.parametrize("backing", ["auto", "memfd", "thp"])
def test_statistics_agree_with_the_kernel_to_the_byte(python, compile_library, backing):
    library = compile_library(BIG)
    code = (
        SMAPS
        + """
import ctypes
library = ctypes.CDLL(sys.argv[1])
pyhugetext.remap(backing=sys.argv[2])  # loads what it needs itself
pyhugetext.restore()
before, off = smaps(), pyhugetext.stats()
text = sum(end - start for start, end, how, inode, *_ in before if "x" in how and inode)
assert off.text_bytes == text, (off.text_bytes, text)
stats = pyhugetext.remap(backing=sys.argv[2])
now = smaps()
assert (stats.text_bytes, stats.coverable_bytes) == (off.text_bytes, off.coverable_bytes)
huge = private = mapped = 0
for region in stats.regions:
    if not region.swapped_bytes:
        continue
    inside = [m for m in now if region.start <= m[0] and m[1] <= region.end]
    assert sum(m[1] - m[0] for m in inside) == region.end - region.start
    ours = [m for m in inside if "x" in m[2]]
    region_huge = sum(m[5].get(name, 0) for m in ours for name in HUGE)
    assert region.huge_bytes == region_huge, (region, region_huge)
    assert region.swapped_bytes == sum(m[1] - m[0] for m in ours)
    huge += region_huge
    if region.backing in ("memfd", "thp", "hugetlb"):  # elsewhere it is page cache
        private += sum(m[5][name] for m in ours for name in ("Private_Clean", "Private_Dirty"))
    # The text of the object before, as far as it lies in what was swapped.
    mapped += sum(
        max(0, min(end, m[1]) - max(start, m[0]))
        for start, end, how, inode, *_ in before if "x" in how and inode for m in ours
    )
assert (stats.huge_bytes, stats.mapped_bytes) == (huge, mapped), (stats, huge, mapped)
assert stats.private_bytes == private, (stats.private_bytes, private)
assert 0 <= stats.coverable_bytes - stats.mapped_bytes < 256 << 10  # as in test_startup.py
assert stats.mapped_bytes > 2 << 20
after = pyhugetext.restore()
assert (after.huge_bytes, after.private_bytes, after.mapped_bytes) == (0, 0, 0)
assert after.text_bytes == off.text_bytes
"""
    )
    run_silently(python, code, str(library), backing, env={"PYHUGETEXT": "0"})
