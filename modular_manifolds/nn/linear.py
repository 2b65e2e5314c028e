"""The linear map, the atom of most networks."""

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
    """`x Wᵀ` with W of shape (out_features, in_features), as in torch and without a bias.

    The norm brings its vector norms along (Spectral: l2 to l2; RMSOperator: rms to rms; Max: l1 to
    linf; …); `source_norm` and `target_norm` name others, and the constants are converted. Sensitivity is the
    largest operator norm on the manifold; in Euclidean space, which has none, it is that of a
    weight of unit norm.

    Args:
        in_features: the sizes.
        out_features: the sizes.
        manifold: the geometry of the weight.
        norm: the geometry of the weight.
        mass: the share of the learning; 0 freezes the weight.
        source_norm: the vector norms of input and output; those of `norm` by default.
        target_norm: the vector norms of input and output; those of `norm` by default.

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
        given = geometry.norm.source if source_norm is None else source_norm
        wanted = geometry.norm.target if target_norm is None else target_norm
        check_vector_norm(given, argument="Linear(source_norm)")
        check_vector_norm(wanted, argument="Linear(target_norm)")
        super().__init__(
            geometry=geometry,
            shape=(out_features, in_features),
            source=Space(in_features, given),
            target=Space(out_features, wanted),
            mass=mass,
        )
        self.source_norm: VectorNorm = given
        self.target_norm: VectorNorm = wanted
        self.in_features = in_features
        self.out_features = out_features

    def matrix(self) -> Tensor:
        return self.weight

    def describe(self) -> str:
        return f"Linear({self.in_features}, {self.out_features})"

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)
