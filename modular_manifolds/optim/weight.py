"""One weight as the optimiser knows it: a name, a parameter, a geometry, and its place in the parameter groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.select import find_solver


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter with its geometry.

    Args:
        name: the path in the network.
        parameter: the weight itself, shape (n,) or (*batch, m, n).
        geometry: its manifold and norm.
        group, place: `param_groups[group]["params"][place]` is the parameter.
        index: counts the weights of all groups.
    """

    name: str
    parameter: Tensor
    geometry: Geometry
    group: int
    place: int
    index: int

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """The shape as a solver sees it: a vector is one column."""
        shape = tuple(self.parameter.shape)
        return (*shape, 1) if len(shape) == 1 else shape


def dual_shape(weight: Weight, solver: str | Solver) -> tuple[int, ...] | None:
    """The shape of the dual variable that the weight's solver starts from; None if it starts from none."""
    chosen = find_solver(weight.geometry.manifold, weight.geometry.norm, solver)
    return chosen.dual_shape(weight.matrix_shape)


def full_dtype(weight: Tensor) -> torch.dtype:
    """The dtype that a weight is stepped in: its own, and float32 if that is coarser."""
    return torch.promote_types(weight.dtype, torch.float32)
