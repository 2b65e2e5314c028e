"""The ball's cap at the boundary: how long it can make a step."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, target
from hypothesis import strategies as st
from torch import Tensor

import modular_manifolds as mm


def stretched(ball: mm.SpectralBall, w: Tensor, a: Tensor, order: float | str) -> float:
    """The length of the step that was made over the length of the step that was asked for."""
    made = ball.retract(w, a) - w
    norm = torch.linalg.matrix_norm
    return float(norm(made, ord=order) / norm(a, ord=order))


ENTRIES = st.floats(-1, 1, allow_subnormal=False)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    radius=st.sampled_from([0.3, 1.0, 2.5]),
    size=st.sampled_from([1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3]),
    data=st.data(),
)
def test_the_cap_makes_a_step_at_most_twice_as_long(
    shape: tuple[int, int], radius: float, size: float, data: st.DataObject
) -> None:
    """In the spectral norm; in the Frobenius norm, where the projection moves no two points apart, not at all."""
    m, n = shape
    entries = st.lists(ENTRIES, min_size=m * n, max_size=m * n)
    ball = mm.SpectralBall(radius)
    w = ball.project(3 * radius * torch.tensor(data.draw(entries), dtype=torch.float64).view(m, n))
    a = torch.tensor(data.draw(entries), dtype=torch.float64).view(m, n)
    length = float(torch.linalg.matrix_norm(a, 2))
    if length < 1e-3:
        return
    a = a * (size * radius / length)
    ratio = stretched(ball, w, a, 2)
    target(ratio)
    # The rounding is that of the point, which may be a thousand times the step.
    assert ratio <= 2 + 1e-9
    assert stretched(ball, w, a, "fro") <= 1 + 1e-9


@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_the_cap_can_make_a_step_longer(radius: float) -> None:
    """`W = diag(1, 0)` and `A = η/√3 (1, √2; √2, −1)`: the entry that leads outside goes, 2/√3 is left for small η."""
    ball = mm.SpectralBall(radius)
    w = radius * torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    a = torch.tensor([[1.0, math.sqrt(2)], [math.sqrt(2), -1.0]], dtype=torch.float64)
    a = a / math.sqrt(3)
    assert float(torch.linalg.matrix_norm(a, 2)) == pytest.approx(1.0)
    for eta, longer in ((1e-4, 2 / math.sqrt(3) - 1e-3), (0.1, 1.05)):
        ratio = stretched(ball, w, eta * radius * a, 2)
        assert longer < ratio <= 2 / math.sqrt(3) + 1e-6
