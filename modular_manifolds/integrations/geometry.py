"""Numbers that tell how geometry and responses fare during training, for any logger."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from modular_manifolds.adapt import ModelPlan
from modular_manifolds.arguments import check_count
from modular_manifolds.certificates import conditioning
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.optim import SteepestDescent


class GeometryMonitor:
    """Geometry and responses of an adapted model as numbers by name, as loggers take them.

    Nothing is written to the model, and no random number of the training is drawn: a run with a monitor has the same bits
    as one without.

    Args:
        plan: the plan of the model, or a declared network.
        batch: a batch to measure responses on; it stays the same during training. None for geometry alone.
        loss: as in `ModelPlan.measure`.
        probes: the number of backward passes of one measurement.
        each: whether every logical matrix has numbers of its own, beside those of all of them.

    Raises:
        ArgumentError: a batch is given with a declared network, whose bounds need no measuring.
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
                "Its budget bounds every response already: print(mm.budget(net)).",
            )
        self._plan, self._batch = plan, batch
        self._loss, self._probes, self._each = loss, probes, each
        first = {r.name: r.response for r in plan.rows} if isinstance(plan, ModelPlan) else {}
        self.first: dict[str, float] = {k: v for k, v in first.items() if v is not None}
        """The responses that drift is told against: those of the plan, or the first that were measured."""

    @property
    def measures(self) -> bool:
        """Whether there is a batch to measure responses on."""
        return self._batch is not None

    def geometry(self, optimizer: Any = None) -> dict[str, float]:
        """The weights with a bounded manifold as they are now, in float64.

        `geometry/off_manifold` is the largest residual, `geometry/largest_sigma` and `geometry/smallest_sigma` are singular
        values over all matrices, `geometry/condition` is the largest ratio of the two in one matrix. With an optimiser,
        inside a trainer's wrapper or not, `geometry/gap` is the largest relative duality gap of the last solves.
        """
        rows = conditioning(_bounded(self._plan)).rows
        found: dict[str, float] = {}
        if rows:
            found["geometry/off_manifold"] = max(row.residual for row in rows)
        matrices = [row for row in rows if not row.vector]
        if matrices:
            found["geometry/largest_sigma"] = max(row.largest for row in matrices)
            found["geometry/smallest_sigma"] = min(row.smallest for row in matrices)
            found["geometry/condition"] = max(row.condition or math.inf for row in matrices)
        steepest = inner_optimizer(optimizer)
        if steepest is not None:
            gaps = {name: float(each.gap.amax()) for name, each in steepest.diagnoses.items()}
            if gaps:
                found["geometry/gap"] = max(gaps.values())
            if self._each:
                found |= {f"gap/{name}": gap for name, gap in gaps.items()}
        if self._each:
            for row in rows:
                found[f"off_manifold/{row.path}"] = row.residual
                found[f"largest_sigma/{row.path}"] = row.largest
                found[f"smallest_sigma/{row.path}"] = row.smallest
        return found

    def responses(self) -> dict[str, float]:
        """The responses on the batch as they are now, against the first ones.

        `response/drift` is the largest factor by which a response has grown or shrunk. `response/output_change` is the sum of
        share times response: how far a step of rate 1 may move the outputs of this batch. It starts at 1 with measured
        shares.

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
        found = {
            "response/drift": max(_factor(now[name], self.first[name]) for name in now),
            "response/output_change": sum(shares[name] * each for name, each in now.items()),
        }
        if self._each:
            found |= {f"response/{name}": each for name, each in now.items()}
        return found


class Schedule:
    """When a callback logs: after every so many steps of the optimiser, once each.

    Args:
        monitor: makes the numbers.
        every: the number of steps between two looks at the geometry.
        measure_every: the number of steps between two measurements of responses; None for ten times `every`.

    Raises:
        ArgumentError: a number is not a whole one above zero.
    """

    def __init__(self, monitor: GeometryMonitor, *, every: int, measure_every: int | None) -> None:
        self._monitor = monitor
        self._every = check_count(every, argument="GeometryCallback(every)", what="steps")
        given = 10 * every if measure_every is None else measure_every
        self._measure_every = check_count(
            given, argument="GeometryCallback(measure_every)", what="steps"
        )
        self._last = 0

    def numbers(self, step: int, optimizer: Any) -> Mapping[str, float]:
        """The numbers that are due after `step` steps; none if nothing is due, or if the step was seen before."""
        if step == self._last or not step:
            return {}
        self._last = step
        found: dict[str, float] = {}
        if step % self._every == 0:
            found |= self._monitor.geometry(optimizer)
        if self._monitor.measures and (step == 1 or step % self._measure_every == 0):
            found |= self._monitor.responses()
        return found


def inner_optimizer(optimizer: Any) -> SteepestDescent | None:
    """This library's optimiser inside a trainer's wrapper; None if there is none."""
    while optimizer is not None and not isinstance(optimizer, SteepestDescent):
        optimizer = getattr(optimizer, "optimizer", None)
    return optimizer


def _bounded(plan: Weighted) -> Weighted:
    """The plan with its bounded manifolds only: nothing is to be seen of an embedding without one, and it is large."""
    if not isinstance(plan, ModelPlan):
        return plan
    return replace(plan, rows=tuple(r for r in plan.rows if r.geometry.manifold.compact))


def _factor(now: float, before: float) -> float:
    """How much larger one of two responses is; 1 if both are zero."""
    if now == before:
        return 1.0
    return math.inf if min(now, before) <= 0 else max(now / before, before / now)
