"""Hidden matrices: the weights whose treatment differs between the arms, as the library finds them in a model."""

from __future__ import annotations

from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.adaptation import ModelPlan, Row


def hidden_rows(model: nn.Module) -> list[Row]:
    """The hidden logical matrices of a model, which does not change."""
    return [row for row in mm.adapt(model, start="keep").rows if row.role == "hidden"]


def hidden_rules(model: nn.Module, manifold: mm.Manifold) -> list[mm.Rule]:
    """Rules that put hidden matrices on a manifold, with the rms operator norm, and leave the defaults to other weights."""
    names = dict.fromkeys(row.parameter for row in hidden_rows(model))
    rules = [mm.Rule(name, manifold=manifold, norm=mm.RMSOperator()) for name in names]
    return [*rules, mm.Rule("*")]


def matrix_of(row: Row, stored: Tensor) -> Tensor:
    """The whole matrix of a row, with all heads, as a view of the stored tensor."""
    return row.read(stored).flatten(0, -2)


def unconstrained_plan(model: nn.Module) -> ModelPlan:
    """A plan that moves no weight, for reading the hidden matrices of a trained model."""
    return mm.adapt(model, hidden_rules(model, mm.Euclidean()), start="keep")
