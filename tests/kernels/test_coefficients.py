"""The four polynomials: the best of their degrees, and closer to 1 than the five steps of `torch.optim.Muon`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from kernel_cases import msign
from long_tests import mostly_long
from modular_manifolds_kernels import FOUR_STEPS, POLAR_EXPRESS
from modular_manifolds_kernels.coefficients import Polynomial
from modular_manifolds_kernels.machine import Machine
from torch import Tensor


def worst(polynomials: Sequence[Polynomial], floor: float) -> float:
    """The largest `|p(σ) − 1|` for σ in [floor, 1], p all the polynomials one after another."""
    values = torch.logspace(0, 1, 20_001, base=floor, dtype=torch.float64)
    for a, b, c in polynomials:
        values = values * (a + values.square() * (b + c * values.square()))
    return float((values - 1).abs().max())


def of_torch() -> tuple[Polynomial, ...]:
    """The polynomials of `torch.optim.Muon` with its default settings, asked of torch."""
    weight = torch.nn.Parameter(torch.empty(1, 1, device="meta"))
    defaults = torch.optim.Muon([weight]).defaults
    a, b, c = defaults["ns_coefficients"]
    return ((a, b, c),) * defaults["ns_steps"]


def test_four_steps_are_at_least_as_accurate_as_torchs_five_from_a_four_hundredth_on() -> None:
    for floor in (1 / 400, 1 / 100, 1 / 10, 1 / 2):
        assert worst(FOUR_STEPS, floor) <= worst(of_torch(), floor)
    # And not for smaller ones: less is kept of them.
    assert worst(FOUR_STEPS, 1e-3) > worst(of_torch(), 1e-3)


def test_five_steps_are_more_accurate_than_torchs_five_from_a_thousandth_on() -> None:
    for floor in (1 / 1000, 1 / 100, 1 / 10, 1 / 2):
        assert worst(POLAR_EXPRESS[:5], floor) <= 0.5 * worst(of_torch(), floor)


def test_the_four_polynomials_are_the_best_one_after_another() -> None:
    """Each, before it is shrunk, errs by as much at four points in turn: no other of degree five errs less."""
    low, high = 1 / 400, 1.0
    for step, (a, b, c) in enumerate(FOUR_STEPS):
        shrink = 1.01 if step < 3 else 1.0
        a, b, c = a * shrink, b * shrink**3, c * shrink**5
        x = torch.linspace(low, high, 200_001, dtype=torch.float64)
        error = a * x + b * x**3 + c * x**5 - 1
        turns = 1 + torch.nonzero((error[2:] - error[1:-1]) * (error[1:-1] - error[:-2]) < 0)
        extremes = error[torch.tensor([0, *turns.flatten().tolist(), len(x) - 1])]
        assert len(extremes) == 4
        size = error.abs().max()
        signs = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
        torch.testing.assert_close(extremes, signs * size, rtol=1e-5, atol=1e-9)
        low, high = float(1 - size), float(1 + size)


def conditioned(n: int, k: int, condition: float) -> Tensor:
    """A matrix whose singular values fall evenly in logarithm from 1 to 1 / condition."""
    u, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(k, n, dtype=torch.float64))
    sigma = torch.logspace(0, -1, n, base=condition, dtype=torch.float64)
    return ((u * sigma) @ v.mT).float()


def by_torch(x: Tensor) -> Tensor:
    """The step of `torch.optim.Muon` for a gradient, at a rate of one and without momentum."""
    weight = torch.nn.Parameter(torch.zeros_like(x))
    weight.grad = x.clone()
    torch.optim.Muon([weight], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    return -weight.detach()


def furthest(x: Tensor) -> float:
    return float((torch.linalg.svdvals(x.double()) - 1).abs().max())


@pytest.mark.parametrize(
    ("shape", "condition"),
    mostly_long(
        [((132, 132), 1.5), ((132, 132), 100.0), ((132, 256), 100.0)],
        usual=4,
        several=True,
    ),
)
def test_four_steps_in_bfloat16_leave_less_than_torchs_five(
    shape: tuple[int, int], condition: float, machine: Machine, launched: list[str]
) -> None:
    """On the same matrices, rounding included; by the launches of large matrices."""
    x = conditioned(*shape, condition)
    ours = msign(machine, x, FOUR_STEPS, "bf16")
    assert launched[-1] == "apply"
    assert furthest(ours) <= furthest(by_torch(x)), (furthest(ours), furthest(by_torch(x)))
