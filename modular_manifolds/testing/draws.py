"""Random points of a manifold and steps from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.testing.sample import Sample


def draw_point(manifold: Manifold, sample: Sample, shape: tuple[int, ...] | None = None) -> Tensor:
    """The point of the sample, or of another shape."""
    return manifold.random(
        sample.shape if shape is None else shape,
        generator=sample.generator("point"),
        dtype=sample.dtype,
        device=sample.device,
    )


def draw_inner_point(manifold: Manifold, sample: Sample) -> Tensor:
    """The point of the sample; if the manifold has a boundary, one well inside it."""
    point = draw_point(manifold, sample)
    return point / 2 if manifold.has_boundary else point


def of_the_size_of(point: Tensor, x: Tensor) -> Tensor:
    """`x` brought to the size of `point`, so that steps are counted in radii."""
    return x * (torch.linalg.vector_norm(point) / torch.linalg.vector_norm(x))


def tangent_of_size(manifold: Manifold, point: Tensor, x: Tensor) -> Tensor:
    """The tangent part of `x` brought to the size of `point`.

    Not normalised after the projection: if the tangent space is only zero, that would be noise.
    """
    return manifold.tangent(point, of_the_size_of(point, x))


def tangent_share(manifold: Manifold, w: Tensor, g: Tensor) -> Tensor:
    """The smallest `‖P(G)‖/‖G‖` over the rows of each matrix, at least √ε; 1 for rows that are zero."""
    part, whole = (torch.linalg.vector_norm(x, dim=-1) for x in (manifold.tangent(w, g), g))
    share = torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 1.0)
    return share.clamp(math.sqrt(torch.finfo(g.dtype).eps), 1.0).amin(dim=-1)
