"""Weights whose memory cannot be stepped by itself are refused by name, and views beside each other are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SharedWeightError


def model(*weights: Tensor) -> nn.Module:
    return nn.ParameterList([nn.Parameter(each) for each in weights])


OVERLAPPING = {
    "rows": lambda b: (b[:24].view(4, 6), b[12:48].view(6, 6)),
    "columns": lambda b: (b.view(6, 16)[:, :5], b.view(6, 16)[:, 4:8]),
    "a transpose inside": lambda b: (b[:48].view(6, 8), b[6:48].view(6, 7).T),
    "one inside another": lambda b: (b[60:69].view(3, 3), b[70:76].view(2, 3), b.view(6, 16)),
}
APART = {
    "rows": lambda b: (b[:24].view(4, 6), b[24:60].view(6, 6)),
    "columns": lambda b: (b.view(6, 16)[:, :5], b.view(6, 16)[:, 5:8], b.view(6, 16)[:, 8:]),
    "every second": lambda b: (b[0::2].view(6, 8), b[1::2].view(6, 8)),
}


@pytest.mark.parametrize("name", OVERLAPPING)
def test_weights_with_memory_in_common_are_refused(name: str) -> None:
    with pytest.raises(SharedWeightError, match="one weight at both"):
        mm.adapt(model(*OVERLAPPING[name](torch.randn(96))))


@pytest.mark.parametrize("name", APART)
def test_views_beside_each_other_are_stepped(name: str) -> None:
    net = model(*APART[name](torch.randn(96)))
    plan = mm.adapt(net)
    opt = mm.SteepestDescent(plan, lr=0.3)
    for _ in range(3):
        for each in net.parameters():
            each.grad = torch.randn_like(each)
        opt.step()
    assert max(row.residual for row in mm.conditioning(plan).rows) < 1e-5


def test_an_expanded_weight_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"'0' must have a place in memory .* strides \(0, 1\)"):
        mm.adapt(model(torch.randn(1, 4).expand(6, 4)))
    # A dimension of size 1 has no second entry.
    mm.adapt(model(torch.randn(4, 1).expand(4, 1)))


def test_a_weight_in_eight_bits_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"'0' must be in float16.* got torch\.float8_e4m3fn"):
        mm.adapt(model(torch.randn(4, 4).to(torch.float8_e4m3fn)))
