"""How good a step is, computed outside the clock and without the solver's own report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds_bench.baselines import DualAscent, Lyapunov
from modular_manifolds_bench.baselines.baseline import Baseline
from modular_manifolds_bench.contenders import Stepper
from modular_manifolds_bench.gradients import MOMENTUM, Moment

TIGHT = Lyapunov(tolerance=1e-4, max_iterations=60)
"""Finds the dual objective that a direction is held against."""


@dataclass(frozen=True)
class TallStep:
    """The problem that a step must descend, in float64 and tall: W with orthonormal columns and G of unit length."""

    w: Tensor
    g: Tensor

    @classmethod
    def of(cls, moment: Moment) -> TallStep:
        w, g = moment.weights[0].double(), descended(moment, 0).double()
        g = g / g.norm()
        return cls(w.mT, g.mT) if w.shape[-2] < w.shape[-1] else cls(w, g)

    def objective(self, multiplier: Tensor) -> float:
        """`‖G + 2WΛ‖_nuc`, which no tangent direction in the unit ball descends beyond."""
        shifted = self.g + 2 * self.w @ sym(multiplier.double())
        return float(torch.linalg.svdvals(shifted).sum())

    def descent(self, direction: Tensor) -> float:
        """`−<G, A>` of the tangent part of `direction`, shrunk into the unit ball."""
        a = direction.double()
        a = a.mT if a.shape != self.g.shape else a
        a = a - self.w @ sym(self.w.mT @ a)
        longest = float(torch.linalg.eigvalsh(a.mT @ a)[-1].clamp_min(0).sqrt())
        return -float((self.g * a).sum()) / max(1.0, longest)


def descended(moment: Moment, index: int) -> Tensor:
    """The combination that the step with Nesterov momentum descends: `μ B + (1 − μ) G` after B took G in."""
    gradient = moment.gradients[index]
    momentum = moment.states[index]["momentum"].lerp(gradient, 1 - MOMENTUM)
    return gradient.lerp(momentum, MOMENTUM)


def best_dual(moment: Moment) -> float:
    """The lowest dual objective that a tight solve in float64 finds."""
    problem = TallStep.of(moment)
    found = mm.steepest(
        mm.Stiefel(),
        mm.Spectral(),
        moment.weights[0].double(),
        descended(moment, 0).double(),
        solver=TIGHT,
        dual=moment.states[0].get("dual"),
    )
    assert found.dual is not None
    return problem.objective(found.dual)


def direction(moment: Moment) -> Tensor:
    """The direction of the default solver from the starting values of a training step."""
    return mm.steepest(
        mm.Stiefel(),
        mm.Spectral(),
        moment.weights[0],
        descended(moment, 0),
        dual=moment.states[0].get("dual"),
    ).direction


def true_gap(moment: Moment, direction: Tensor, best: float) -> float:
    """How far `direction` falls short of `best`, as a part of it."""
    return (best - TallStep.of(moment).descent(direction)) / best


@dataclass(frozen=True)
class Remembering(Baseline):
    """Dual ascent that keeps its last direction: a second solve of many seconds is then not needed."""

    inner: mm.solvers.Solver = field(default_factory=DualAscent)
    found: list[Tensor] = field(default_factory=list, compare=False)

    name = DualAscent.name
    reason = DualAscent.reason

    def solve(
        self,
        manifold: mm.Manifold,
        norm: mm.Norm,
        point: Tensor,
        gradient: Tensor,
        dual: Tensor | None,
    ) -> mm.Solution:
        solution = self.inner.solve(manifold, norm, point, gradient, dual)
        # The step writes into the direction that it is given.
        self.found[:] = [solution.direction.clone()]
        return solution


@torch.no_grad()
def orthogonality(stepper: Stepper, moment: Moment) -> float:
    """Root mean square of `|σ − 1|` over the singular values of the directions that a step takes.

    The weights are put at zero, so that a step lands on its direction times its length; the length is
    divided out as each optimiser defines it. For plain Muon only: zero is on no other manifold.
    """
    stepper.restore(moment)
    for group in stepper.optimizer.param_groups:
        group["lr"] = 1.0
        if "shares" in group:
            group["shares"] = [1.0] * len(group["params"])
    for weight in stepper.weights:
        weight.zero_()
    stepper.optimizer.step()
    rows, columns = stepper.weights[0].shape
    # torch's Muon steps by lr · √max(1, rows/columns) unless told otherwise.
    theirs = isinstance(stepper.optimizer, torch.optim.Muon)
    length = max(1.0, rows / columns) ** 0.5 if theirs else 1.0
    return _spread(stepper.weights, length)


def _spread(landed: Sequence[Tensor], length: float) -> float:
    values = torch.linalg.svdvals(torch.stack([each.detach().double() for each in landed]) / length)
    return float((values - 1).square().mean().sqrt())
