"""Pairs whose solver or retraction still decides on the host. A pair that is ready is one line less here."""

from __future__ import annotations

import pytest
from weights import PAIRS

import modular_manifolds as mm

HOST_ONLY: set[tuple[type[mm.Manifold], type[mm.Norm]]] = set()

MARKED_PAIRS = [
    pytest.param(
        *pair,
        id=f"{pair[0].__name__}-{pair[1].__name__}",
        marks=[pytest.mark.xfail(reason="decides on the host", strict=True)]
        if pair in HOST_ONLY
        else [],
    )
    for pair in PAIRS
]
"""Every pair. Those that are not ready must fail, so that a mark that is out of date is noticed."""
