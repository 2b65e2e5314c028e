"""Steps of weights that every process holds whole: alone, or as a replica that shares the solves with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.matrices import readable
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.optim.capture import check_capture
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.exchange import Exchange
from modular_manifolds.optim.groups import weights_in
from modular_manifolds.optim.mailbox import FailedSteps, error_of
from modular_manifolds.optim.on_device import step_on_device
from modular_manifolds.optim.on_host import step_on_host
from modular_manifolds.optim.placement import Placement, place
from modular_manifolds.optim.roster import Roster
from modular_manifolds.solvers.base import Solver

Group = Mapping[str, Any]
States = Mapping[Tensor, dict[str, Any]]


class WholeSteps:
    """The steps of an optimiser, its reports and its placement.

    Args:
        geometries: the geometry of every weight, by name.
        solver: the optimiser's argument.
        first_rate: the largest learning rate known at construction.
        exchange: the processes that share the solves; None if this process solves every weight.
        processes: the number of processes that average their gradients.
    """

    def __init__(
        self,
        geometries: Mapping[str, Geometry],
        *,
        solver: str | Solver,
        first_rate: float,
        exchange: Exchange | None = None,
        processes: int = 1,
    ) -> None:
        self._roster = Roster(geometries, solver=solver, first_rate=first_rate, exchange=exchange)
        self._geometries, self._solver = geometries, solver
        self._exchange, self._processes = exchange, processes

    def rebuild(self, groups: Sequence[Group]) -> None:
        """Follow new groups, before their first backward pass."""
        self._roster.rebuild(groups, only_with_gradient=False)

    def prepare_(self, groups: Sequence[Group], state: States) -> None:
        """Make the missing state of every weight."""
        self._roster.prepare_(groups, state)

    def allow_rate(self, lr: float) -> None:
        """Raise the limit of learning-rate tensors to at least `2 · lr`."""
        self._roster.allow_rate(lr)

    def follow(self, groups: Sequence[Group], *, captured: bool, capturable: bool) -> bool:
        """Take the gradients of this step; return whether weights or the set of gradients have changed.

        Raises:
            ArgumentError: the step is captured, and would freeze a changing value.
        """
        roster = self._roster
        if captured:
            check_capture(capturable, roster, groups)
            roster.was_captured = True
            return False
        if roster.is_current(groups):
            return False
        roster.rebuild(groups)
        return True

    def step(
        self, groups: Sequence[Group], state: States, diagnoses: Diagnoses, *, captured: bool
    ) -> ArgumentError | None:
        """Step every weight. On the host, return the error of a gradient that is not finite; then nothing has changed."""
        roster = self._roster
        moving = roster.parameters()
        if not moving:
            return None
        roster.prepare_(groups, state)
        exchange = roster.exchange
        with full_precision(moving[0].device.type):
            if all(map(readable, moving)):
                for bucket in roster.buckets:
                    bucket.check_rate(groups[bucket.group]["lr"])
                agree = None if exchange is None else exchange.agreement.on_host
                return step_on_host(
                    roster.buckets,
                    roster.fallback_weights,
                    groups,
                    state,
                    diagnoses,
                    exchange,
                    agree=agree,
                )
            step_on_device(roster.reports, groups, state, diagnoses, exchange)
            roster.has_unread_reports = True
            if not captured and not torch.compiler.is_compiling():
                for report in roster.reports:
                    report.post()
        return None

    def give_up(self) -> None:
        """Gradients of whole weights are never on their way to another process."""

    def failures(
        self, groups: Sequence[Group], *, wait: bool | None = None
    ) -> tuple[ArgumentError, int] | None:
        """The error of earlier steps on a device, and the number of steps that it cancelled; None without one.

        Args:
            groups: the parameter groups.
            wait: whether to wait for the device; by default only after a capture.
        """
        roster = self._roster
        if not roster.has_unread_reports:
            return None
        wait = roster.was_captured if wait is None else wait
        reports = [each.read(wait=wait) for each in roster.reports]
        failed: list[FailedSteps] = [each for each in reports if each is not None]
        if not failed:
            return None
        error = error_of(failed, roster.buckets, groups)
        return error, max(each.count for each in failed)

    def placement(self, groups: Sequence[Group]) -> Placement:
        """The process that solves each weight."""
        if self._exchange is not None:
            return self._exchange.placement
        weights = list(weights_in(groups, self._geometries))
        return place(weights, self._processes, solver=self._solver, replicate=True)
