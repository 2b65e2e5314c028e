"""An attack from a library of its own: what is certified should survive somebody else's code."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from modular_manifolds.arguments import check_count
from modular_manifolds.errors import ArgumentError

Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
"""From a model, points, their labels and an l2 radius to points nearby that it may get wrong."""


@dataclass(frozen=True)
class ProjectedGradient:
    """Projected gradient descent in l2 from random starts in the ball, by the library foolbox.

    The ball is not cut to the range of pixels: what is certified is the whole ball, so that is what is
    attacked. The result is an attack's, not a proof: a point that survives may still have a neighbour
    of another class.

    Args:
        steps, restarts: gradient steps from each start, and starts for each point.
        seed: of the starts; torch's global generator stays as it was.

    Raises:
        ArgumentError: a number is below 1, or (when called) foolbox cannot be imported.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018); Rauber
    et al., "Foolbox Native" (2020).
    """

    steps: int = 40
    restarts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("restarts", self.restarts)):
            count = check_count(value, argument=f"ProjectedGradient({name})", what=name)
            object.__setattr__(self, name, count)

    def __str__(self) -> str:
        return f"projected gradient descent, {self.steps} steps, {self.restarts} restarts"

    def __call__(self, model: nn.Module, points: Tensor, labels: Tensor, radius: float) -> Tensor:
        foolbox = _foolbox()
        low, high = float(points.min()) - 2 * radius - 1, float(points.max()) + 2 * radius + 1
        wrapped = foolbox.PyTorchModel(model, bounds=(low, high), device=points.device)
        descent = foolbox.attacks.L2ProjectedGradientDescentAttack(steps=self.steps)
        with torch.random.fork_rng(devices=[] if points.device.type == "cpu" else [points.device]):
            torch.manual_seed(self.seed)
            found, _, _ = descent.repeat(self.restarts)(wrapped, points, labels, epsilons=radius)
        return found.detach()


def can_attack() -> bool:
    """Whether the library that attacks can be imported: it needs git on the machine as well."""
    try:
        _foolbox()
    except ArgumentError:
        return False
    return True


def _foolbox() -> ModuleType:
    try:
        with warnings.catch_warnings():
            # Of its own imports; nothing that a caller of ours could change.
            warnings.simplefilter("ignore", DeprecationWarning)
            import foolbox
    except ImportError as error:
        raise ArgumentError(
            "an attack",
            "needs the library foolbox",
            " ".join(str(error).split())[:120],
            "Run: pip install 'modular-manifolds[robustness]', or leave the attack out.",
        ) from None
    return foolbox
