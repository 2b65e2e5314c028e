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
    """The point of the sample; half of it, an interior point, if the manifold has a boundary."""
    point = draw_point(manifold, sample)
    return point / 2 if manifold.has_boundary else point


def scaled_to(point: Tensor, x: Tensor) -> Tensor:
    """`x` scaled to the norm of `point`, so that step lengths are in radii."""
    return x * (torch.linalg.vector_norm(point) / torch.linalg.vector_norm(x))


def scaled_tangent(manifold: Manifold, point: Tensor, x: Tensor) -> Tensor:
    """The tangent part of `x`, after `x` is scaled to the norm of `point`.

    It is not normalised after the projection, because in a tangent space of dimension zero it is rounding error.
    """
    return manifold.tangent(point, scaled_to(point, x))


def tangent_share(manifold: Manifold, w: Tensor, g: Tensor) -> Tensor:
    """The smallest `‖P(G)‖/‖G‖` over the rows of each matrix, at least √ε; 1 for zero rows."""
    tangent_length, length = (
        torch.linalg.vector_norm(x, dim=-1) for x in (manifold.tangent(w, g), g)
    )
    share = torch.where(length > 0, tangent_length / torch.where(length > 0, length, 1.0), 1.0)
    return share.clamp(math.sqrt(torch.finfo(g.dtype).eps), 1.0).amin(dim=-1)
