"""Problems with recorded gradients, and a quick setting."""

from __future__ import annotations

import torch
from modular_manifolds_bench import (
    Settings,
    gradients,
)

import modular_manifolds as mm

QUICK = Settings(rounds=2, drift_steps=50)


def problems() -> list[gradients.Problem]:
    """Two weights of a small net on the digits, each at two moments."""
    torch.manual_seed(0)
    net = gradients.perceptron((64, 24, 10))
    found = gradients.record(
        net, gradients.digits_alone(), steps=6, at=(3, 5), lr=0.1, share=1.0, batch=128
    )
    return gradients.one_weight_each(found)


def stack() -> gradients.Problem:
    """Three square weights of one net."""
    torch.manual_seed(0)
    net = gradients.perceptron((64,) * 4, mm.Abs)
    found = gradients.record(
        net, gradients.digits_alone(), steps=3, at=(1, 2), lr=0.1, share=0.3, batch=128
    )
    return gradients.all_weights(found, name="3 of 64×64")
