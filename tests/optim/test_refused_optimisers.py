"""Arguments, networks and parameter groups that do not fit are refused in words."""

from __future__ import annotations

import pytest
import torch
from four_layers import network
from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.errors import (
    ArgumentError,
    UnconstrainedParameterError,
)


def test_weight_decay_is_refused_where_it_does_nothing() -> None:
    with pytest.raises(ArgumentError, match="normal to the manifold and has no effect"):
        mm.SteepestDescent(network(), lr=0.1, weight_decay=0.01)


def test_weight_decay_shrinks_where_it_does_something() -> None:
    net = mm.Linear(6, 3, manifold=mm.Euclidean(), norm=mm.Frobenius())
    opt = mm.SteepestDescent(net, lr=0.1, weight_decay=0.5)
    before = net.weight.detach().clone()
    net.weight.grad = torch.zeros_like(net.weight)
    opt.step()
    torch.testing.assert_close(net.weight.detach(), before * (1 - 0.1 * 0.5))


def test_a_parameter_without_a_manifold_is_refused() -> None:
    class Shift(mm.Bond):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.shift

    with pytest.raises(
        UnconstrainedParameterError, match=r"parameter '1\.shift' must have a manifold"
    ):
        mm.SteepestDescent(mm.Linear(4, 3) >> Shift(), lr=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -0.1}, "lr must be finite and at least 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be finite and at least 0, got nan"),
        ({"lr": 0.1, "momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"lr": 0.1, "nesterov": True}, "nesterov needs momentum"),
        ({"lr": 0.1, "on_nonfinite": "ignore"}, "on_nonfinite must be 'raise' or 'skip'"),
        (
            {"lr": 0.1, "solver": "adam"},
            "solver must be 'auto' or one of skew-sign for Stiefel",
        ),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay must be finite and at least 0"),
    ],
)
def test_bad_arguments_are_refused_in_words(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mm.SteepestDescent(network(), **arguments)  # pyright: ignore[reportArgumentType]


def test_what_is_not_a_network_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"mm.adapt\(model\)"):
        mm.SteepestDescent(nn.Linear(3, 3), lr=0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="must have a weight"):
        mm.SteepestDescent(mm.ReLU(), lr=0.1)


def test_a_parameter_group_from_outside_is_refused() -> None:
    opt = mm.SteepestDescent(network(), lr=0.1)
    with pytest.raises(ArgumentError, match=r"param_names among 0\.weight"):
        opt.add_param_group({"params": [nn.Parameter(torch.zeros(3, 3))]})
