"""Whether weights stay on their manifold over a long training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.training.split import Split
from modular_manifolds_bench.gradients import MOMENTUM

BATCH = 64
MEASURE_EVERY_STEPS = 10


@dataclass(frozen=True)
class Drift:
    """Residuals of the worst weight: the largest seen, and the means over the first and the last tenth."""

    steps: int
    largest: float
    first: float
    last: float

    @property
    def growth(self) -> float:
        """The last tenth over the first; 1 if both are zero."""
        return self.last / self.first if self.first > 0 else 1.0


def drift(
    net: mm.Module,
    images: Split,
    *,
    steps: int,
    dtype: torch.dtype,
    lr: float = 0.1,
    watch: Callable[[str], None] = lambda _: None,
) -> Drift:
    """Train `net` in `dtype` for `steps` steps at a constant rate; look at every tenth residual.

    Residuals are those of the weights themselves, `max |WᵀW − I|`, computed in float64.
    """
    net = net.to(dtype)
    optimizer = mm.SteepestDescent(net, lr=lr, momentum=MOMENTUM, nesterov=True)
    geometries = dict(net.geometries())
    parameters = dict(net.named_parameters())
    generator = torch.Generator().manual_seed(0)
    data = images.images.to(dtype)
    seen: list[float] = []
    for step in range(steps):
        if step % max(1, steps // 20) == 0:
            watch(f"{str(dtype).removeprefix('torch.')}, step {step}/{steps}")
        chosen = torch.randint(len(data), (BATCH,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(net(data[chosen]), images.labels[chosen]).backward()
        optimizer.step()
        if step % MEASURE_EVERY_STEPS == MEASURE_EVERY_STEPS - 1 or steps < MEASURE_EVERY_STEPS:
            seen.append(
                max(
                    float(geometry.manifold.residual(parameters[path].detach().double()))
                    for path, geometry in geometries.items()
                )
            )
    part = max(1, len(seen) // 10)
    return Drift(steps, max(seen), sum(seen[:part]) / part, sum(seen[-part:]) / part)
