"""The default rate: a plan has one, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError


def test_a_plan_brings_its_rate() -> None:
    plan = mm.adapt(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    assert {group["lr"] for group in mm.SteepestDescent(plan).param_groups} == {1.0}
    assert mm.SteepestDescent(plan, 0.25).param_groups[0]["lr"] == 0.25


def test_a_declared_network_and_parameters_need_one() -> None:
    group = {
        "params": [nn.Parameter(torch.eye(3))],
        "manifold": mm.Stiefel(),
        "norm": mm.Spectral(),
    }
    for params in (mm.Linear(4, 3), [group]):
        with pytest.raises(ArgumentError, match=r"SteepestDescent\(lr\) must be given"):
            mm.SteepestDescent(params)
