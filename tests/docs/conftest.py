"""A page may add rows to tables; other tests do not see them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import modular_manifolds as mm


@pytest.fixture
def table_kept() -> Iterator[None]:
    """A page may add a row to the table of solvers; the other tests must not see it."""
    before = set(mm.solvers.TABLE)
    yield
    for added in set(mm.solvers.TABLE) - before:
        del mm.solvers.TABLE[added]
