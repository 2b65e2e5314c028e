"""Gradients without a tangent part: no direction, however Γ is written down, and wherever numbers can be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import modular_manifolds as mm
from modular_manifolds.linalg import fixed_gram
from modular_manifolds.solvers import Solution
from modular_manifolds.solvers.skew_sign import SkewSign

SHAPES = ((24, 24), (40, 24), (120, 20), (20, 120), (320, 40), (600, 130))
"""Γ decomposed or by polynomials, whole or in the columns of W and G, and by inverses."""

Solve = Callable[[mm.Manifold, torch.Tensor, torch.Tensor], Solution]

EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES)
EACH_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])

DEVICE_SHAPES = ((24, 24), (3, 24, 40), (3, 120, 20), (20, 120), (320, 40))
"""Γ whole or in the columns of W and G."""

EACH_TURN = pytest.mark.parametrize("manifold", [mm.Stiefel(), mm.FixedGram(radius=1.5)], ids=str)
EACH_DEVICE_SHAPE = pytest.mark.parametrize("shape", DEVICE_SHAPES)


def point_and_normal(
    shape: tuple[int, ...], dtype: torch.dtype, manifold: mm.Manifold | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A point, and a gradient that is normal to the manifold, of unit length."""
    rows, columns = max(shape[-2:]), min(shape[-2:])
    w = (manifold or mm.Stiefel()).random((*shape[:-2], rows, columns), dtype=dtype)
    x = torch.randn(*shape[:-2], columns, columns, dtype=dtype)
    normal = w @ (x + x.mT)
    normal = normal / torch.linalg.matrix_norm(normal, keepdim=True)
    return (w, normal) if shape[-2] >= shape[-1] else (w.mT, normal.mT)


@EACH_SHAPE
@EACH_DTYPE
@pytest.mark.parametrize("normal", [False, True])
def test_zero_and_normal_gradients_have_no_direction_and_no_gap(
    shape: tuple[int, int], dtype: torch.dtype, normal: bool
) -> None:
    """Scaled to unit length, the rounding of a projection would be a full step in a random direction."""
    w, g = point_and_normal(shape, dtype)
    found = mm.steepest(mm.Stiefel(), mm.Spectral(), w, g if normal else torch.zeros_like(w))
    assert float(found.gap) == 0
    assert not found.direction.any()


@EACH_SHAPE
def test_a_small_tangent_part_is_a_direction(shape: tuple[int, int]) -> None:
    """A thousandth of the gradient is far above the rounding of float32."""
    w, normal = point_and_normal(shape, torch.float32)
    tangent = mm.Stiefel().tangent(w, torch.randn(shape))
    g = normal + 1e-3 * tangent / tangent.norm()
    found = mm.steepest(mm.Stiefel(), mm.Spectral(), w, g)
    assert float(found.gap) <= 2e-2
    assert float((found.direction * g).sum()) < 0
    assert float(torch.linalg.matrix_norm(found.direction, 2)) == pytest.approx(1, abs=1e-2)


@pytest.fixture
def solved_on_device(monkeypatch: pytest.MonkeyPatch) -> Solve:
    """A solve by the plan of an accelerator, which reads no number and has no second attempt."""
    monkeypatch.setattr(fixed_gram, "readable", lambda _: False)

    def solve(manifold: mm.Manifold, w: torch.Tensor, g: torch.Tensor) -> Solution:
        plan = SkewSign().plan(manifold, mm.Spectral(), tuple(w.shape), w.dtype, "cuda")
        return plan.solve(w, g)

    return solve


@EACH_TURN
@EACH_DEVICE_SHAPE
@EACH_DTYPE
def test_an_accelerator_finds_no_direction_either(
    shape: tuple[int, ...], dtype: torch.dtype, manifold: mm.Manifold, solved_on_device: Solve
) -> None:
    """One matrix of a stack has a tangent part, and only that one has a direction."""
    w, g = point_and_normal(shape, dtype, manifold)
    if len(shape) > 2:
        g[1] = torch.randn(shape[1:], dtype=dtype)
    found = solved_on_device(manifold, w, g)
    lengths = torch.linalg.matrix_norm(found.direction, 2).flatten()
    expected = [index == 1 for index in range(lengths.numel())]
    assert (lengths > 0.9).tolist() == expected
    assert (lengths != 0).tolist() == expected
    assert (found.gap.flatten() != 0).tolist() == expected


@EACH_TURN
@EACH_DEVICE_SHAPE
def test_a_small_tangent_part_is_a_direction_on_an_accelerator(
    shape: tuple[int, ...], manifold: mm.Manifold, solved_on_device: Solve
) -> None:
    """A thousandth of the gradient is far above the rounding of float32."""
    w, normal = point_and_normal(shape, torch.float32, manifold)
    tangent = manifold.tangent(w, torch.randn(shape))
    g = normal + 1e-3 * tangent / torch.linalg.matrix_norm(tangent, keepdim=True)
    found = solved_on_device(manifold, w, g)
    assert bool(((found.direction * g).sum(dim=(-2, -1)) < 0).all())
    lengths = torch.linalg.matrix_norm(found.direction, 2)
    assert bool((lengths > 0.9).all())
