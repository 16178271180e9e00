"""Does what `pyhugetext.pth` does, where a .pth file is not wanted or not read.

Put this file into a directory that comes early on PYTHONPATH, or into site-packages. Python
imports only the first `sitecustomize` it finds (see the `site` module), so this one loads the next
one on sys.path, if there is one, which then stands in sys.modules as if this file did not exist.
"""

try:
    from pyhugetext import _start as start
except BaseException:
    # Not installed, or broken: the program must not notice.
    pass
else:
    start()


TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


def _next_spec() -> "ModuleSpec | None":
    """The import system's description of the next sitecustomize, or None."""
    # Loaded already by site: where there is no other sitecustomize, nothing more is imported.
    import os
    import sys

    real = os.path.realpath
    here = real(os.path.dirname(__file__))
    places = [real(entry) for entry in sys.path]
    first = places.index(here) + 1 if here in places else 0
    rest = [entry for entry, place in zip(sys.path[first:], places[first:]) if place != here]
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec = find_spec("sitecustomize", rest) if find_spec else None  # type: ModuleSpec | None
        # A finder that does not look at the path may find this file again.
        if spec is not None and spec.loader and real(spec.origin or "") != real(__file__):
            return spec
    return None


try:
    _spec = _next_spec()
    if _spec is not None:
        from importlib.util import module_from_spec

        _module = module_from_spec(_spec)
except Exception:
    _spec = None

if _spec is not None:
    import sys

    # The import system hands out what it finds here after this module ran. What the next one
    # raises is site's to report, as it would without this file.
    sys.modules[__name__] = _module
    _spec.loader.exec_module(_module)  # type: ignore[union-attr]
