"""The workloads of the suite, one a file: what Python programs do for a living.

Each module has TITLE, NEEDS (the distributions it is about) and prepare(), which imports them,
makes the data, and returns a function without arguments. A call of it is one iteration of 5 to
20 ms, does the same work each time, in one thread, and leaves nothing that the next one would see.
prepare() raises ImportError where something is not installed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

# In the order in which they are shown.
NAMES = (
    "torch_mlp",
    "pandas_groupby",
    "sklearn_forest",
    "arrow_compute",
    "sqlalchemy_orm",
    "django_templates",
    "sqlglot_parse",
    "interpreter_loop",
)

# Read by libraries when they are loaded: one thread, or the CPU time tells of their waiting.
THREADS = {
    name: "1"
    for name in (
        "ARROW_IO_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "RAYON_NUM_THREADS",
    )
}


def load(name: str) -> ModuleType:
    """The module of a workload."""
    return importlib.import_module(f"workloads.{name}")


def prepare(name: str) -> Callable[[], object]:
    """The iteration of a workload, for a process whose environment has THREADS. ImportError where
    it needs what is not installed."""
    missing = [key for key, value in THREADS.items() if os.environ.get(key) != value]
    if missing:
        raise RuntimeError(f"the environment lacks {missing[0]}={THREADS[missing[0]]}")
    iteration: Callable[[], object] = load(name).prepare()
    return iteration
