"""Buckets: weights that one batched call steps, with the plan of their solve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim.placement import Placement
from modular_manifolds.optim.rates import LONGEST_STEP
from modular_manifolds.optim.stacks import stack_tensors, unstack_tensor
from modular_manifolds.optim.weight import Weight, full_dtype
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.selection import find_solver

QUIET_STEPS: Final = 16
"""After this many steps with a small gap, a bucket returns to the shallower plan."""

QUIET_GAP_PER_TOLERANCE: Final = 0.25
"""A gap is small below this fraction of the tolerance."""

LONGEST_IN_RADII: Final = 0.5
"""If the rate is a tensor, plans are made for steps of up to this many radii."""


class Bucket:
    """Weights of one parameter group, shape, dtype and device.

    Args:
        weights: at least one; all have the same group, geometry, shape, dtype and device.
        group: their parameter group.
        solver: the optimiser's argument.
        first_rate: the largest learning rate known at construction.
        shared: whether one process solves each weight and sends it to the others.
        solves: whether this process solves the weights; it may be false if they are `shared`.
        alike: the number of such weights over all processes. The plan is made for a stack of so many, as without sharing.
    """

    def __init__(
        self,
        weights: Sequence[Weight],
        group: Mapping[str, Any],
        *,
        solver: str | Solver,
        first_rate: float,
        shared: bool = False,
        solves: bool = True,
        alike: int | None = None,
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
        self.as_vectors = len(first.shape) == 1
        self._batch = first.matrix_shape[:-2]
        self._matrices = math.prod(self._batch)
        rows, columns = first.matrix_shape[-2:]
        self.turned = [each.matrix_shape[-2:] != (rows, columns) for each in weights]
        manifold, norm = self.geometry.manifold, self.geometry.norm
        self._solver = find_solver(manifold, norm, solver)
        self.first_rate = first_rate
        self._spectral_unit = (
            norm.spectral_unit(first.matrix_shape) if manifold.compact else math.inf
        )
        self._plans: dict[int, Plan] = {}
        self._shallower: list[Plan] = []
        self._quiet = 0
        self.shared, self.solves = shared, solves
        alike = len(weights) if alike is None else alike
        self.batched = alike > 1
        """Whether a single weight of the bucket is still a stack, as one of several alike."""
        count = alike * self._matrices
        is_single = count == 1 and not self._batch
        self.plan = self._plan((rows, columns) if is_single else (count, rows, columns))
        self.has_deeper_plans = solves and self.plan.deeper() is not None
        """Whether the gap of a step can change the plan of the next step."""
        self.share_values = self._shares_in(group)
        self.shares = self._shares_on(self.device)

    def __str__(self) -> str:
        return f"{len(self.weights)} × {self.weights[0].shape}, {self.geometry.manifold} × {self.geometry.norm}: {self.plan}"

    def plan_for(self, count: int) -> Plan:
        """The plan for a stack of `count` weights, or for a single one."""
        if count not in self._plans:
            shape = self.weights[0].matrix_shape
            self._plans[count] = self._plan((count, *shape) if self.is_stack(count) else shape)
        return self._plans[count]

    def is_stack(self, count: int) -> bool:
        """Whether `count` of the weights form a stack: a single one does if others alike are solved elsewhere."""
        return count > 1 or (self.shared and self.batched)

    def _plan(self, shape: tuple[int, ...]) -> Plan:
        manifold, norm = self.geometry.manifold, self.geometry.norm
        return self._solver.plan(manifold, norm, shape, self.full, self.device.type)

    def adapt_plan(self, gap: float) -> None:
        """Choose a deeper plan if the worst gap of an earlier step was too large, and a shallower one after `QUIET_STEPS`."""
        tolerance = self.plan.tolerance
        if tolerance is None:
            return
        if not gap <= tolerance:
            self._quiet = 0
            deeper = self.plan.deeper(gap)
            if deeper is not None:
                self._shallower.append(self.plan)
                self.plan = deeper
            return
        self._quiet = self._quiet + 1 if gap < QUIET_GAP_PER_TOLERANCE * tolerance else 0
        if self._quiet >= QUIET_STEPS and self._shallower:
            self.plan, self._quiet = self._shallower.pop(), 0

    def update_shares_(self, group: Mapping[str, Any]) -> None:
        """Copy the group's shares to the device, without waiting."""
        values = self._shares_in(group)
        if values != self.share_values:
            self.share_values = values
            self.shares.copy_(self._shares_on("cpu"), non_blocking=True)

    def longest_step(self, lr: Tensor | float) -> float | None:
        """A bound on the lengths of the steps in the norm; None if there is none.

        If the rate is a tensor, the bound is half a radius or twice the first length, whichever is longer.
        """
        largest_share = max(self.share_values)
        if not isinstance(lr, Tensor):
            return lr * largest_share
        if math.isinf(self._spectral_unit):
            return None
        radius = getattr(self.geometry.manifold, "radius", 1.0)
        return max(
            LONGEST_IN_RADII * radius / self._spectral_unit, 2 * self.first_rate * largest_share
        )

    def largest_rate(self, lr: Tensor) -> float:
        """The largest value of `lr`, a tensor, that the plan and float32 allow."""
        longest = self.longest_step(lr)
        return (LONGEST_STEP if longest is None else longest) / max(self.share_values)

    def check_rate(self, lr: Tensor | float) -> None:
        """Refuse a readable rate tensor above the plan's largest rate."""
        if isinstance(lr, Tensor) and lr.item() > (largest := self.largest_rate(lr)):
            raise rate_too_large(self.names[0], largest, seen=lr.item())

    def stack(self, tensors: Sequence[Tensor], *, turn: bool = True) -> Tensor:
        """Tensors of the weights' shapes in one stack of matrices with one batch dimension.

        A single weight stays a matrix, without a batch dimension. With `turn`, weights of the other orientation are
        transposed and vectors become columns. Without it, the tensors already have the stack's orientation.
        """
        if turn and any(self.turned):
            tensors = [x.mT if t else x for x, t in zip(tensors, self.turned, strict=True)]
        if self._batch:
            parts = [each.flatten(0, -3) for each in tensors]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        stack = stack_tensors(tensors, batched=self.batched)
        return stack.unsqueeze(-1) if turn and self.as_vectors else stack

    def unstack(self, matrices: Tensor, *, turn: bool = True) -> list[Tensor]:
        """Undo `stack`: views into its memory."""
        if self._batch:
            parts = [matrices] if len(self.weights) == 1 else list(matrices.split(self._matrices))
            if len(self._batch) > 1:
                parts = [each.unflatten(0, self._batch) for each in parts]
        else:
            shaped = matrices.squeeze(-1) if turn and self.as_vectors else matrices
            parts = unstack_tensor(shaped, len(self.weights), batched=self.batched)
        if turn and any(self.turned):
            parts = [x.mT if t else x for x, t in zip(parts, self.turned, strict=True)]
        return parts

    def per_weight(self, numbers: Tensor) -> Tensor:
        """One number for each matrix of the stack, in shape (weights, *batch), or (*batch) for a single weight."""
        if not self._batch:
            is_single = self.batched and len(self.weights) == 1
            return numbers.squeeze(0) if is_single else numbers
        count = (len(self.weights),) if len(self.weights) > 1 else ()
        return numbers.reshape(count + self._batch)

    def _shares_on(self, device: torch.device | str) -> Tensor:
        """The shares as factors for the stack.

        They have dimensions even for a single weight: otherwise the rate, a 0-dim tensor, could decide the dtype.
        """
        values = [share for share in self.share_values for _ in range(self._matrices)]
        batch = (len(values),) if self.batched or self._batch else ()
        shares = torch.tensor(values, dtype=self.full, device=device)
        return shares.reshape((*batch, 1, 1))

    def _shares_in(self, group: Mapping[str, Any]) -> list[float]:
        return [each.share_in(group) for each in self.weights]


