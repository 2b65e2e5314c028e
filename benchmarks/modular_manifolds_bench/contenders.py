"""The optimisers that are compared, each ready to take a recorded step again and again."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds_bench.gradients import MOMENTUM, Moment, Problem
from modular_manifolds_bench.timing import Contender

MUON = "torch.optim.Muon"
NOT_INSTALLED = "not installed: pip install 'modular-manifolds[bench]'"


@dataclass(frozen=True)
class Stepper:
    """An optimiser with its own weights, which can be reset to any recorded moment.

    `restore(moment)` writes weights, gradients, learning rate and state into the optimiser; `step` takes one step.
    """

    name: str
    weights: Sequence[Tensor]
    optimizer: torch.optim.Optimizer
    restore: Callable[[Moment], None]

    def contender(self, problem: Problem, *, most: int | None = None) -> Contender:
        """The timed unit: `optimizer.step()` from a moment of `problem`."""
        return Contender(
            self.name,
            lambda number: self.restore(problem.at(number)),
            self.optimizer.step,
            most,
        )


def ours(
    problem: Problem,
    *,
    name: str = "ours",
    manifold: mm.Manifold | None = None,
    solver: str | mm.solvers.Solver = "auto",
    warm: bool = True,
) -> Stepper:
    """`mm.SteepestDescent` on the weights of `problem`, in the spectral norm.

    Args:
        manifold: Stiefel without it.
        warm: start from the whole recorded state; else from its momentum alone.
    """
    out, into = problem.shape
    layers: list[mm.Module] = [
        mm.Linear(into, out, manifold=manifold or mm.Stiefel(), norm=mm.Spectral())
        for _ in problem.moments[0].weights
    ]
    net = reduce(lambda f, g: f >> g, layers)
    optimizer = mm.SteepestDescent(net, lr=0.1, momentum=MOMENTUM, nesterov=True, solver=solver)
    (group,) = optimizer.param_groups
    weights = group["params"]

    def restore(moment: Moment) -> None:
        _restore_weights(weights, moment)
        group["lr"], group["shares"] = moment.lr, [moment.share] * len(weights)
        for weight, state in zip(weights, moment.states, strict=True):
            kept = state if warm else {"momentum": state["momentum"]}
            optimizer.state[weight] = copy.deepcopy(kept)

    return Stepper(name, weights, optimizer, restore)


def torch_muon(problem: Problem) -> Stepper:
    """`torch.optim.Muon` with the same momentum and no weight decay."""
    weights = _parameters(problem)
    optimizer = torch.optim.Muon(
        weights, lr=0.1, momentum=MOMENTUM, nesterov=True, weight_decay=0.0
    )

    def restore(moment: Moment) -> None:
        _restore(optimizer, weights, moment, lambda m: {"momentum_buffer": m})

    return Stepper(MUON, weights, optimizer, restore)


def torch_adamw(problem: Problem) -> Stepper:
    """`torch.optim.AdamW` with its defaults and no weight decay; its second moment is the gradient's."""
    weights = _parameters(problem)
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0)

    def restore(moment: Moment) -> None:
        _restore(
            optimizer,
            weights,
            moment,
            lambda m: {
                "step": torch.tensor(10.0),
                "exp_avg": m,
                "exp_avg_sq": m.square(),
            },
        )

    return Stepper("torch.optim.AdamW", weights, optimizer, restore)


def riemannian_sgd(problem: Problem) -> Stepper | None:
    """geoopt's RiemannianSGD on its Stiefel manifold (Euclidean metric, QR); None if it is missing.

    geoopt's Stiefel manifold holds tall matrices only: a wide weight is given to it transposed.
    """
    geoopt = _geoopt()
    if geoopt is None:
        return None
    wide = problem.shape[0] < problem.shape[1]
    stiefel = geoopt.Stiefel(canonical=False)
    weights: list[Any] = [
        geoopt.ManifoldParameter(_tall(weight, wide), manifold=stiefel)
        for weight in problem.moments[0].weights
    ]
    optimizer = geoopt.optim.RiemannianSGD(weights, lr=0.1, momentum=MOMENTUM, nesterov=True)

    def restore(moment: Moment) -> None:
        turned = Moment(
            tuple(_tall(each, wide) for each in moment.weights),
            tuple(_tall(each, wide) for each in moment.gradients),
            tuple({"momentum": _tall(each["momentum"], wide)} for each in moment.states),
            moment.lr,
            moment.share,
        )
        _restore(optimizer, weights, turned, lambda m: {"momentum_buffer": m})

    return Stepper("geoopt RiemannianSGD", weights, optimizer, restore)


def _geoopt() -> ModuleType | None:
    with warnings.catch_warnings():
        # geoopt 0.5 uses torch.jit.script while it is imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return importlib.import_module("geoopt")
        except ImportError:
            return None


def _tall(x: Tensor, wide: bool) -> Tensor:
    return x.mT.contiguous() if wide else x.clone()


def _parameters(problem: Problem) -> list[Tensor]:
    return [torch.nn.Parameter(weight.clone()) for weight in problem.moments[0].weights]


def _restore(
    optimizer: torch.optim.Optimizer,
    weights: Sequence[Tensor],
    moment: Moment,
    state: Callable[[Tensor], dict[str, Any]],
) -> None:
    """As another optimiser would stand there: the same momentum under its own name."""
    _restore_weights(weights, moment)
    for weight, recorded in zip(weights, moment.states, strict=True):
        optimizer.state[weight] = state(recorded["momentum"].clone())


@torch.no_grad()
def _restore_weights(weights: Sequence[Tensor], moment: Moment) -> None:
    for weight, value, gradient in zip(weights, moment.weights, moment.gradients, strict=True):
        weight.copy_(value)
        weight.grad = gradient.clone()
