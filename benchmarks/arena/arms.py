"""The arms: optimisers with their learning rates left open. A new arm is one row of the table.

All arms have the same schedule, the same batches and the same initial weights. The arms on a manifold begin with the
nearest points of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

import modular_manifolds as mm
from arena.hidden import hidden_rules
from arena.muon import HiddenMuon

MOMENTUM = 0.95
"""The momentum of Muon and of the library's arms, with Nesterov's variant."""

BETAS: Final = (0.9, 0.95)
"""AdamW's averages."""

Build = Callable[[nn.Module, Tensor, tuple[float, ...], int], list[Optimizer]]
"""`build(model, inputs, rates, seed)`: the optimisers that step all weights together; `inputs` is a batch to measure on."""


@dataclass(frozen=True)
class Arm:
    """An optimiser.

    Args:
        build: makes it.
        centre: the rates at which tuning begins, one or two.
        default: the rates that a user would try first.
        constrained: whether hidden matrices stay on a manifold.
        title: the name in tables.
    """

    build: Build
    centre: tuple[float, ...]
    default: tuple[float, ...]
    constrained: bool
    title: str


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
        muon = HiddenMuon(model, lr=rates[0], weight_decay=decay, momentum=MOMENTUM, nesterov=True)
        rest = [p for p in model.parameters() if p not in muon.stepped]
        return [muon, AdamW(_groups(rest, decay), lr=rates[1], betas=BETAS)]

    return build


def budgeted(manifold: mm.Manifold) -> Build:
    """`SteepestDescent` on an adapted model, with the measured budget and one rate for all weights."""

    def build(
        model: nn.Module, inputs: Tensor, rates: tuple[float, ...], seed: int
    ) -> list[Optimizer]:
        rules = hidden_rules(model, manifold)
        plan = mm.adapt(model, rules, example_inputs=inputs, seed=seed, progress=False)
        return [mm.SteepestDescent(plan, rates[0], momentum=MOMENTUM, nesterov=True)]

    return build


def _ours(manifold: mm.Manifold, title: str) -> Arm:
    constrained = not isinstance(manifold, mm.Euclidean)
    return Arm(budgeted(manifold), (1.0,), (1.0,), constrained, title)


ARMS: Final[dict[str, Arm]] = {
    "adamw": Arm(adamw(0.0), (2**-8,), (1e-3,), False, "AdamW"),
    "adamw-decay": Arm(adamw(0.1), (2**-8,), (1e-3,), False, "AdamW, decay 0.1"),
    "muon-adamw": Arm(torch_muon(0.0), (2**-5, 2**-7), (0.02, 1e-3), False, "torch Muon and AdamW"),
    "muon-adamw-decay": Arm(
        torch_muon(0.1), (2**-5, 2**-7), (0.02, 1e-3), False, "torch Muon and AdamW, decay 0.1"
    ),
    "budget": _ours(mm.Euclidean(), "budget, no manifold (Muon)"),
    "stiefel": _ours(mm.Stiefel(), "budget, Stiefel"),
    "spectral-ball": _ours(mm.SpectralBall(), "budget, SpectralBall"),
    "spectral-sphere": _ours(mm.SpectralSphere(), "budget, SpectralSphere"),
    "sphere": _ours(mm.Sphere(), "budget, Sphere"),
}
"""The arms by name, those without a constraint first."""
