"""Caps and top pairs by a Gram matrix are those by a singular value decomposition."""

from __future__ import annotations

import cases
import pytest
import torch
from torch import Tensor

from modular_manifolds.linalg.gram_spectrum import MAX_RATIO, capped_by_gram, top_pair_by_gram

SHAPES = [(6, 3), (3, 6), (4, 4), (5, 1), (2, 3, 40, 9)]


def with_singular_values(shape: tuple[int, ...], top: float, dtype: torch.dtype) -> Tensor:
    """Singular values from `top` down to a tenth of it."""
    u, _, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    sigma = torch.linspace(1.0, 0.1, vh.shape[-2], dtype=torch.float64) * top
    return ((u * sigma) @ vh).to(dtype)


def expected(x: Tensor, radius: float, *, raised: bool) -> Tensor:
    u, sigma, vh = torch.linalg.svd(x.double(), full_matrices=False)
    sigma = sigma.clamp_max(radius)
    if raised:
        sigma[..., 0] = radius
    return (u * sigma.unsqueeze(-2)) @ vh


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("shape", SHAPES, ids=cases.name)
def test_a_cap_is_that_of_a_decomposition(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tolerance = 1e-12 if dtype is torch.float64 else 1e-6
    for ratio in (0.02, 0.9, 1.2, 2.0, MAX_RATIO - 0.1):
        for raised in (False, True):
            x = with_singular_values(shape, 0.3 * ratio, dtype)
            found = capped_by_gram(x, 0.3, raised=raised)
            assert found is not None
            assert found.dtype is dtype
            torch.testing.assert_close(
                found.double(), expected(x, 0.3, raised=raised), atol=0.3 * tolerance, rtol=0
            )


def test_what_is_inside_is_returned_bit_for_bit() -> None:
    """Next to a matrix that is capped, too."""
    x = torch.stack([with_singular_values((5, 3), top, torch.float32) for top in (0.7, 1.5, 0.99)])
    found = capped_by_gram(x, 1.0)
    assert found is not None
    assert torch.equal(found[::2], x[::2])
    assert not torch.equal(found[1], x[1])
    inside = 0.1 * x
    assert capped_by_gram(inside, 1.0) is inside


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e9, torch.nan, torch.inf, 1e200])
def test_what_a_gram_matrix_cannot_resolve_is_left_to_a_decomposition(value: float) -> None:
    x = torch.full((4, 3), value, dtype=torch.float64)
    assert capped_by_gram(x, 1.0, raised=True) is None
    if not value < 1:
        assert capped_by_gram(x, 1.0) is None
    assert capped_by_gram(x, 1e-200) is None
    if not 1e-100 < value < 1e100:
        assert top_pair_by_gram(x) is None


@pytest.mark.parametrize("shape", SHAPES, ids=cases.name)
def test_the_top_pair(shape: tuple[int, ...]) -> None:
    x = with_singular_values(shape, 1e-3, torch.float32)
    u, _, vh = torch.linalg.svd(x.double(), full_matrices=False)
    found = top_pair_by_gram(x)
    assert found is not None
    torch.testing.assert_close(found, u[..., :1] @ vh[..., :1, :], atol=1e-12, rtol=0)
