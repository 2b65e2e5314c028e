"""Placement: which process solves which weight, dealt out by cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.optim.products import multiplications
from modular_manifolds.optim.weight import Weight, dual_shape, full_dtype
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.selection import find_solver


@dataclass(frozen=True)
class Share:
    """One weight in the placement.

    Args:
        name: the weight's name.
        cost: multiplications of its step; 0 if it is too cheap to be sent.
        owner: the rank that solves it; None if every process does.
        numbers: the point and the dual, which its owner sends.
        item: bytes of one of these numbers.
    """

    name: str
    cost: float
    owner: int | None
    numbers: int
    item: int


@dataclass(frozen=True)
class Placement:
    """The process that solves each weight; `print` it to read it with its cost.

    Args:
        processes: the number of processes that average their gradients.
        shares: one for each weight. Without an owner every process solves every weight.
    """

    processes: int
    shares: tuple[Share, ...]
    owners: dict[str, int] = field(init=False, repr=False, compare=False)
    """The rank that solves a weight, by name; weights that every process solves are not in it."""

    def __post_init__(self) -> None:
        owners = {each.name: each.owner for each in self.shares if each.owner is not None}
        object.__setattr__(self, "owners", owners)

    @property
    def loads(self) -> list[float]:
        """The multiplications of a step, by rank."""
        common = sum(each.cost for each in self.shares if each.owner is None)
        loads = [common] * self.processes
        for each in self.shares:
            if each.owner is not None:
                loads[each.owner] += each.cost
        return loads

    @property
    def imbalance(self) -> float:
        """The largest load over the mean; 1 if nothing is to be solved."""
        loads = self.loads
        return max(loads) * len(loads) / sum(loads) if any(loads) else 1.0

    @property
    def buffer_bytes(self) -> int:
        """The bytes that one process contributes to a step's gathering: those of the rank that owns most."""
        total = 0
        for item in {each.item for each in self.shares}:
            sent = [0] * self.processes
            for each in self.shares:
                if each.owner is not None and each.item == item:
                    sent[each.owner] += each.numbers * item
            total += max(sent)
        return total

    def __str__(self) -> str:
        solved = [each for each in self.shares if each.cost]
        total = sum(each.cost for each in solved)
        if not self.owners:
            return (
                f"replicate: each of {self.processes} processes solves all {len(solved)} weights, "
                f"about {total:.2g} multiplications a step; no weight is sent"
                if self.processes > 1
                else f"one process solves {len(solved)} weights, about {total:.2g} multiplications a step"
            )
        return (
            f"owner: {len(solved)} weights are solved once, by {self.processes} processes; at most {max(self.loads):.2g} of "
            f"{total:.2g} multiplications a step and process, {self.imbalance:.2f} times the mean; each process sends "
            f"{self.buffer_bytes / 1e6:.3g} MB and receives {(self.processes - 1) * self.buffer_bytes / 1e6:.3g} MB a step; "
            f"{len(self.shares) - len(solved)} cheap weights are stepped by every process"
        )


def place(
    weights: Sequence[Weight], processes: int, *, solver: str | Solver, replicate: bool = False
) -> Placement:
    """Deal the weights out: the costliest first, each to the rank with the least load so far.

    It follows from names, shapes and geometries alone, so every process finds the same placement.
    """
    costs = [cost_of(each, solver) for each in weights]
    owners: list[int | None] = [None] * len(weights)
    if processes > 1 and not replicate:
        loads = [0.0] * processes
        for i in sorted(range(len(weights)), key=lambda i: (-costs[i], i)):
            if costs[i]:
                rank = min(range(processes), key=lambda rank: (loads[rank], rank))
                owners[i] = rank
                loads[rank] += costs[i]
    shares = (
        Share(each.name, cost, owner, _numbers(each, solver), full_dtype(each.parameter).itemsize)
        for each, cost, owner in zip(weights, costs, owners, strict=True)
    )
    return Placement(processes, tuple(shares))


def cost_of(weight: Weight, solver: str | Solver) -> float:
    """The multiplications of a weight's step; 0 for vectors, and if each entry or row moves by itself."""
    geometry = weight.geometry
    *stack, m, n = weight.matrix_shape
    if geometry.coupled_dims != MATRIX or min(m, n) == 1:
        return 0.0
    name = find_solver(geometry.manifold, geometry.norm, solver).name
    if name == "norm-steepest" and not geometry.norm.accuracy:
        # The norm has a formula without products.
        return 0.0
    return math.prod(stack) * multiplications(name, m, n, weight.parameter.device.type)


def _numbers(weight: Weight, solver: str | Solver) -> int:
    dual = dual_shape(weight, solver)
    return math.prod(weight.shape) + (0 if dual is None else math.prod(dual))
