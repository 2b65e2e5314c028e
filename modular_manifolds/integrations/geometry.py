"""Metrics of geometry and responses during training, for any logger."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from modular_manifolds.adaptation import ModelPlan
from modular_manifolds.arguments import check_count
from modular_manifolds.certificates import conditioning
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.optim import SteepestDescent


class GeometryMonitor:
    """Metrics of an adapted model's geometry and responses, by name.

    A monitor does not change the model or torch's random state, so a run is the same, bit for bit, with and without it.

    Args:
        plan: the plan of the model, or a declared network.
        batch: a fixed batch for measuring responses; None for geometry only.
        loss: as in `ModelPlan.measure`.
        probes: the number of backward passes of one measurement.
        each: whether to add separate metrics for each logical matrix.

    Raises:
        ArgumentError: a batch is given for a declared network, whose budget already bounds responses.
    """

    def __init__(
        self,
        plan: Weighted,
        batch: Any = None,
        *,
        loss: Callable[..., Tensor] | None = None,
        probes: int = 16,
        each: bool = False,
    ) -> None:
        if batch is not None and not isinstance(plan, ModelPlan):
            raise ArgumentError(
                "GeometryMonitor(batch)",
                "must be left out for a declared network",
                type(batch).__name__,
                "Its budget already bounds every response: print(mm.budget(net)).",
            )
        self._plan, self._batch = plan, batch
        self._loss, self._probes, self._each = loss, probes, each
        first = {r.name: r.response for r in plan.rows} if isinstance(plan, ModelPlan) else {}
        self.first: dict[str, float] = {k: v for k, v in first.items() if v is not None}
        """The reference responses for drift: those of the plan, or the first measured ones."""

    @property
    def measures(self) -> bool:
        """Whether there is a batch for measuring responses."""
        return self._batch is not None

    def geometry(self, optimizer: Any = None) -> dict[str, float]:
        """Metrics of the current weights on bounded manifolds, in float64.

        `geometry/off_manifold` is the largest residual, `geometry/largest_sigma` and `geometry/smallest_sigma` are singular
        values over all matrices, `geometry/condition` is the largest condition number of a matrix. With an optimiser,
        possibly inside a trainer's wrapper, `geometry/gap` is the largest relative duality gap of the last solves.
        """
        rows = conditioning(_bounded(self._plan)).rows
        numbers: dict[str, float] = {}
        if rows:
            numbers["geometry/off_manifold"] = max(row.residual for row in rows)
        matrices = [row for row in rows if not row.vector]
        if matrices:
            numbers["geometry/largest_sigma"] = max(row.largest for row in matrices)
            numbers["geometry/smallest_sigma"] = min(row.smallest for row in matrices)
            numbers["geometry/condition"] = max(row.condition or math.inf for row in matrices)
        steepest = inner_optimizer(optimizer)
        if steepest is not None:
            gaps = {name: float(each.gap.amax()) for name, each in steepest.diagnoses.items()}
            if gaps:
                numbers["geometry/gap"] = max(gaps.values())
            if self._each:
                numbers |= {f"gap/{name}": gap for name, gap in gaps.items()}
        if self._each:
            for row in rows:
                numbers[f"off_manifold/{row.path}"] = row.residual
                numbers[f"largest_sigma/{row.path}"] = row.largest
                numbers[f"smallest_sigma/{row.path}"] = row.smallest
        return numbers

    def responses(self) -> dict[str, float]:
        """Metrics of the current responses on the batch.

        `response/drift` is the largest factor by which a response has changed since the first measurement.
        `response/output_change` is the sum of share times response: a bound on the change of this batch's outputs by a step
        of rate 1. It starts at 1 with measured shares.

        Raises:
            ArgumentError: there is no batch.
        """
        if self._batch is None or not isinstance(self._plan, ModelPlan):
            raise ArgumentError(
                "GeometryMonitor.responses()",
                "needs a batch",
                "none",
                "Pass batch=... to GeometryMonitor.",
            )
        measured = self._plan.measure(
            self._batch, loss=self._loss, probes=self._probes, progress=False
        )
        now = {row.name: row.response or 0.0 for row in measured.rows}
        self.first = self.first or now
        shares = {row.path: row.share for row in self._plan.budget().rows}
        numbers = {
            "response/drift": max(_factor(now[name], self.first[name]) for name in now),
            "response/output_change": sum(shares[name] * each for name, each in now.items()),
        }
        if self._each:
            numbers |= {f"response/{name}": each for name, each in now.items()}
        return numbers


class Schedule:
    """The schedule of a callback: it logs after every `every` optimiser steps.

    Args:
        monitor: the source of the metrics.
        every: the number of steps between two logs of the geometry.
        measure_every: the number of steps between two measurements of responses; None for ten times `every`.

    Raises:
        ArgumentError: a number is not a positive integer.
    """

    def __init__(self, monitor: GeometryMonitor, *, every: int, measure_every: int | None) -> None:
        self._monitor = monitor
        self._every = check_count(every, argument="GeometryCallback(every)", what="steps")
        steps = 10 * every if measure_every is None else measure_every
        self._measure_every = check_count(
            steps, argument="GeometryCallback(measure_every)", what="steps"
        )
        self._last = 0

    def numbers(self, step: int, optimizer: Any) -> Mapping[str, float]:
        """The metrics to log after `step` steps; empty if none are due, or if this step was logged already."""
        if step == self._last or not step:
            return {}
        self._last = step
        numbers: dict[str, float] = {}
        if step % self._every == 0:
            numbers |= self._monitor.geometry(optimizer)
        if self._monitor.measures and (step == 1 or step % self._measure_every == 0):
            numbers |= self._monitor.responses()
        return numbers


def inner_optimizer(optimizer: Any) -> SteepestDescent | None:
    """This library's optimiser inside a trainer's wrapper; None if there is none."""
    while optimizer is not None and not isinstance(optimizer, SteepestDescent):
        optimizer = getattr(optimizer, "optimizer", None)
    return optimizer


def _bounded(plan: Weighted) -> Weighted:
    """The plan without unbounded manifolds, which have no geometry to monitor."""
    if not isinstance(plan, ModelPlan):
        return plan
    return replace(plan, rows=tuple(r for r in plan.rows if r.geometry.manifold.compact))


def _factor(now: float, before: float) -> float:
    """The ratio of the larger response to the smaller one; 1 if both are zero."""
    if now == before:
        return 1.0
    return math.inf if min(now, before) <= 0 else max(now / before, before / now)
