"""The plan of other tools, which the benchmarks compare with: private, and no more than they do."""

from __future__ import annotations

import json

from support.cli import make_library
from support.common import TESTS
from support.layouts import skip_unless_huge

CODE = """
    import ctypes, json, sys
    sys.path.insert(0, sys.argv[2])
    from support import child as h
    from pyhugetext import _native
    path, huge = sys.argv[1], 2 << 20
    library = ctypes.CDLL(path)
    request = h.request("memfd", path)

    def pages():
        [region] = [r for r in _native.snapshot()["regions"] if r["path"] == path]
        return [start for start, end, swapped, why in region["pages"] if swapped]

    def maps():
        return h.within(*h.span(path))

    before = maps()
    told = {"text": [line[:2] for line in before if line[2] == "r-xp"]}
    told["results"] = []
    for name, inward in (("inward", True), ("merged", False), ("again", True)):
        _native.remap(**request, inward=inward)
        told[name] = pages()
        told["results"].append(library.f_triple(7))
    told["default"] = _native.remap(**request) or pages()
    _native.restore()
    told["restored"] = maps() == before
    print(json.dumps(told))
"""


def test_inward_plan_takes_whole_pages_of_text_and_nothing_beside_them(python, compile_library):
    skip_unless_huge("memfd")
    library = make_library(compile_library)
    told = json.loads(python(CODE, str(library), str(TESTS)).stdout)
    huge = 2 << 20
    whole = [
        page
        for start, end in told["text"]
        for page in range(-(-start // huge) * huge, end // huge * huge, huge)
    ]
    assert whole
    assert told["inward"] == told["again"] == whole
    # The plan may change at any call; the product's is the default.
    assert told["default"] == told["merged"]
    assert set(whole) <= set(told["merged"])
    assert told["results"] == [21, 21, 21]
    assert told["restored"]
