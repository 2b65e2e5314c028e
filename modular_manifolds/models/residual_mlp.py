"""The residual multilayer perceptron, whose learning rate transfers across widths and depths."""

from __future__ import annotations

from modular_manifolds.arguments import check_count
from modular_manifolds.manifolds import Manifold
from modular_manifolds.models.rms_linear import rms_linear
from modular_manifolds.nn import Abs, Module, Residual


def ResidualMLP(
    in_features: int,
    classes: int,
    *,
    width: int = 128,
    depth: int = 2,
    logit_scale: float = 8.0,
    masses: tuple[float, float, float] = (1.0, 1.0, 1.0),
    manifold: Manifold | None = None,
) -> Module:
    """`logit_scale · (input >> Residual(block, depth=L) ** L >> output)` with `block = Linear >> Abs`.

    Every weight has the RMS operator norm, so without `logit_scale` the network has sensitivity 1 at every width and
    depth. Abs preserves the norm of a block's output, whereas ReLU would halve its power. The blocks share one mass,
    so the shares of input and output do not depend on the depth.

    Args:
        in_features: the size of the input.
        classes: the size of the output.
        width: features between the blocks.
        depth: L, the number of blocks.
        logit_scale: the largest rms of the outputs for inputs of rms 1. The learning rate is that of the
            scaled outputs.
        masses: the masses of the input, of all blocks together, and of the output.
        manifold: the manifold of every weight, as in `rms_linear`.

    Raises:
        ArgumentError: an argument is out of range.
        UnsupportedPairError: the manifold has no solver for RMSOperator.

    Source: Large et al., "Scalable optimization in the modular norm" (2024), section 3.
    """
    first, between, last = masses
    depth = check_count(depth, argument="ResidualMLP(depth)", what="blocks")
    block = rms_linear(width, width, manifold=manifold, mass=between / depth) >> Abs()
    return logit_scale * (
        rms_linear(in_features, width, manifold=manifold, mass=first)
        >> Residual(block, depth=depth) ** depth
        >> rms_linear(width, classes, manifold=manifold, mass=last)
    )
