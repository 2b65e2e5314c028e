"""Weights that one batched call steps, with the plan of their solve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim.settings import LONGEST_STEP
from modular_manifolds.optim.stacks import stacked, unstacked
from modular_manifolds.optim.weight import Weight, full_dtype
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.select import find_solver

QUIET_STEPS: Final = 16
"""After so many steps with room to the tolerance, a bucket goes back to the shallower plan."""

ROOM: Final = 0.25
"""A gap below this part of the tolerance has room."""

LONGEST_IN_RADII: Final = 0.5
"""With a rate that is a tensor, plans are made for steps of up to this many radii."""


class Bucket:
    """Weights of one parameter group, shape, dtype and device.

    Args:
        weights: at least one; all have the same group, geometry, shape, dtype and device.
        group: their parameter group.
        solver: the optimiser's argument.
        first_rate: the largest learning rate that was known when the optimiser was made.
    """

    def __init__(
        self,
        weights: Sequence[Weight],
        group: Mapping[str, Any],
        *,
        solver: str | Solver,
        first_rate: float,
    ) -> None:
        first = weights[0]
        parameter = first.parameter
        self.weights = tuple(weights)
        self.names = [each.name for each in weights]
        self.parameters = [each.parameter for each in weights]
        self.group = first.group
        self.geometry = first.geometry
        self.dtype, self.full, self.device = (
            parameter.dtype,
            full_dtype(parameter),
            parameter.device,
        )
        self.as_vectors = parameter.dim() == 1
        manifold, norm = self.geometry.manifold, self.geometry.norm
        self._solver = find_solver(manifold, norm, solver)
        self.first_rate = first_rate
        self._unit = norm.spectral_unit(first.matrix_shape) if manifold.compact else math.inf
        self._plans: dict[int, Plan] = {}
        self._deeper: list[Plan] = []
        self._quiet = 0
        self.plan = self.plan_for(len(weights))
        self.share_values = self._shares_in(group)
        # As factors for the stack. Not without dimensions: the rate, which has none, must not decide the dtype.
        batch = (len(weights),) if len(weights) > 1 else ()
        self.shares = torch.tensor(self.share_values, dtype=self.full, device=self.device)
        self.shares = self.shares.reshape(batch + (1,) * len(first.matrix_shape))

    def __str__(self) -> str:
        return f"{len(self.weights)} × {tuple(self.parameters[0].shape)}, {self.geometry.manifold} × {self.geometry.norm}: {self.plan}"

    def plan_for(self, count: int) -> Plan:
        """The plan for a stack of `count` of the weights, or for one alone."""
        if count not in self._plans:
            alone = self.weights[0].matrix_shape
            self._plans[count] = self._solver.plan(
                self.geometry.manifold,
                self.geometry.norm,
                alone if count == 1 else (count, *alone),
                self.full,
                self.device.type,
            )
        return self._plans[count]

    def hear_gap(self, gap: float) -> None:
        """Take the worst gap of an earlier step: a deeper plan if it was too large, a shallower one after a quiet time."""
        tolerance = self.plan.tolerance
        if tolerance is None:
            return
        if not gap <= tolerance:
            self._quiet = 0
            following = self.plan.deeper()
            if following is not None:
                self._deeper.append(self.plan)
                self.plan = following
            return
        self._quiet = self._quiet + 1 if gap < ROOM * tolerance else 0
        if self._quiet >= QUIET_STEPS and self._deeper:
            self.plan, self._quiet = self._deeper.pop(), 0

    def follow_shares_(self, group: Mapping[str, Any]) -> None:
        """Bring the shares on the device up to date with the group, without waiting."""
        values = self._shares_in(group)
        if values != self.share_values:
            self.share_values = values
            fresh = torch.tensor(values, dtype=self.full).reshape(self.shares.shape)
            self.shares.copy_(fresh, non_blocking=True)

    def longest(self, lr: Tensor | float) -> float | None:
        """A bound on the steps' lengths in the norm; None if none is stated.

        For a rate that is a tensor it is half a radius or twice the first length, whichever is longer.
        """
        largest_share = max(self.share_values)
        if not isinstance(lr, Tensor):
            return lr * largest_share
        if math.isinf(self._unit):
            return None
        radius = getattr(self.geometry.manifold, "radius", 1.0)
        return max(LONGEST_IN_RADII * radius / self._unit, 2 * self.first_rate * largest_share)

    def largest_rate(self, lr: Tensor) -> float:
        """The largest value of `lr`, a tensor, that the plan and float32 allow."""
        longest = self.longest(lr)
        return (LONGEST_STEP if longest is None else longest) / max(self.share_values)

    def check_rate(self, lr: Tensor | float) -> None:
        """Refuse a tensor that can be read and is larger than the plan allows."""
        if isinstance(lr, Tensor) and lr.item() > (largest := self.largest_rate(lr)):
            raise too_long(self.names[0], largest, seen=lr.item())

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors of the weights' shape as matrices, one stack of them."""
        found = stacked(tensors)
        return found.unsqueeze(-1) if self.as_vectors else found

    def unstack(self, matrices: Tensor) -> list[Tensor]:
        """Undo `stack`: views into its memory."""
        shaped = matrices.squeeze(-1) if self.as_vectors else matrices
        return unstacked(shaped, len(self.weights))

    def _shares_in(self, group: Mapping[str, Any]) -> list[float]:
        return [group["shares"][each.place] for each in self.weights]


def too_long(name: str, largest_rate: float, *, seen: object) -> ArgumentError:
    """The error of a rate that is a tensor and was raised beyond what the plans are made for."""
    return ArgumentError(
        f"lr of '{name}'",
        f"must be at least 0 and at most {largest_rate:.4g} as a tensor: plans are made for steps of up to "
        f"{LONGEST_IN_RADII:g} radii, or twice the first length",
        seen,
        "Build the optimizer with the largest learning rate of the schedule, or pass lr as a float.",
    )


def buckets_of(
    weights: Iterable[Weight],
    groups: Sequence[Mapping[str, Any]],
    *,
    solver: str | Solver,
    first_rate: float,
) -> list[Bucket]:
    """The weights in buckets, in the order of their first weights."""
    alike: dict[Any, list[Weight]] = {}
    for each in weights:
        parameter = each.parameter
        key = (each.group, each.geometry, parameter.shape, parameter.dtype, parameter.device)
        alike.setdefault(key, []).append(each)
    return [
        Bucket(each, groups[each[0].group], solver=solver, first_rate=first_rate)
        for each in alike.values()
    ]
