"""Symmetric matrices are sent as one triangle, and come back bit for bit."""

from __future__ import annotations

import pytest
import torch

from modular_manifolds.linalg.rows import SharedRows, folded, unfolded


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_a_triangle_becomes_a_rectangle_and_back(batch: tuple[int, ...]) -> None:
    for n in range(1, 10):
        x = torch.randn(*batch, n, n)
        x = x + x.mT
        rectangle = folded(x)
        assert rectangle[(0,) * len(batch)].numel() == n * (n + 1) // 2
        assert torch.equal(unfolded(rectangle, n), x)


def test_products_are_sums_over_processes() -> None:
    """A second process with the same rows doubles them."""
    sent: list[int] = []

    def total(x: torch.Tensor) -> torch.Tensor:
        sent.append(x.numel())
        return 2 * x

    rows, a, b = SharedRows(total), torch.randn(3, 7, 4), torch.randn(3, 7, 4)
    torch.testing.assert_close(rows.cross(a, b), 2 * a.mT @ b)
    torch.testing.assert_close(rows.gram(a), 2 * a.mT @ a)
    product, square = rows.cross_and_square(a, b)
    torch.testing.assert_close(product, 2 * a.mT @ b)
    torch.testing.assert_close(square[..., 0, 0], 2 * b.square().sum(dim=(-2, -1)))
    torch.testing.assert_close(
        rows.largest_entry(a)[..., 0, 0], 2 * a.abs().amax((-2, -1)).double()
    )
    assert sent == [3 * 16, 3 * 10, 3 * 17, 3]
