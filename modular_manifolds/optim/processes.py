"""The steps that fit an optimiser's parameters: whole, replicated by DistributedDataParallel, or sharded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.sharded import is_sharded
from modular_manifolds.optim.exchange import exchange_for
from modular_manifolds.optim.overlapping import nothing_to_overlap
from modular_manifolds.optim.whole import WholeSteps
from modular_manifolds.solvers.base import Solver
from modular_manifolds.wrappers import averages_gradients, replicas_of

if TYPE_CHECKING:
    from modular_manifolds.optim.sharded.steps import ShardedSteps

    Steps = WholeSteps | ShardedSteps


def steps_for(
    params: Any,
    owner: Any,
    groups: Sequence[Mapping[str, Any]],
    geometries: Mapping[str, Geometry],
    *,
    solver: str | Solver,
    first_rate: float,
    passes: int = 0,
) -> Steps:
    """The steps of an optimiser.

    Args:
        params: the optimiser's argument; its wrappers tell which processes average gradients. None for a copy, which belongs
            to no process group.
        owner: the optimiser's argument.
        groups: the optimiser's parameter groups.
        geometries: the geometry of every weight, by name.
        solver: the optimiser's argument.
        first_rate: the largest learning rate known at construction.
        passes: the number of backward passes after which gradients leave for their owners; 0 if the step sends them.

    Raises:
        ArgumentError: `owner` has a wrong value, DistributedDataParallel wraps sharded weights, or there are no
            gradients to send.
    """
    tensors = [each for group in groups for each in group["params"]]
    if not any(map(is_sharded, tensors)):
        if passes:
            raise nothing_to_overlap("whole weights")
        exchange, processes = exchange_for(params, owner, {each.device for each in tensors})
        return WholeSteps(
            geometries,
            solver=solver,
            first_rate=first_rate,
            exchange=exchange,
            processes=processes,
        )
    if averages_gradients(params) or replicas_of(params).group is not None:
        raise ArgumentError(
            "SteepestDescent(net)",
            "must not be inside DistributedDataParallel if its weights are sharded",
            "DTensors in DistributedDataParallel",
            "Pass fully_shard a mesh of two dimensions, which replicates and shards.",
        )
    if not isinstance(owner, str) or owner not in SHARDED_OWNERS:
        raise ArgumentError(
            "SteepestDescent(owner)",
            "must be 'auto', 'rows' or 'gather' for sharded weights, because their meshes tell the processes",
            repr(owner),
            "Leave it out.",
        )
    # Importing torch's DTensor takes long, and whoever passes one has done it.
    from modular_manifolds.optim.sharded.steps import ShardedSteps

    wish: Any = owner
    return ShardedSteps(
        groups, geometries, solver=solver, first_rate=first_rate, wish=wish, passes=passes
    )


SHARDED_OWNERS: Final = ("auto", "rows", "gather")
"""The values of `owner` for sharded weights."""
