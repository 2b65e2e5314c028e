"""The multilayer perceptron of the post "Modular Manifolds", which the default run trains."""

from __future__ import annotations

from itertools import chain, pairwise

from modular_manifolds.manifolds import Manifold
from modular_manifolds.nn import Linear, Module, ReLU, Series
from modular_manifolds.norms import Norm


def MLP(
    in_features: int,
    classes: int,
    *,
    hidden: tuple[int, ...] = (128, 64),
    manifold: Manifold | None = None,
    norm: Norm | None = None,
) -> Module:
    """Linear maps with ReLU between them, no biases: `Linear >> ReLU >> … >> Linear`.

    Sensitivity 1 with the default geometry, Stiefel × Spectral.

    Args:
        in_features: the sizes of input and output.
        classes: as `in_features`.
        hidden: the sizes of the hidden layers.
        manifold: the geometry of every weight; `Linear`'s by default.
        norm: as `manifold`.

    Raises:
        ArgumentError: a size is out of range.
        UnsupportedPairError: the pair of manifold and norm has no solver.

    Source: J. Bernstein, "Modular Manifolds" (2025).
    """
    sizes = pairwise((in_features, *hidden, classes))
    first, *others = [
        Linear(in_size, out_size, manifold=manifold, norm=norm) for in_size, out_size in sizes
    ]
    if not others:
        return first
    # `>>` would make a new series for each layer.
    return Series(first, *chain.from_iterable((ReLU(), layer) for layer in others))
