"""The table of reports, and a network for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.training.guarantees import guarantees
from modular_manifolds.training.health import health

FEATURES, CLASSES = 6, 3

ATTACK = mm.ProjectedGradient(steps=3, restarts=2)


def network() -> mm.Module:
    """Weights on three manifolds, and dropout."""
    return (
        mm.Linear(FEATURES, 5)
        >> mm.ReLU()
        >> mm.Dropout(0.4)
        >> mm.Linear(5, 5, manifold=mm.SpectralBall())
        >> mm.Flatten()
        >> mm.Linear(5, CLASSES, manifold=mm.Euclidean())
    )


def scene() -> tuple[mm.Module, Tensor, Tensor]:
    """The network, points and labels that it predicts."""
    torch.manual_seed(3)
    net = network()
    x = torch.randn(8, FEATURES)
    return net, x, net.eval()(x).argmax(dim=1)


def without_dropout(net: mm.Module) -> mm.Module:
    parts = [each for each in net.children() if isinstance(each, mm.Module)]
    return mm.Series(*[each for each in parts if not isinstance(each, mm.Dropout)])


def attacked(net: mm.Module, x: Tensor, y: Tensor) -> list[float]:
    return ATTACK(net.double(), x.double(), y, 0.5).flatten().tolist()


Report = Callable[[mm.Module, Tensor, Tensor], Any]

REPORTS: dict[str, Report] = {
    "lipschitz": lambda net, _, __: mm.lipschitz(net, radius=9.0, starts=3, iterations=4),
    "lipschitz at points": lambda net, x, _: mm.lipschitz(net, points=x, iterations=4),
    "activations": lambda net, _, __: mm.activations(net, radius=2.0),
    "activations at points": lambda net, x, _: mm.activations(net, points=x),
    "conditioning": lambda net, _, __: mm.conditioning(net),
    "robustness": lambda net, x, y: mm.robustness(net, x, y, radii=[0.1, 0.5], attack=ATTACK),
    "local": lambda net, x, _: mm.local_lipschitz(without_dropout(net), x[0], radius=1e-4),
    "attack": attacked,
    "check_module": lambda net, _, __: mm.testing.check_module(net),
}

OF_A_RUN: dict[str, Report] = {
    "guarantees": lambda net, x, _: guarantees(net, 0.1, x).lipschitz,
    "health": lambda net, _, __: health(net),
}

ALL = REPORTS | OF_A_RUN


@cache
def plain(report: str) -> str:
    """The numbers of a report outside all modes, to the last bit."""
    return repr(ALL[report](*scene()))
