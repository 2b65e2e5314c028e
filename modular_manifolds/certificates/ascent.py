"""The search for steep places: points, and pairs of points, that go uphill on the slope."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modular_manifolds.certificates.empirical import (
    DUALS,
    largest_norm,
    power_step,
    pulled_back,
    twice_differentiable,
    vector_norm,
)
from modular_manifolds.composition.space import VectorNorm
from modular_manifolds.linalg.ascent import climb

POWER_STEPS, CLIMBING_STEPS = 2, 3
"""The direction and the point take turns: so many improvements of the one, then of the other."""


@twice_differentiable
def steeper_points(
    function: Callable[[Tensor], Tensor],
    at: Tensor,
    *,
    input_norm: VectorNorm,
    output_norm: VectorNorm,
    radius: float | None,
    iterations: int,
    generator: torch.Generator,
) -> Tensor:
    """The points `at`, and those to which gradient ascent leads from there, within `radius`.

    Pairs climb on `‖f(x) − f(y)‖/‖x − y‖`, which a piecewise linear function too has a gradient of. From
    the steepest of a pair's ends and middle and the point itself, points climb on `‖J(x)ᵀu‖` in the dual norm, u by
    power iteration. What the slope is at the points is not said: that is for `largest_slope` to measure.

    Args:
        function: from inputs to outputs, without a look from one input of the batch to another.
        at: (batch, features), or (batch, …, features) if norms are the largest over the vectors of an
            input; in float64.
        iterations: steps of each kind; with 0 the points are `at`.
    """
    if not iterations or not at.numel():
        return at

    inputs = at.shape[1:]

    def shaped(rows: Tensor) -> Tensor:
        return rows.unflatten(1, inputs)

    def inside(rows: Tensor) -> Tensor:
        if radius is None:
            return rows
        # Inside by more than a norm can be rounded.
        x = shaped(rows)
        length = vector_norm(x, input_norm).unsqueeze(-1)
        return (x * (radius * (1 - 1e-9) / length.clamp_min(1e-300)).clamp(max=1.0)).flatten(1)

    def quotient(pair: Tensor) -> Tensor:
        x, y = (shaped(end) for end in pair.chunk(2, dim=1))
        fx, fy = function(torch.cat((x, y))).chunk(2)
        apart = largest_norm(x - y, input_norm)
        return largest_norm(fx - fy, output_norm) / apart.clamp_min(1e-300)

    def both_inside(pair: Tensor) -> Tensor:
        return torch.cat([inside(end) for end in pair.chunk(2, dim=1)], dim=1)

    rows = at.flatten(1)
    noise = torch.randn(rows.shape, generator=generator, dtype=at.dtype, device="cpu").to(at.device)
    size = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    size = torch.where(size > 0, size, 1.0 if radius is None else radius)
    ratio = torch.linalg.vector_norm(noise, dim=1, keepdim=True) / size
    pairs, _ = climb(
        quotient,
        both_inside(torch.cat((rows, rows + noise / ratio), dim=1)),
        size / 2,
        rounds=iterations,
        generator=generator,
        keep=both_inside,
    )
    x, y = pairs.chunk(2, dim=1)
    found = torch.cat((rows, x, (x + y) / 2, y))

    def turned(points: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for _ in range(POWER_STEPS - 1):
            _, v, _ = power_step(function, shaped(points), v, input_norm, output_norm)
        return power_step(function, shaped(points), v, input_norm, output_norm)

    v = torch.randn(shaped(found).shape, generator=generator, dtype=at.dtype, device="cpu").to(
        at.device
    )
    slopes, v, _ = turned(found, v)
    # One point a start goes on: for a large network, most of the search's cost is its derivatives.
    steepest = slopes.reshape(4, -1).argmax(dim=0), torch.arange(len(rows), device=at.device)
    points, v = found.unflatten(0, (4, -1))[steepest], v.unflatten(0, (4, -1))[steepest]
    step = size / 4
    for _ in range(-(-iterations // CLIMBING_STEPS)):
        _, v, u = turned(points, v)

        def slope(points: Tensor, u: Tensor = u) -> Tensor:
            x = shaped(points)
            # The dual of a largest norm over several vectors is the sum of their dual norms.
            norms = vector_norm(pulled_back(function(x), x, u), DUALS[input_norm])
            return norms.reshape(len(x), -1).sum(dim=1)

        points, step = climb(
            slope, points, step, rounds=CLIMBING_STEPS, generator=generator, keep=inside
        )
    return torch.cat((at, shaped(points)))
