"""SETUP and STMT as `python -m timeit` takes them, made into something that runs n times."""

from __future__ import annotations

import ast
import itertools
import traceback
from collections.abc import Callable, Generator
from typing import Any

_FILE = "<pyhugetext bench>"


class BadStatement(Exception):
    """SETUP or STMT is no Python; the text is one sentence, `shown` the line and the caret."""

    def __init__(self, sentence: str, shown: str = "") -> None:
        super().__init__(sentence)
        self.shown = shown


class Raised(Exception):
    """SETUP or STMT raised; the text is one sentence."""


# The names of SETUP are locals of the loop, as in timeit; a generator keeps them between the slots.
_TEMPLATE = """
def _pyhugetext_bench():
    "SETUP"
    _pyhugetext_loops = yield
    while True:
        for _pyhugetext_loop in _pyhugetext_loops:
            "STMT"
        _pyhugetext_loops = yield
"""


class Statement:
    """BadStatement where either part cannot be compiled."""

    def __init__(self, setup: str, stmt: str) -> None:
        first, body = _parse("SETUP", setup), _parse("STMT", stmt)
        self._setup_lines = setup.count("\n") + 1
        for node in body.body:
            ast.increment_lineno(node, self._setup_lines)
        tree = ast.parse(_TEMPLATE)
        function = tree.body[0]
        assert isinstance(function, ast.FunctionDef)
        outer = function.body[2]
        assert isinstance(outer, ast.While)
        inner = outer.body[0]
        assert isinstance(inner, ast.For)
        inner.body = body.body or [ast.Pass()]
        function.body[:1] = first.body
        ast.fix_missing_locations(tree)
        try:
            self._code = compile(tree, _FILE, "exec")
        except SyntaxError as error:
            raise BadStatement(f"{self._place(error.lineno or 1)}: {error.msg}") from None

    def _place(self, line: int) -> str:
        if line <= self._setup_lines:
            return f"SETUP, line {line}"
        return f"STMT, line {line - self._setup_lines}"

    def set_up(self) -> Callable[[int], None]:
        """Runs SETUP; what comes back runs STMT so many times. Both raise Raised."""
        scope: dict[str, Any] = {"__name__": "__pyhugetext_bench__", "__builtins__": __builtins__}
        exec(self._code, scope)
        generator: Generator[None, Any, None] = scope["_pyhugetext_bench"]()
        resume = generator.send
        times = itertools.repeat

        def run(loops: int) -> None:
            try:
                resume(times(None, loops))
            except BaseException as error:  # it may exit, too
                raise Raised(self._tell(error)) from None

        try:
            next(generator)
        except BaseException as error:
            raise Raised(self._tell(error)) from None
        return run

    def _tell(self, error: BaseException) -> str:
        # A StopIteration cannot leave a generator and becomes the cause of a RuntimeError.
        cause = error.__cause__
        origin = cause if isinstance(cause, StopIteration) else error
        lines = [
            frame.lineno or 1
            for frame in traceback.extract_tb(origin.__traceback__)
            if frame.filename == _FILE
        ]
        place = self._place(lines[0]) if lines else "STMT"
        words = "".join(traceback.format_exception_only(type(error), error)).strip()
        return f"{place}: {words.splitlines()[-1] if words else type(error).__name__}"


def _parse(part: str, source: str) -> ast.Module:
    """The parsed part, which must stand on its own (no `return`, no `yield`)."""
    try:
        tree = ast.parse(source, _FILE)
        compile(source, _FILE, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise BadStatement(*_syntax(part, error)) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise BadStatement(f"{part} cannot be compiled: {error}") from None
    return tree


def _syntax(part: str, error: SyntaxError) -> tuple[str, str]:
    shown = ""
    if error.text is not None:
        # As the interpreter shows it, without its first line (the file) and its last (the error).
        lines = "".join(traceback.format_exception_only(type(error), error)).splitlines()
        shown = "\n".join(lines[1:-1])
    return f"{part}, line {error.lineno or 1}: {error.msg}", shown
