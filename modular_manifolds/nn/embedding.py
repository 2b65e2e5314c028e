"""The embedding table, an atom with one row for each token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx
from torch.nn import functional

from modular_manifolds.arguments import check_count
from modular_manifolds.composition.space import Space
from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds import Manifold, Oblique
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.leaf import Atom
from modular_manifolds.nn.tracing import has_sizes
from modular_manifolds.norms.row_rms import RowRMS


class Embedding(Atom):
    """Row `W[token]` of W of shape (vocabulary, features): tokens `(*batch)` to vectors `(*batch, features)`.

    A token is the coordinate vector e of its number, of l1 norm 1, and the row is `Wᵀ e`. Vectors of real numbers
    (*batch, vocabulary) are mapped by Wᵀ too. `‖Wᵀ x‖_rms ≤ Σ |x_i| ‖w_i‖_rms ≤ max_i ‖w_i‖_rms · ‖x‖₁`, so the
    operator norm from l1 to rms is the largest rms norm of a row. This is RowRMS, so κ = 1. By default each row has
    rms norm 1 (Oblique of radius √features), and the sensitivity is 1.

    Args:
        vocabulary: the number of tokens.
        features: the size of the vectors.
        manifold: a manifold with a solver for RowRMS: Oblique, BalancedRows or Euclidean.
        mass: the share of the learning; 0 freezes the weight.

    Raises:
        ArgumentError: a number is out of range.
        UnsupportedPairError: the manifold has no solver with RowRMS.

    Source: Large et al., "Scalable optimization in the modular norm" (2024), Embedding.
    """

    _kind = "lookup"

    def __init__(
        self,
        vocabulary: int,
        features: int,
        *,
        manifold: Manifold | None = None,
        mass: float = 1.0,
    ) -> None:
        vocabulary = check_count(vocabulary, argument="Embedding(vocabulary)", what="tokens")
        features = check_count(features, argument="Embedding(features)")
        root = math.sqrt(features)
        geometry = Geometry(Oblique(root) if manifold is None else manifold, RowRMS())
        shape = (vocabulary, features)
        bound = geometry.manifold.largest_row_norm(shape) / root
        super().__init__(
            geometry=geometry,
            shape=shape,
            source=Space(vocabulary, "l1"),
            target=Space(features, "rms"),
            sensitivity=bound if math.isfinite(bound) else 1.0,
            lipschitz=bound,
            mass=mass,
        )
        self.vocabulary = vocabulary
        self.features = features

    def certified(self) -> float:
        rows = torch.linalg.vector_norm(self.weight.detach().double(), dim=-1)
        rounded_up = 1 + 2.0**-52 * (self.features + 4)
        return float(rows.amax()) / math.sqrt(self.features) * rounded_up

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # Looking up a token has no rounding error. For a vector each output is a sum over the vocabulary, with an error
        # of at most γ (|W|ᵀ|x|). Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), equation (3.5).
        terms = self.vocabulary * torch.finfo(dtype).eps
        return terms / (1 - terms) * self.certified() * radius if terms < 1 else math.inf

    def describe(self) -> str:
        return f"Embedding({self.vocabulary}, {self.features})"

    def forward(self, x: Tensor) -> Tensor:
        return _rows(x, self.weight, self.vocabulary)


@fx.wrap
def _rows(x: Tensor, weight: Tensor, vocabulary: int) -> Tensor:
    """The row of each token, or the sum of rows weighted by a real vector; `torch.fx` sees one call."""
    if not x.is_floating_point():
        return functional.embedding(x, weight)
    if has_sizes(x) and x.shape[-1:] != (vocabulary,):
        raise ArgumentError(
            "Embedding(x)",
            f"must be whole-number tokens, or real vectors of {vocabulary} features",
            f"{x.dtype} of shape {tuple(x.shape)}",
            "Convert tokens with .long().",
        )
    return x @ weight
