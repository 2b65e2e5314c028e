"""Steps by rows: every process steps its rows of a tall matrix, after sums of n×n matrices over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from modular_manifolds.linalg.matrices import readable
from modular_manifolds.linalg.rows import SharedRows
from modular_manifolds.optim import foreach
from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.collectives import GATHERING, together
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.roster import Roster
from modular_manifolds.optim.sharded.decision import Decision, Party
from modular_manifolds.optim.sharded.inputs import solver_inputs
from modular_manifolds.optim.sharded.members import Member
from modular_manifolds.optim.sharded.roll import Roll
from modular_manifolds.optim.sharded.row_choice import plan_by_rows
from modular_manifolds.optim.sharded.stand_ins import groups_with
from modular_manifolds.optim.sharded.state import shards_of
from modular_manifolds.optim.state import full_precision_weight
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.row_sharded import RowPlan

Group = Mapping[str, Any]
Shards = Mapping[str, Tensor]
"""The shard of a parameter, under `""`, and those of its state."""
States = Mapping[Tensor, dict[str, Any]]

BYTES_OF_SCALE: Final = 8
"""The largest entry of a matrix is summed in float64."""


class RowSteps:
    """Members that one crew steps by rows.

    Args:
        members: at least one, all of one crew and with as many rows on each process, in an order that is the same on every
            process.
        roster: makes the buckets of whole weights, which know the lengths of their steps.
        solver: the optimiser's argument.
    """

    def __init__(self, members: Sequence[Member], roster: Roster, solver: str | Solver) -> None:
        self.members = tuple(members)
        self.roster = roster
        self._solver = solver
        self._by_name = {each.name: each for each in members}
        self._places = {(each.group, each.place): each.parameter for each in members}
        self._plans: dict[tuple[str, int | None], RowPlan] = {}
        group = members[0].crew.group

        def total(x: Tensor) -> Tensor:
            x = x.contiguous()
            together(GATHERING, lambda: dist.all_reduce(x, group=group))
            return x

        self._rows = SharedRows(total)

    def party(self, groups: Sequence[Group]) -> Party:
        """The weights of this step, which nobody steps as whole ones."""
        return Party(self.roster, groups_with(groups, self._places), {})

    @property
    def bytes_per_step(self) -> int:
        """The bytes that this process contributes to the sums of a step of all members."""
        plans = [plan_by_rows(each, self._solver) for each in self.members]
        return sum(each.bytes_per_step + BYTES_OF_SCALE for each in plans if each is not None)

    def step(
        self,
        groups: Sequence[Group],
        state: States,
        roll: Roll,
        gradients: Mapping[str, Tensor | None],
        decision: Decision,
        diagnoses: Diagnoses,
    ) -> None:
        """Step every weight with a gradient. Nothing is read on an accelerator.

        Args:
            groups: the parameter groups.
            state: the state of the parameters.
            roll: all weights.
            gradients: the shard of each gradient, by name.
            decision: of the step.
            diagnoses: the outcomes.
        """
        own = [
            {**shards_of(state[each.parameter]), "": each.parameter.to_local()}
            for each in self.members
        ]
        found = solver_inputs(roll, self.members, groups, gradients, own, decision)
        names = [each.name for each in self.members]
        shards, inputs = dict(zip(names, own, strict=True)), dict(zip(names, found, strict=True))
        for bucket in self.roster.buckets:
            points = [_point(shards[name]) for name in bucket.names]
            given = [inputs[name] for name in bucket.names]
            gradient = [
                torch.zeros_like(point) if each is None else each.to(point.dtype)
                for each, point in zip(given, points, strict=True)
            ]
            entries = [roll.by_name[name] for name in bucket.names]
            moving = torch.cat([roll.units_of(each, decision.reached) for each in entries])
            landed = self._landed(
                bucket,
                groups[bucket.group],
                bucket.stack(points),
                bucket.stack(gradient),
                moving,
                decision.ok,
                diagnoses,
            )
            _write_([shards[name] for name in bucket.names], bucket.unstack(landed))

    def _landed(
        self,
        bucket: Bucket,
        group: Group,
        point: Tensor,
        gradient: Tensor,
        moving: Tensor,
        ok: Tensor | None,
        diagnoses: Diagnoses,
    ) -> Tensor:
        """The new points of the stack, in the rows of this process."""
        plan, lr = self._plan(bucket), group["lr"]
        lr = float(lr) if isinstance(lr, Tensor) and readable(lr) else lr
        length = bucket.shares * lr
        if ok is not None:
            # The rate of a cancelled step may be NaN.
            length = torch.where(ok, length, 0.0)
        length = length.to(point.dtype)
        if group["weight_decay"]:
            point = point * (1 - length * group["weight_decay"])
        solution = plan.solve(point, gradient, self._rows)
        longest = bucket.longest_step(lr)
        bound = 0.0 if longest is None else longest * plan.unit
        landed = plan.retract(point, solution.direction.mul_(length), bound, self._rows)
        diagnoses.record(bucket.names, replace(solution, gap=bucket.per_weight(solution.gap)))
        return torch.where(moving.reshape(bucket.shares.shape), landed, point)

    def _plan(self, bucket: Bucket) -> RowPlan:
        name, count = bucket.names[0], len(bucket.names) if bucket.batched else None
        if (name, count) not in self._plans:
            plan = plan_by_rows(self._by_name[name], self._solver, count=count)
            assert plan is not None
            self._plans[name, count] = plan
        return self._plans[name, count]


def row_steps(
    members: Sequence[Member], new_roster: Callable[[], Roster], solver: str | Solver
) -> list[RowSteps]:
    """Steps for all members that go by rows. Blocks of one size form stacks."""
    alike: dict[Any, list[Member]] = {}
    for each in members:
        (dim,) = each.layout.sharded_dims
        rows = tuple(stop - start for start, stop in (box[dim] for box in each.layout.boxes))
        alike.setdefault((each.crew.ranks, rows), []).append(each)
    return [RowSteps(own, new_roster(), solver) for own in alike.values()]


def _point(shard: Shards) -> Tensor:
    return full_precision_weight(shard[""], shard.get("master"))


def _write_(shards: Sequence[Shards], points: Sequence[Tensor]) -> None:
    """Write points to the shards and their master copies."""
    masters = [each["master"] for each in shards if "master" in each]
    if not points[0].numel():
        return
    if masters:
        foreach.copy_(masters, points)
    foreach.copy_([each[""] for each in shards], points)
