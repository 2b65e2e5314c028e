"""A fixture for the way of an accelerator, taken on the host."""

from __future__ import annotations

import pytest

from modular_manifolds.optim import on_device, settings, whole


@pytest.fixture
def without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take the way of an accelerator. Solvers and retractions still decide on the host."""
    for module in (whole, on_device, settings):
        monkeypatch.setattr(module, "readable", lambda _: False)
