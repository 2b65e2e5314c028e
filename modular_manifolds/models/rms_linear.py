"""The linear map of networks whose learning rate carries over from one width to another."""

from __future__ import annotations

import math

from modular_manifolds.arguments import check_count
from modular_manifolds.manifolds import Manifold, Stiefel
from modular_manifolds.nn import Linear
from modular_manifolds.norms import RMSOperator


def rms_linear(
    in_features: int, out_features: int, *, manifold: Manifold | None = None, mass: float = 1.0
) -> Linear:
    """`Linear` measured from rms to rms, its manifold's radius times `√(out/in)`.

    A weight whose largest singular value is `√(out/in)` has RMS operator norm
    `√(in/out) · σ_max(W) = 1`: on a manifold of radius 1 the map has sensitivity 1 at every width.

    Args:
        in_features: the sizes.
        out_features: the sizes.
        manifold: Stiefel(), SpectralBall() or SpectralSphere(), scaled as said, or Euclidean(), in
            which the weight starts with RMS operator norm 1; Stiefel() by default.
        mass: the share of the learning.

    Raises:
        ArgumentError: an argument is out of range.
        UnsupportedPairError: the manifold has no solver beside RMSOperator.

    Source: Large et al., "Scalable optimization in the modular norm" (2024), Linear.
    """
    in_features = check_count(in_features, argument="rms_linear(in_features)")
    out_features = check_count(out_features, argument="rms_linear(out_features)")
    scaled = rms_manifold(manifold, in_features, out_features)
    return Linear(in_features, out_features, manifold=scaled, norm=RMSOperator(), mass=mass)


def rms_manifold(manifold: Manifold | None, in_features: int, out_features: int) -> Manifold:
    """The manifold scaled by `√(out/in)`; Stiefel() by default."""
    base = Stiefel() if manifold is None else manifold
    return base.scaled(math.sqrt(out_features / in_features))