def rate_too_large(name: str, largest_rate: float, *, seen: object) -> ArgumentError:
    """The error of a rate tensor above the largest rate of the plans."""
    return ArgumentError(
        f"lr of '{name}'",
        f"must be at least 0 and at most {largest_rate:.4g} as a tensor: plans are made for steps of up to "
        f"{LONGEST_IN_RADII:g} radii, or twice the first length",
        seen,
        "Build the optimizer with the largest learning rate of the schedule, or pass lr as a float.",
    )


def make_buckets(
    weights: Iterable[Weight],
    groups: Sequence[Mapping[str, Any]],
    *,
    solver: str | Solver,
    first_rate: float,
    placement: Placement | None = None,
    rank: int = 0,
    alike_elsewhere: Mapping[str, int] | None = None,
) -> list[Bucket]:
    """Group the weights into buckets, in the order of their first weights.

    With a placement, weights alike form up to two buckets: those that `rank` solves, and those that others solve.

    Args:
        weights: the weights.
        groups: the parameter groups.
        solver: the optimiser's argument.
        first_rate: the largest learning rate known at construction.
        placement: the owner of each weight; None without owners.
        rank: the rank of this process.
        alike_elsewhere: the number of weights alike of which only other processes know, by the name of a weight.
    """
    owners = {} if placement is None else placement.owners
    others = alike_elsewhere or {}
    alike: dict[Any, list[Weight]] = {}
    for each in weights:
        alike.setdefault(bucket_key(each), []).append(each)
    return [
        Bucket(
            _by_orientation(members),
            groups[members[0].group],
            solver=solver,
            first_rate=first_rate,
            shared=members[0].name in owners or members[0].name in others,
            solves=owners.get(members[0].name, rank) == rank,
            alike=len(each) + others.get(members[0].name, 0),
        )
        for each in alike.values()
        for members in _by_owner(each, owners, rank)
    ]


def bucket_key(weight: Weight) -> tuple[Any, ...]:
    """Weights with equal keys are alike: one batched call steps them."""
    parameter, geometry, shape = weight.parameter, weight.geometry, weight.shape
    if len(shape) > 1 and not parameter.is_cpu and geometry.transposes:
        # An accelerator multiplies both orientations equally fast, so they share one stack.
        shape = (*shape[:-2], *sorted(shape[-2:]))
    return weight.group, geometry, shape, parameter.dtype, parameter.device


def _by_owner(
    weights: Sequence[Weight], owners: Mapping[str, int], rank: int
) -> list[list[Weight]]:
    """The weights without an owner or with this one, and those of other owners. Cost depends on shape and geometry only."""
    own = [each for each in weights if owners.get(each.name, rank) == rank]
    others = [each for each in weights if owners.get(each.name, rank) != rank]
    return [each for each in (own, others) if each]


def _by_orientation(weights: Sequence[Weight]) -> list[Weight]:
    """Weights of the first weight's orientation first: one launch takes weights of one orientation."""
    rows = weights[0].matrix_shape[-2]
    return sorted(weights, key=lambda each: each.matrix_shape[-2] != rows)
