"""The ground that all servers share: namespaces last as long as the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("support.huge_text", "support.servers", "support.watched")
from support.ground import Ground, ground  # noqa: E402


@pytest.fixture(scope="session")
def warm() -> Iterator[Ground]:
    """Where the system's store has all that servers load."""
    pytest.importorskip("numpy", reason="numpy is not installed")
    with ground() as made:
        made.warm()
        yield made


@pytest.fixture(scope="session")
def cold() -> Iterator[Ground]:
    """Where there is no store yet."""
    pytest.importorskip("numpy", reason="numpy is not installed")
    with ground() as made:
        yield made
