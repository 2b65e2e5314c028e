"""Gradients without a tangent part on the Stiefel manifold: no direction, however Γ is written down."""

from __future__ import annotations

import pytest
import torch

import modular_manifolds as mm

SHAPES = ((24, 24), (40, 24), (120, 20), (20, 120), (320, 40), (600, 130))
"""Γ decomposed or by polynomials, whole or in the columns of W and G, and by inverses."""

EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES)
EACH_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def point_and_normal(shape: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """A point, and a gradient that is normal to the manifold, of unit length."""
    rows, columns = max(shape), min(shape)
    w = torch.linalg.qr(torch.randn(rows, columns, dtype=dtype))[0]
    x = torch.randn(columns, columns, dtype=dtype)
    normal = w @ (x + x.mT)
    normal = normal / normal.norm()
    return (w, normal) if shape[0] >= shape[1] else (w.mT, normal.mT)


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
