"""The linear map of networks whose learning rate transfers across widths."""

from __future__ import annotations

import math

from modular_manifolds.arguments import check_count
from modular_manifolds.manifolds import Manifold, Stiefel
from modular_manifolds.nn import Linear
from modular_manifolds.norms import RMSOperator


def rms_linear(
    in_features: int, out_features: int, *, manifold: Manifold | None = None, mass: float = 1.0
) -> Linear:
    """`Linear` with RMSOperator, and the manifold's radius multiplied by `√(out/in)`.

    A weight whose largest singular value is `√(out/in)` has RMS operator norm
    `√(in/out) · σ_max(W) = 1`: on a manifold of radius 1 the map has sensitivity 1 at every width.

    Args:
        in_features: the sizes.
        out_features: as `in_features`.
        manifold: Stiefel(), SpectralBall() or SpectralSphere(), which is scaled, or Euclidean(), in
            which the initial weight has RMS operator norm 1; Stiefel() by default.
        mass: the share of the learning.

    Raises:
        ArgumentError: an argument is out of range.
        UnsupportedPairError: the manifold has no solver for RMSOperator.

    Source: Large et al., "Scalable optimization in the modular norm" (2024), Linear.
    """
    in_features = check_count(in_features, argument="rms_linear(in_features)")
    out_features = check_count(out_features, argument="rms_linear(out_features)")
    scaled_manifold = rms_manifold(manifold, in_features, out_features)
    return Linear(
        in_features, out_features, manifold=scaled_manifold, norm=RMSOperator(), mass=mass
    )


def rms_manifold(manifold: Manifold | None, in_features: int, out_features: int) -> Manifold:
    """The manifold scaled by `√(out/in)`; Stiefel() by default."""
    base = Stiefel() if manifold is None else manifold
    return base.scaled(math.sqrt(out_features / in_features))
