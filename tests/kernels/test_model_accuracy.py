"""The counts compare like with like: on the same matrices our four steps in bfloat16 leave less than torch's five."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import msign
from modular_manifolds_kernels import FOUR_STEPS, model
from modular_manifolds_kernels.machine import Machine
from torch import Tensor


def conditioned(n: int, k: int, condition: float) -> Tensor:
    """A matrix whose singular values fall evenly in logarithm from 1 to 1 / condition."""
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(k, n, generator=generator, dtype=torch.float64))
    sigma = torch.logspace(0, -1, n, base=condition, dtype=torch.float64)
    return ((u * sigma) @ v.mT).float()


def by_torch(x: Tensor) -> Tensor:
    """What `torch.optim.Muon` makes of a gradient, at a rate of one and without momentum."""
    weight = torch.nn.Parameter(torch.zeros_like(x))
    weight.grad = x.clone()
    torch.optim.Muon([weight], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    return -weight.detach()


def worst(x: Tensor) -> float:
    return float((torch.linalg.svdvals(x.double()) - 1).abs().max())


@pytest.mark.parametrize(
    ("shape", "condition"), [((132, 132), 1.5), ((132, 132), 100.0), ((132, 256), 100.0)]
)
def test_four_steps_leave_less_than_torchs_five(
    shape: tuple[int, int], condition: float, machine: Machine
) -> None:
    # A short side of more than 128: the launches of large matrices, in both forms.
    x = conditioned(*shape, condition)
    stacked = x.new_zeros(1, *shape).copy_(x)
    launches = [each.name for each in model.msign_launches(1, *shape, steps=len(FOUR_STEPS))]
    assert "apply" in launches
    ours = msign(machine, stacked, FOUR_STEPS, "bf16")[0]
    assert worst(ours) <= worst(by_torch(x)), (worst(ours), worst(by_torch(x)))
