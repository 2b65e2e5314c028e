"""The gain, an atom that multiplies each feature by a factor."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.arguments import check_count
from modular_manifolds.composition.space import Space, VectorNorm, check_vector_norm
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.leaf import Atom
from modular_manifolds.norms.frobenius import Frobenius


class Gain(Atom):
    """`g ⊙ x` with `|g_i| ≤ radius` for every feature; starts at `min(1, radius)`.

    The weight is a stack (features, 1, 1) of matrices of one entry, each in SpectralBall: together a box. The norm of a
    step is its largest entry, so steepest descent is sign descent in the box. `‖g ⊙ x‖ ≤ max|g_i| ‖x‖` in rms, l2, l1
    and linf, so the sensitivity is `radius`, and κ = 1. Certified: `max|g_i|`. With the default radius of 1 a gain
    never enlarges its input.

    Args:
        features: the size of the vectors.
        radius: the largest factor.
        vector_norm: the norm of input and output.
        mass: the share of the learning; 0 freezes the weight.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(
        self,
        features: int,
        *,
        radius: float = 1.0,
        vector_norm: VectorNorm = "l2",
        mass: float = 1.0,
    ) -> None:
        features = check_count(features, argument="Gain(features)")
        check_vector_norm(vector_norm, argument="Gain(vector_norm)")
        space = Space(features, vector_norm)
        ball = SpectralBall(radius)
        super().__init__(
            geometry=Geometry(ball, Frobenius()),
            shape=(features, 1, 1),
            source=space,
            target=space,
            sensitivity=ball.radius,
            lipschitz=ball.radius,
            mass=mass,
        )
        self.features = features
        self.radius: float = ball.radius
        self.vector_norm: VectorNorm = vector_norm

    def initial(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        return self.geometry.manifold.project(torch.ones(shape, dtype=dtype))

    def certified(self) -> float:
        return float(self.weight.detach().abs().amax())

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # One rounding of each product.
        return torch.finfo(dtype).eps * self.certified() * radius

    def describe(self) -> str:
        return f"Gain({self.features})"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.flatten()
