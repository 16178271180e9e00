"""scikit-learn: a small random forest, fitted and asked."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

TITLE = "scikit-learn forest"
NEEDS = ("scikit-learn", "numpy")


def prepare() -> Callable[[], object]:
    numpy: Any = import_module("numpy")
    ensemble: Any = import_module("sklearn.ensemble")
    random = numpy.random.default_rng(2)
    features = random.normal(size=(400, 12))
    labels = (features[:, 0] * features[:, 1] + features[:, 2] > 0).astype(int)
    asked = random.normal(size=(200, 12))

    def iteration() -> object:
        forest = ensemble.RandomForestClassifier(n_estimators=6, random_state=3, n_jobs=1)
        forest.fit(features, labels)
        return int(forest.predict(asked).sum())

    return iteration
