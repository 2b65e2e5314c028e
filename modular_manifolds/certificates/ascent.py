"""The search for steep points: gradient ascent on the slope, at points and between pairs of points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modular_manifolds.certificates.empirical import (
    DUALS,
    largest_norm,
    power_step,
    pull_back,
    twice_differentiable,
    vector_norm,
)
from modular_manifolds.composition.space import VectorNorm
from modular_manifolds.linalg.ascent import climb

POWER_STEPS, CLIMBING_STEPS = 2, 3
"""The search alternates: this many improvements of the direction, then this many of the point."""


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
    """The points `at`, and the results of gradient ascent from there within `radius`.

    First, pairs climb on `‖f(x) − f(y)‖/‖x − y‖`, which has a nonzero gradient for piecewise linear functions too. Then the
    steepest of the point, the pair's ends and its middle climbs on `‖J(x)ᵀu‖` in the dual norm, with u by power iteration.
    `largest_slope` measures the slope at the results.

    Args:
        function: maps inputs to outputs, independently for each input of the batch.
        at: (batch, features), or (batch, …, features) if norms are the largest over the vectors of an
            input; in float64.
        iterations: steps of each kind; with 0 the points are `at`.
    """
    if not iterations or not at.numel():
        return at

    inputs = at.shape[1:]

    def as_inputs(rows: Tensor) -> Tensor:
        return rows.unflatten(1, inputs)

    def project(rows: Tensor) -> Tensor:
        if radius is None:
            return rows
        # A margin that exceeds the rounding of the norm.
        x = as_inputs(rows)
        length = vector_norm(x, input_norm).unsqueeze(-1)
        return (x * (radius * (1 - 1e-9) / length.clamp_min(1e-300)).clamp(max=1.0)).flatten(1)

    def quotient(pair: Tensor) -> Tensor:
        x, y = (as_inputs(end) for end in pair.chunk(2, dim=1))
        fx, fy = function(torch.cat((x, y))).chunk(2)
        distance = largest_norm(x - y, input_norm)
        return largest_norm(fx - fy, output_norm) / distance.clamp_min(1e-300)

    def project_pair(pair: Tensor) -> Tensor:
        return torch.cat([project(end) for end in pair.chunk(2, dim=1)], dim=1)

    rows = at.flatten(1)
    noise = torch.randn(rows.shape, generator=generator, dtype=at.dtype, device="cpu").to(at.device)
    size = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    size = torch.where(size > 0, size, 1.0 if radius is None else radius)
    ratio = torch.linalg.vector_norm(noise, dim=1, keepdim=True) / size
    pairs, _ = climb(
        quotient,
        project_pair(torch.cat((rows, rows + noise / ratio), dim=1)),
        size / 2,
        rounds=iterations,
        generator=generator,
        keep=project_pair,
    )
    x, y = pairs.chunk(2, dim=1)
    candidates = torch.cat((rows, x, (x + y) / 2, y))

    def improve_directions(points: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for _ in range(POWER_STEPS - 1):
            _, v, _ = power_step(function, as_inputs(points), v, input_norm, output_norm)
        return power_step(function, as_inputs(points), v, input_norm, output_norm)

    v = torch.randn(
        as_inputs(candidates).shape, generator=generator, dtype=at.dtype, device="cpu"
    ).to(at.device)
    slopes, v, _ = improve_directions(candidates, v)
    # Keep one point for each start, because derivatives of large networks are expensive.
    steepest = slopes.reshape(4, -1).argmax(dim=0), torch.arange(len(rows), device=at.device)
    points, v = candidates.unflatten(0, (4, -1))[steepest], v.unflatten(0, (4, -1))[steepest]
    step = size / 4
    for _ in range(-(-iterations // CLIMBING_STEPS)):
        _, v, u = improve_directions(points, v)

        def slope(points: Tensor, u: Tensor = u) -> Tensor:
            x = as_inputs(points)
            # The dual of a largest norm over several vectors is the sum of their dual norms.
            norms = vector_norm(pull_back(function(x), x, u), DUALS[input_norm])
            return norms.reshape(len(x), -1).sum(dim=1)

        points, step = climb(
            slope, points, step, rounds=CLIMBING_STEPS, generator=generator, keep=project
        )
    return torch.cat((at, as_inputs(points)))
