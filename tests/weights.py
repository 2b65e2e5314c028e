"""An atom with a weight of any shape and any geometry, for tests of the optimiser: its gradients are set by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import TABLE

PAIRS = [(manifold, norm) for manifold, norm in TABLE]
"""Every pair that has a solver."""

EVERY_PAIR = pytest.mark.parametrize(
    ("manifold", "norm"), PAIRS, ids=[f"{m.__name__}-{n.__name__}" for m, n in PAIRS]
)
"""A test with every pair."""

USUAL_PAIRS = {
    (mm.Euclidean, mm.RMSOperator),
    (mm.Sphere, mm.Frobenius),
    (mm.Oblique, mm.RowRMS),
    (mm.Stiefel, mm.Spectral),
}
"""Pairs whose solvers and retractions differ most: a plain run tries slow tests with these only."""

EVERY_PAIR_MOSTLY_LONG = pytest.mark.parametrize(
    ("manifold", "norm"),
    mostly_long(PAIRS, usual=lambda pair: pair in USUAL_PAIRS, several=True),
    ids=[f"{m.__name__}-{n.__name__}" for m, n in PAIRS],
)
"""A slow test with every pair; all but the usual ones are long."""


class Weight(mm.Atom):
    """A weight alone. It declares what a tree wants to know, and its forward gives the weight back."""

    def __init__(self, manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, ...]) -> None:
        super().__init__(
            geometry=mm.Geometry(manifold, norm),
            shape=shape,
            source=mm.Space(1, "l2"),
            target=mm.Space(1, "l2"),
            sensitivity=1.0,
            lipschitz=1.0,
        )

    def describe(self) -> str:
        return "Weight"

    def arguments(self) -> dict[str, object]:
        return {}

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.sum()


def named(opt: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The parameters of an optimiser, by their paths."""
    return {
        name: parameter
        for group in opt.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }


def one_group_a_weight(opt: torch.optim.Optimizer) -> None:
    """Give every weight a parameter group of its own, so that its settings can differ."""
    groups = list(opt.param_groups)
    opt.param_groups.clear()
    for group in groups:
        for i, parameter in enumerate(group["params"]):
            lists = {key: [group[key][i]] for key in ("param_names", "shapes", "shares")}
            opt.add_param_group({**group, **lists, "params": [parameter]})


def as_one_group_a_weight(saved: dict[str, Any]) -> dict[str, Any]:
    """A state dict as it was written when every weight was a group of its own."""
    lists = ("params", "param_names", "shapes", "shares")
    groups = [
        {
            **{k: v for k, v in group.items() if k not in (*lists, "manifold", "norm")},
            "params": [key],
            "name": name,
            "shape": shape,
            "share": share,
        }
        for group in saved["param_groups"]
        for key, name, shape, share in zip(*(group[each] for each in lists), strict=True)
    ]
    return {**saved, "param_groups": groups}


def give_gradient(weight: Tensor, generator: torch.Generator) -> None:
    """A random gradient of the weight's dtype, the same on every processor."""
    noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    weight.grad = noise.to(weight.dtype)
