"""The choice between an owner and rows: which parameters processes can step together, and which cost less that way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.optim.sharded.comparison import Comparison, Estimate
from modular_manifolds.optim.sharded.members import OWNER, ROWS, Member, with_owners
from modular_manifolds.optim.sharded.stand_ins import travels_with_momentum
from modular_manifolds.optim.weight import Weight, full_dtype
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.row_sharded import RowPlan, row_plan

Wish = Literal["auto", "rows", "gather"]

AUTO_MIN_NUMBERS: Final = 2**20
"""The fewest numbers of a matrix for which costs are compared. In smaller ones the delay of four sums decides."""


class Work(NamedTuple):
    """The multiplications of a step; those in float64 count twice.

    Args:
        tall: of m×n×n, which the processes share out.
        repeated: of n×n×n, which every process repeats.
    """

    tall: float
    repeated: float


ON_STIEFEL: Final = Work(8.0, 150.0)
ELSEWHERE: Final = Work(3.0, 60.0)


def compare(weight: Weight, plan: RowPlan, processes: int, share: float) -> Comparison:
    """The cost of both ways.

    Args:
        weight: a matrix.
        plan: its row plan.
        processes: p.
        share: the part of all owners' work that is this matrix.
    """
    n, m = sorted(weight.shape)
    moved = (processes - 1) / processes
    work = ON_STIEFEL if isinstance(weight.geometry.manifold, Stiefel) else ELSEWHERE
    tall, repeated = work.tall * m * n**2, work.repeated * n**3
    share = max(share, 1 / processes)
    item = full_dtype(weight.parameter).itemsize
    return Comparison(
        Estimate(2 * moved * plan.bytes_per_step, tall / processes + repeated),
        Estimate(share * moved * 3 * m * n * item, share * (tall + repeated)),
    )


def can_go_by_rows(member: Member, group: Mapping[str, Any]) -> bool:
    """Whether the processes can step a parameter by rows, if its pair has a row plan.

    It must be one matrix, of which every process holds a range of one side, no entry twice, and the settings must need no
    more than the direction that follows from the momentum.
    """
    weights, layout = member.weights, member.layout
    if len(weights) != 1 or weights[0].piece is not None or len(weights[0].shape) != 2:
        return False
    is_split_once = len(layout.sharded_dims) == 1 and not layout.replicated
    return is_split_once and not travels_with_momentum(group)


def plan_by_rows(
    member: Member, solver: str | Solver, *, count: int | None = None
) -> RowPlan | None:
    """The row plan of a parameter that can go by rows; None if its pair has none, or its shorter side is split.

    Args:
        member: the parameter.
        solver: the optimiser's argument.
        count: the number of matrices in a stack; None for a single one.
    """
    (weight,), (dim,) = member.weights, member.layout.sharded_dims
    return row_plan(
        weight.geometry.manifold,
        weight.geometry.norm,
        weight.shape if count is None else (count, *weight.shape),
        full_dtype(weight.parameter),
        weight.parameter.device.type,
        dim=dim - 2,
        solver=solver,
    )


def with_rows(
    members: Sequence[Member],
    groups: Sequence[Mapping[str, Any]],
    wish: Wish,
    *,
    solver: str | Solver,
) -> list[Member]:
    """The members, some of which go by rows in place of an owner. The owners of the others are dealt out anew.

    Args:
        members: all members.
        groups: the parameter groups.
        wish: the optimiser's `owner`: `"rows"` sends all that can by rows, `"gather"` none, and `"auto"` those that cost less.
        solver: the optimiser's argument.
    """
    if wish == "gather":
        return list(members)
    totals: dict[tuple[int, ...], float] = {}
    for each in members:
        if each.way is OWNER:
            totals[each.crew.ranks] = totals.get(each.crew.ranks, 0.0) + each.cost
    chosen = list(members)
    for i, each in enumerate(members):
        if each.way is not OWNER or not can_go_by_rows(each, groups[each.group]):
            continue
        plan = plan_by_rows(each, solver)
        if plan is None:
            continue
        total = totals[each.crew.ranks]
        share = each.cost / total if total else 0.0
        comparison = compare(each.weights[0], plan, each.crew.processes, share)
        is_large = each.parameter.numel() >= AUTO_MIN_NUMBERS
        if wish == "rows" or (is_large and comparison.prefers_rows):
            chosen[i] = replace(each, way=ROWS, owner=None, comparison=comparison)
        else:
            chosen[i] = replace(each, comparison=comparison)
    return with_owners(chosen)


def nothing_by_rows() -> ArgumentError:
    """The error of the wish for rows if no parameter can be stepped by rows."""
    return ArgumentError(
        "SteepestDescent(owner)",
        "must be 'auto' or 'gather' if no weight can be stepped by rows",
        "'rows'",
        "A matrix can if it is split along its longer side only, its pair is Stiefel, Euclidean or SpectralBall with "
        "Spectral or RMSOperator, and noise_damping and tangent_momentum are off.",
    )
