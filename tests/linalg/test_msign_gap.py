"""How steep Muon's direction is: bounded without singular values, for every spectrum."""

from __future__ import annotations

import dataclasses
import math

import cases
import pytest
import torch
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.matrices import normalise
from modular_manifolds.linalg.msign_gap import msign_gap
from modular_manifolds.solvers import NormSteepest
from modular_manifolds.solvers.solution import Status

SPECTRA = {
    "flat": torch.ones_like,
    "rank one": lambda i: (i == 0).double(),
    "rank eight": lambda i: (i < 8).double(),
    "one large": lambda i: torch.where(i == 0, 1.0, 1e-4),
    "one large, others where most is lost": lambda i: torch.where(i == 0, 1.0, 2.5e-4),
    "falling": lambda i: (1 + i) ** -2,
    "falling fast": lambda i: 10.0 ** (-i / 4),
    "none": torch.zeros_like,
}
"""Singular values by their number, the largest 1."""


def with_spectrum(kind: str, shape: tuple[int, int]) -> Tensor:
    u, _, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    return (u * SPECTRA[kind](torch.arange(min(shape), dtype=torch.float64))) @ vh


@pytest.mark.parametrize("norm", [mm.Spectral(), mm.RMSOperator()], ids=cases.name)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize(
    "shape", mostly_long([(7, 1), (160, 160), (12, 40), (300, 200)], usual=2), ids=cases.name
)
def test_no_gradient_breaks_the_gap_of_muon(
    shape: tuple[int, int], dtype: torch.dtype, norm: mm.Norm
) -> None:
    """It bounds the true shortfall for every spectrum and size, of a stack one by one, and exceeds it by little."""
    w = torch.zeros(shape, dtype=dtype)
    gradients = [with_spectrum(kind, shape) for kind in SPECTRA]
    for size in (1.0, 2.0**-100, 2.0**100):
        stack = size * torch.stack(gradients).to(dtype)
        found = mm.steepest(mm.Euclidean(), norm, w.expand_as(stack), stack)
        nuclear = norm.dual(stack.double() / size)
        descent = -(stack.double() / size * found.direction.double()).sum((1, 2))
        short = 1 - descent / nuclear.clamp_min(1e-300)
        assert bool((short[:-1] <= found.gap[:-1]).all()), (short, found.gap)
        assert bool((found.gap[:-1] <= short[:-1] + 0.065).all()), (short, found.gap)
        assert float(found.gap[-1]) == 0.0
        alone = mm.steepest(mm.Euclidean(), norm, w, stack[3])
        # Sums of mn terms in the dtype of the gradient, in another order.
        rounding = math.prod(shape) ** 0.5 * torch.finfo(dtype).eps
        torch.testing.assert_close(alone.gap, found.gap[3], atol=rounding, rtol=0)


@pytest.mark.parametrize("shape", [(150, 150), (150, 180)], ids=cases.name)
@pytest.mark.parametrize("rank", [1, 9])
def test_the_bound_is_sound_wherever_singular_values_are_lost(
    shape: tuple[int, int], rank: int
) -> None:
    """At an accuracy of 1e-6 nothing covers the part of the small ones: they alone are short, and are bounded."""
    shorts, gaps = [], []
    for small in torch.logspace(-7, -1, 25, dtype=torch.float64):
        i = torch.arange(min(shape))
        u, _, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
        sigma = torch.where(i < rank, 1.0, small)
        g = (u * sigma) @ vh
        a = mm.msign(g, accuracy=1e-6, floor=0.01)
        shorts.append(1 - float((g * a).sum() / sigma.sum()))
        gaps.append(float(msign_gap(g, -3 * a, accuracy=1e-6, floor=0.01, unit=3.0)))
    short, gap = torch.tensor(shorts), torch.tensor(gaps)
    assert bool((short <= gap + 1e-6).all()), (short, gap)
    if rank == 1:
        # Near where most is lost, and where nothing is, `‖A‖_F²` tells the rank.
        assert float(gap.max()) <= 1.05 * float(short.max()), (short, gap)
        assert float(gap[0]) <= 0.35 * float(gap.max()), (short, gap)


@dataclasses.dataclass(frozen=True)
class Rough(mm.Norm):
    """The Frobenius norm, with a direction that is short of it by a tenth."""

    source = "l2"
    target = "l2"
    accuracy = 0.1

    def _value(self, x: Tensor) -> Tensor:
        return torch.linalg.matrix_norm(x, keepdim=True)

    def _dual(self, x: Tensor) -> Tensor:
        return torch.linalg.matrix_norm(x, keepdim=True)

    def _steepest(self, g: Tensor) -> Tensor:
        return -0.9 * normalise(g, dim=(-2, -1))


def test_a_norm_of_unknown_approximation_is_held_to_its_dual() -> None:
    w, g = torch.zeros(3, 5, 4), torch.randn(3, 5, 4)
    for tolerance, status in ((0.05, Status.NOT_CERTIFIED), (0.11, Status.CONVERGED)):
        found = NormSteepest(tolerance).solve(mm.Euclidean(), Rough(), w, g, None)
        torch.testing.assert_close(found.gap, torch.full((3,), 0.1))
        assert found.status is status
