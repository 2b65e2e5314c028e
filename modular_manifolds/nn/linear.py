"""The linear map, an atom."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from modular_manifolds.arguments import check_count
from modular_manifolds.composition.space import Space, VectorNorm, check_vector_norm
from modular_manifolds.manifolds import Manifold, Stiefel
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.matrix import MatrixAtom
from modular_manifolds.norms import Norm, Spectral


class Linear(MatrixAtom):
    """`x Wᵀ` with W of shape (out_features, in_features), as in torch, without a bias.

    The norm determines the vector norms (Spectral: l2 to l2; RMSOperator: rms to rms; Max: l1 to linf; …).
    `source_norm` and `target_norm` override them, and the constants are converted. The sensitivity is the largest
    operator norm on the manifold; in Euclidean space, which is unbounded, it is that of a weight of unit norm.

    Args:
        in_features: the size of the input.
        out_features: the size of the output.
        manifold: the manifold of the weight.
        norm: the norm in which a step of the weight is measured.
        mass: the share of the learning; 0 freezes the weight.
        source_norm: the vector norm of the input; that of `norm` by default.
        target_norm: the vector norm of the output; that of `norm` by default.

    Raises:
        ArgumentError: a size or the mass is out of range.
        UnsupportedPairError: the pair of manifold and norm has no solver.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        manifold: Manifold | None = None,
        norm: Norm | None = None,
        mass: float = 1.0,
        source_norm: VectorNorm | None = None,
        target_norm: VectorNorm | None = None,
    ) -> None:
        in_features = check_count(in_features, argument="Linear(in_features)")
        out_features = check_count(out_features, argument="Linear(out_features)")
        geometry = Geometry(
            Stiefel() if manifold is None else manifold, Spectral() if norm is None else norm
        )
        source = geometry.norm.source if source_norm is None else source_norm
        target = geometry.norm.target if target_norm is None else target_norm
        check_vector_norm(source, argument="Linear(source_norm)")
        check_vector_norm(target, argument="Linear(target_norm)")
        super().__init__(
            geometry=geometry,
            shape=(out_features, in_features),
            source=Space(in_features, source),
            target=Space(out_features, target),
            mass=mass,
        )
        self.source_norm: VectorNorm = source
        self.target_norm: VectorNorm = target
        self.in_features = in_features
        self.out_features = out_features

    def matrix(self) -> Tensor:
        return self.weight

    def describe(self) -> str:
        return f"Linear({self.in_features}, {self.out_features})"

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)
