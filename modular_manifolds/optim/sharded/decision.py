"""The decision of a step: taken by all processes or by none, from numbers on the host or by a flag on the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.matrices import readable
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.mailbox import Report
from modular_manifolds.optim.on_device import largest_allowed, rates_allowed, step_on_device
from modular_manifolds.optim.on_host import step_on_host
from modular_manifolds.optim.roster import Roster
from modular_manifolds.optim.sharded.agreement import Agreed
from modular_manifolds.optim.sharded.gradients import largest_entries
from modular_manifolds.optim.sharded.roll import Roll


@dataclass(frozen=True)
class Decision:
    """A step that may be taken.

    Args:
        ok: whether it is taken, on the device; None if it is taken on the host.
        reached: whether each unit has a nonzero gradient on some process; false for all if the step is cancelled.
        moving: the same for each weight, by name.
    """

    ok: Tensor | None
    reached: Tensor
    moving: Mapping[str, Tensor]


@dataclass(frozen=True)
class Party:
    """Weights that this process steps, all at once.

    Args:
        roster: their buckets.
        groups: their groups.
        state: their state.
    """

    roster: Roster
    groups: Sequence[Mapping[str, Any]]
    state: Mapping[Tensor, dict[str, Any]]

    def follow(self) -> None:
        """Take the gradients of this step."""
        if not self.roster.is_current(self.groups):
            self.roster.rebuild(self.groups)

    def rate_error(self) -> ArgumentError | None:
        """The error of a rate tensor above the limit of a plan; None if there is none."""
        try:
            for bucket in self.roster.buckets:
                bucket.check_rate(self.groups[bucket.group]["lr"])
        except ArgumentError as error:
            return error
        return None

    def step(self, decision: Decision, diagnoses: Diagnoses) -> None:
        """Step every weight."""
        roster = self.roster
        if decision.ok is None:
            step_on_host(
                roster.buckets,
                roster.fallback_weights,
                self.groups,
                self.state,
                diagnoses,
                agree=lambda _: None,
            )
            return
        flags = [
            (decision.ok, torch.stack([decision.moving[name] for name in report.names]))
            for report in roster.reports
        ]
        for report in roster.reports:
            report.left_out.add_(torch.logical_not(decision.ok))
        step_on_device(roster.reports, self.groups, self.state, diagnoses, flags=flags)


def decided_on_host(gradients: Iterable[Tensor | None]) -> bool:
    """Whether the host reads the numbers of the decision."""
    return all(readable(each) for each in gradients if each is not None)


class Decider:
    """Decides each step with all other processes, and reports on the device.

    Args:
        roll: all weights.
    """

    def __init__(self, roll: Roll) -> None:
        self._roll = roll
        self.report = Report(roll.device, [], agreed=roll.agreement.names, names=roll.names)

    def decide(
        self,
        parties: Sequence[Party],
        gradients: Sequence[Tensor | None],
        stepped: tuple[bool, ...],
        early: tuple[Tensor, Tensor] | None = None,
    ) -> Decision | ArgumentError:
        """The decision, or on the host the error that stops all processes.

        Args:
            parties: the weights that this process steps.
            gradients: the shard of each gradient, in the order of the roll.
            stepped: whether this process steps each weight.
            early: the two numbers of early messages, see `Overlap.complete`; None without them.
        """
        roll = self._roll
        largest = largest_entries(roll.entries, gradients, roll.dtype)
        if not all(stepped):
            # Gradients of weights that rest do not count.
            largest = torch.where(roll.agreement.spread(stepped), largest, 0.0)
        if not decided_on_host((largest, *gradients)):
            return self._decide_on_device(parties, largest, stepped, early)
        errors = [error for each in parties if (error := each.rate_error()) is not None]
        cancelled = largest.new_full((1,), float(bool(errors)))
        agreed = roll.agreement.reduce(cancelled, largest, stepped, early)
        error = errors[0] if errors else roll.agreement.error(agreed, largest)
        return error or Decision(None, agreed.units > 0, {})

    def _decide_on_device(
        self,
        parties: Sequence[Party],
        largest: Tensor,
        stepped: tuple[bool, ...],
        early: tuple[Tensor, Tensor] | None,
    ) -> Decision:
        allowed = [
            flag
            for each in parties
            for report in each.roster.reports
            if (flag := rates_allowed(report.buckets, each.groups, largest.device)) is not None
        ]
        cancelled = largest.new_zeros(1)
        if allowed:
            cancelled = torch.logical_not(torch.stack(allowed).all()).to(largest.dtype).reshape(1)
        agreed = self._roll.agreement.reduce(cancelled, largest, stepped, early)
        ok = self._count(agreed)
        moving = dict(zip(self._roll.names, ((agreed.weights > 0) & ok).unbind(), strict=True))
        return Decision(ok, (agreed.units > 0) & ok, moving)

    def _count(self, agreed: Agreed) -> Tensor:
        """Whether the step is taken; the report counts the reasons against it."""
        finite = agreed.weights < largest_allowed(agreed.weights)
        refused = (agreed.cancelled > 0).any()
        ok = finite.all() & torch.logical_not(refused | agreed.conflicts.any())
        self.report.nonfinite.add_(torch.logical_not(finite))
        self.report.rate_too_large.add_(refused)
        self.report.conflicts.add_(agreed.conflicts)
        self.report.left_out.add_(torch.logical_not(ok))
        return ok
