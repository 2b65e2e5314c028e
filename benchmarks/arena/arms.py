"""The arms: optimisers whose learning rates, and for manifolds the scale of the points, are left open.

A new arm is one row of the table.

All arms have the same schedule, the same batches and the same initial weights. The arms on a manifold begin with the
nearest points of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

import modular_manifolds as mm
from arena.hidden import hidden_rows, hidden_rules, matrix_of
from arena.muon import HiddenMuon

MUON_MOMENTUM = 0.8
"""torch's Muon, with Nesterov's variant. On `gpt` and `mlp-cifar10` it ends lower than 0.7, 0.9 and 0.95."""

MOMENTUM = 0.9
"""The library's arms, with Nesterov's variant. On `gpt` it ends lower than 0.8, 0.85 and 0.95."""

BETAS: Final = (0.9, 0.95)
"""AdamW's averages."""

Build = Callable[[nn.Module, Tensor, tuple[float, ...], int], list[Optimizer]]
"""`build(model, inputs, values, seed)`: the optimisers that step all weights together; `inputs` is a batch to measure on."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An optimiser.

    Args:
        build: makes it.
        centre: the values at which tuning begins: one or two rates, or a rate and a scale.
        default: the values that a user would try first.
        title: the name in tables.
        constrained: whether hidden matrices stay on a manifold.
        scaled: whether the second value is the scale of the manifold: the largest singular value of hidden matrices, in
            units of the norm.
    """

    build: Build
    centre: tuple[float, ...]
    default: tuple[float, ...]
    title: str
    constrained: bool = False
    scaled: bool = False

    @property
    def directions(self) -> tuple[tuple[int, ...], ...]:
        """The moves of tuning, of which the first changes all rates and nothing else."""
        if len(self.centre) == 1:
            return ((1,),)
        together, first, second = (1, 1), (1, 0), (0, 1)
        return (first, second, together) if self.scaled else (together, second, first)


def _groups(parameters: list[nn.Parameter], decay: float) -> list[dict[str, object]]:
    """AdamW's groups: only matrices decay."""
    groups = (
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def adamw(decay: float) -> Build:
    """AdamW on every weight."""

    def build(
        model: nn.Module, inputs: Tensor, rates: tuple[float, ...], seed: int
    ) -> list[Optimizer]:
        del inputs, seed
        return [AdamW(_groups(list(model.parameters()), decay), lr=rates[0], betas=BETAS)]

    return build


def torch_muon(decay: float) -> Build:
    """torch's Muon on hidden matrices at the first rate, AdamW on the rest at the second."""

    def build(
        model: nn.Module, inputs: Tensor, rates: tuple[float, ...], seed: int
    ) -> list[Optimizer]:
        del inputs, seed
        muon = HiddenMuon(
            model, lr=rates[0], weight_decay=decay, momentum=MUON_MOMENTUM, nesterov=True
        )
        rest = [p for p in model.parameters() if p not in muon.stepped]
        return [muon, AdamW(_groups(rest, decay), lr=rates[1], betas=BETAS)]

    return build


def budgeted(manifold: mm.Manifold) -> Build:
    """`SteepestDescent` on an adapted model, with the measured budget, one rate for all weights and a scale of the manifold."""

    def build(
        model: nn.Module, inputs: Tensor, values: tuple[float, ...], seed: int
    ) -> list[Optimizer]:
        rate, *scale = values
        rules = hidden_rules(model, manifold.scaled(scale[0]) if scale else manifold)
        plan = mm.adapt(model, rules, example_inputs=inputs, seed=seed, progress=False)
        return [mm.SteepestDescent(plan, rate, momentum=MOMENTUM, nesterov=True)]

    return build


def ball_and_adamw(
    model: nn.Module, inputs: Tensor, rates: tuple[float, ...], seed: int
) -> list[Optimizer]:
    """Hidden matrices in a spectral ball at the first rate, AdamW on the rest at the second, as with torch's Muon.

    The ball holds twice the singular values that keep the size of independent inputs: `2 max(1, √(out/in))`. Queries, keys
    and values are three matrices with all of their heads, as torch's Muon has them.
    """
    parameters = dict(model.named_parameters())
    rules: list[mm.Rule | mm.Fallback] = []
    for name, rows in groupby(hidden_rows(model), key=lambda row: row.parameter):
        parts = list(rows)
        height, width = matrix_of(parts[0], parameters[name].detach()).shape
        # In units of the rms operator norm a wide matrix of singular values 1 is as large as this.
        wide = max(1.0, math.sqrt(width / height))
        ball = mm.SpectralBall().scaled(2 * wide)
        split = mm.Split(parts=len(parts)) if len(parts) > 1 else None
        rules.append(mm.Rule(name, manifold=ball, norm=mm.RMSOperator(), mass=wide, split=split))
    rules.append(mm.Fallback("*", lr=rates[1], betas=BETAS, weight_decay=0.0))
    plan = mm.adapt(model, rules, example_inputs=inputs, seed=seed, progress=False)
    return [mm.SteepestDescent(plan, rates[0], momentum=MUON_MOMENTUM, nesterov=True)]


def _ours(manifold: mm.Manifold, title: str) -> Arm:
    constrained = not isinstance(manifold, mm.Euclidean)
    start = (1.0, 1.0) if constrained else (1.0,)
    return Arm(
        build=budgeted(manifold),
        centre=start,
        default=start,
        title=title,
        constrained=constrained,
        scaled=constrained,
    )


ARMS: Final[dict[str, Arm]] = {
    "adamw": Arm(build=adamw(0.0), centre=(2**-8,), default=(1e-3,), title="AdamW"),
    "adamw-decay": Arm(
        build=adamw(0.1), centre=(2**-8,), default=(1e-3,), title="AdamW, decay 0.1"
    ),
    "muon-adamw": Arm(
        build=torch_muon(0.0),
        centre=(2**-5, 2**-7),
        default=(0.02, 1e-3),
        title="torch Muon and AdamW",
    ),
    "muon-adamw-decay": Arm(
        build=torch_muon(0.1),
        centre=(2**-5, 2**-7),
        default=(0.02, 1e-3),
        title="torch Muon and AdamW, decay 0.1",
    ),
    "budget": _ours(mm.Euclidean(), "budget, no manifold (Muon)"),
    "stiefel": _ours(mm.Stiefel(), "budget, Stiefel"),
    "spectral-ball": _ours(mm.SpectralBall(), "budget, SpectralBall"),
    "ball-adamw": Arm(
        build=ball_and_adamw,
        centre=(1.0, 2**-6),
        default=(1.0, 1e-3),
        title="SpectralBall and AdamW",
        constrained=True,
    ),
    "spectral-sphere": _ours(mm.SpectralSphere(), "budget, SpectralSphere"),
    "sphere": _ours(mm.Sphere(), "budget, Sphere"),
}
"""The arms by name, those without a constraint first."""
