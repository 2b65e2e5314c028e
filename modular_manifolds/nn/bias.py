"""The bias, an atom that adds a vector."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from modular_manifolds.arguments import check_count
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.space import (
    Space,
    VectorNorm,
    check_vector_norm,
    conversion,
)
from modular_manifolds.composition.tree import Tree
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.leaf import Atom
from modular_manifolds.norms.frobenius import Frobenius


class Bias(Atom):
    """`x + b` with b of shape (features,) in the ball `‖b‖₂ ≤ radius`; starts at zero. Sensitivity 1.

    The ball is SpectralBall: a vector is a matrix of one column, whose singular value is its length. The bound keeps
    the norms of activations bounded: `‖f(0)‖ = ‖b‖` is at most `radius`, converted to `vector_norm`. A step is added to
    every output: κ = 1 in l2, at any size of the input.

    Args:
        features: the size of the vectors.
        radius: the largest length of b in l2; √features allows entries of 1 on average.
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
        features = check_count(features, argument="Bias(features)")
        check_vector_norm(vector_norm, argument="Bias(vector_norm)")
        space = Space(features, vector_norm)
        constant = conversion("l2", vector_norm, features)
        ball = SpectralBall(radius)
        super().__init__(
            geometry=Geometry(ball, Frobenius()),
            shape=(features,),
            source=space,
            target=space,
            sensitivity=1.0,
            lipschitz=1.0,
            norm_constant=constant,
            mass=mass,
            offset=constant * ball.radius,
        )
        self.features = features
        self.radius: float = ball.radius
        self.vector_norm: VectorNorm = vector_norm

    def initial(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def certified_offset(self) -> float:
        length = float(torch.linalg.vector_norm(self.weight.detach().double()))
        return self._norm_constant * length * (1 + 2.0**-52 * (self.features + 4))

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # One rounding of each sum.
        return torch.finfo(dtype).eps * (radius + self.certified_offset())

    def tree(self, path: str = "") -> Tree:
        own = super().tree(path)
        assert isinstance(own, Leaf)
        return replace(own, additive=True)

    def describe(self) -> str:
        return f"Bias({self.features})"

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight
