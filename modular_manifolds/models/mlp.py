"""The multilayer perceptron of the post "Modular Manifolds", the network of the default run."""

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
        classes: the sizes of input and output.
        hidden: the sizes in between.
        manifold: the geometry of every weight; as `Linear`'s by default.
        norm: the geometry of every weight; as `Linear`'s by default.

    Raises:
        ArgumentError: a size is out of range.
        UnsupportedPairError: the pair of manifold and norm has no solver.

    Source: J. Bernstein, "Modular Manifolds" (2025).
    """
    sizes = pairwise((in_features, *hidden, classes))
    first, *others = [Linear(into, out, manifold=manifold, norm=norm) for into, out in sizes]
    if not others:
        return first
    # At once, because `>>` would make a new series for each layer.
    return Series(first, *chain.from_iterable((ReLU(), layer) for layer in others))
