"""Steps of sharded weights: shards that step by themselves, rows that step together, and parameters that owners gather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.sharded import is_sharded
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.groups import is_fallback
from modular_manifolds.optim.mailbox import error_of
from modular_manifolds.optim.overlapping import nothing_to_overlap
from modular_manifolds.optim.roster import Roster
from modular_manifolds.optim.sharded.agreement import rate_error
from modular_manifolds.optim.sharded.crew import Crews
from modular_manifolds.optim.sharded.decision import Decider, Party
from modular_manifolds.optim.sharded.gradients import shard_of_gradient
from modular_manifolds.optim.sharded.inputs import solver_inputs
from modular_manifolds.optim.sharded.members import LOCAL, OWNER, ROWS, members_in
from modular_manifolds.optim.sharded.overlap import Overlap
from modular_manifolds.optim.sharded.owners import Owners
from modular_manifolds.optim.sharded.placement import ShardedPlacement, placement_of
from modular_manifolds.optim.sharded.roll import Roll
from modular_manifolds.optim.sharded.row_choice import Wish, nothing_by_rows, with_rows
from modular_manifolds.optim.sharded.rows import row_steps
from modular_manifolds.optim.sharded.stand_ins import (
    LocalStandIn,
    local_groups,
    owned_groups,
    travels_with_momentum,
)
from modular_manifolds.optim.sharded.state import prepare_, shards_of
from modular_manifolds.solvers.base import Solver

Group = Mapping[str, Any]
States = Mapping[Tensor, dict[str, Any]]


_as_written = torch.compiler.disable(
    reason="SteepestDescent steps sharded weights without the compiler: compile without fullgraph=True"
)
"""Marks functions that a compiled step calls as they are."""


class ShardedSteps:
    """The steps of an optimiser with DTensors, its reports and its placement. Whole parameters may be among them.

    Args:
        groups: the parameter groups.
        geometries: the geometry of every weight, by name.
        solver: the optimiser's argument.
        first_rate: the largest learning rate known at construction.
        wish: whether tall matrices go by rows: `"rows"`, `"gather"`, or `"auto"` to compare the costs.
        passes: the number of backward passes after which messages leave for the owners; 0 if the step sends them.

    Raises:
        ArgumentError: a parameter has placements that are not known, weights are on several devices, the wish cannot be
            fulfilled, or there are no messages.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        geometries: Mapping[str, Geometry],
        *,
        solver: str | Solver,
        first_rate: float,
        wish: Wish = "auto",
        passes: int = 0,
    ) -> None:
        self._wish: Wish = wish
        self._geometries, self._solver, self._first_rate = geometries, solver, first_rate
        self._crews, self._has_unread_reports = Crews(), False
        self._overlap = Overlap(passes, self._crews.second_group) if passes else None
        self._stepped: tuple[bool, ...] = ()
        self.rebuild(groups)
        if wish == "rows" and not self._rows:
            raise nothing_by_rows()
        if passes and not self._owners.members:
            raise nothing_to_overlap("no matrix that an owner gathers")

    def rebuild(self, groups: Sequence[Group]) -> None:
        """Follow new groups."""
        self._parameters = [each for group in groups for each in group["params"]]
        _check_devices(self._parameters)
        members = members_in(groups, self._geometries, self._crews, solver=self._solver)
        members = with_rows(members, groups, self._wish, solver=self._solver)
        self._travelling = _travelling(groups)
        self._members = {(each.group, each.place): each for each in members}
        everyone = self._crews.everyone()
        has_early = self._overlap is not None
        self._roll = Roll(groups, self._geometries, self._members, everyone, overlaps=has_early)
        self._local = {
            place: LocalStandIn(each) for place, each in self._members.items() if each.way is LOCAL
        }
        self._owners = Owners([each for each in members if each.way is OWNER], self._overlap)
        self._here = self._new_roster(None)
        self._alike = self._owners.alike_elsewhere(self._roll.names)
        self._owned = self._new_roster(self._alike)
        self._rows = row_steps(
            [each for each in members if each.way is ROWS],
            lambda: self._new_roster(None),
            self._solver,
        )
        self._decider = Decider(self._roll)
        self._prepared: list[Any] = []

    def _new_roster(self, alike_elsewhere: Mapping[str, int] | None) -> Roster:
        return Roster(
            self._geometries,
            solver=self._solver,
            first_rate=self._first_rate,
            alike_elsewhere=alike_elsewhere,
        )

    def prepare_(self, groups: Sequence[Group], state: States) -> None:
        """Make the missing state of every weight. All processes make the same entries."""
        for (index, _), member in self._members.items():
            prepare_(state[member.parameter], member, groups[index], self._solver)
        self._owners.prepare(groups, state)
        self._refresh()
        own_groups, own_state = self._of_this_process(groups, state)
        self._here.rebuild(own_groups, only_with_gradient=False)
        self._here.prepare_(own_groups, own_state)
        self._prepared = self._signature(groups, state)

    def _refresh(self) -> bool:
        """Follow shards that have moved in memory; return whether any has."""
        moved = [each.refresh() for each in self._local.values()]
        return any(moved)

    def _signature(self, groups: Sequence[Group], state: States) -> list[Any]:
        """Whatever decides which entries a state needs; it costs less than looking at them."""
        settings = [
            (
                group.get("momentum", 0.0) > 0,
                group.get("noise_damping"),
                group.get("tangent_momentum"),
            )
            for group in groups
        ]
        return [
            *settings,
            *((each.dtype, each.device, len(state[each])) for each in self._parameters),
        ]

    def _of_this_process(
        self, groups: Sequence[Group], state: States
    ) -> tuple[list[dict[str, Any]], dict[Tensor, dict[str, Any]]]:
        """The groups and the state of whole parameters and local stand-ins."""
        own: dict[Tensor, dict[str, Any]] = {
            each: state[each] for each in self._parameters if not is_sharded(each)
        }
        for each in self._local.values():
            own[each.tensor] = shards_of(state[each.member.parameter])
        return local_groups(groups, self._local, self._members), own

    def allow_rate(self, lr: float) -> None:
        """Raise the limit of learning-rate tensors to at least `2 · lr`."""
        self._first_rate = lr
        self._here.allow_rate(lr)
        self._owned.allow_rate(lr)
        for each in self._rows:
            each.roster.allow_rate(lr)

    @_as_written
    def follow(self, groups: Sequence[Group], *, captured: bool, capturable: bool) -> bool:
        """Take the groups of this step; return whether parameters or the set of gradients have changed.

        Raises:
            ArgumentError: the step is captured.
        """
        if captured:
            raise ArgumentError(
                "SteepestDescent.step() in a captured graph",
                "needs whole weights",
                "sharded weights" + (" and capturable=True" if capturable else ""),
                "Step outside the graph.",
            )
        parameters = [each for group in groups for each in group["params"]]
        same = len(parameters) == len(self._parameters) and all(
            a is b for a, b in zip(parameters, self._parameters, strict=True)
        )
        same = same and self._travelling == _travelling(groups)
        if not same:
            self.rebuild(groups)
        before, self._stepped = self._stepped, self._roll.stepped(groups)
        if same and before == self._stepped:
            return False
        names = [name for name, each in zip(self._roll.names, self._stepped, strict=True) if each]
        alike = self._owners.alike_elsewhere(names)
        if alike != self._alike:
            self._alike = alike
            self._owned = self._new_roster(alike)
        return True

    @_as_written
    def step(
        self, groups: Sequence[Group], state: States, diagnoses: Diagnoses, *, captured: bool
    ) -> ArgumentError | None:
        """Step every weight. On the host, return the error of this or another process; then nothing has changed."""
        del captured
        if self._prepared != self._signature(groups, state) or self._refresh():
            self.prepare_(groups, state)
        with full_precision(self._roll.device.type):
            try:
                return self._step(groups, state, diagnoses)
            finally:
                self._owners.release()
                for each in self._local.values():
                    each.tensor.grad = None

    def _step(
        self, groups: Sequence[Group], state: States, diagnoses: Diagnoses
    ) -> ArgumentError | None:
        gradients = {
            each.name: shard_of_gradient(each.name, each.parameter) for each in self._roll.entries
        }
        for each in self._local.values():
            each.tensor.grad = gradients[each.member.name]
        self._owners.allocate()
        here_groups, here_state = self._of_this_process(groups, state)
        here = Party(self._here, here_groups, here_state)
        owned = Party(
            self._owned,
            owned_groups(groups, self._owners.stand_ins.values()),
            self._owners.states(),
        )
        parties = [here, owned, *(each.party(groups) for each in self._rows)]
        for each in parties:
            each.follow()
        early = self._owners.complete(gradients, groups, state, self._roll)
        decision = self._decider.decide(parties, list(gradients.values()), self._stepped, early)
        if isinstance(decision, ArgumentError):
            return decision
        here.step(decision, diagnoses)
        for each in self._rows:
            each.step(groups, state, self._roll, gradients, decision, diagnoses)
        if self._owners.members:
            members = self._owners.members
            shards = [self._owners.shards(each, state) for each in members]
            directions = solver_inputs(self._roll, members, groups, gradients, shards, decision)
            self._owners.gather(directions, shards, groups, self._roll, decision)
            owned.step(decision, diagnoses)
            self._owners.scatter(shards)
        if decision.ok is not None:
            self._has_unread_reports = True
            self._decider.report.post()
            for each in (*self._here.reports, *self._owned.reports):
                each.post()
        return None

    def failures(
        self, groups: Sequence[Group], *, wait: bool | None = None
    ) -> tuple[ArgumentError, int] | None:
        """The error of earlier steps on a device, and the number of steps that it cancelled; None without one."""
        if not self._has_unread_reports:
            return None
        failed = self._decider.report.read(wait=bool(wait))
        # They hold gaps, which adapt the plans of the next step.
        for each in (*self._here.reports, *self._owned.reports):
            each.read(wait=bool(wait))
        if failed is None:
            return None
        rosters = (self._here, self._owned, *(each.roster for each in self._rows))
        buckets = [bucket for each in rosters for bucket in each.buckets]
        is_rate = failed.rate_too_large and not failed.conflicts
        error = rate_error() if is_rate and not buckets else error_of([failed], buckets, groups)
        return error, failed.count

    def placement(self, groups: Sequence[Group]) -> ShardedPlacement:
        """The way of each sharded parameter, its owner if it has one, and its cost."""
        del groups
        return placement_of(
            list(self._members.values()),
            self._owners.to_owners,
            self._owners.to_holders,
            processes=self._crews.everyone().processes,
            flag_bytes=self._roll.agreement.bytes_per_step,
            row_bytes=sum(each.bytes_per_step for each in self._rows),
            overlap=None if self._overlap is None else self._overlap.counts,
        )

    def give_up(self) -> None:
        """Give up gradients of which some may be on their way to owners."""
        if self._overlap is not None:
            self._overlap.give_up()


def _travelling(groups: Sequence[Group]) -> list[bool]:
    """For each group, whether its settings need the momentum at an owner, and so no rows."""
    return [not is_fallback(each) and travels_with_momentum(each) for each in groups]


def _check_devices(parameters: Sequence[Tensor]) -> None:
    devices = dict.fromkeys(each.device for each in parameters)
    if len(devices) > 1:
        raise ArgumentError(
            "SteepestDescent(params)",
            "must be on one device of this process if some are sharded",
            " and ".join(map(str, devices)),
            "Move the model to one device, or build one optimizer for each.",
        )
