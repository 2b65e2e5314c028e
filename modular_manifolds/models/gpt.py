"""A language model: causal attention and perceptrons in a residual stream."""

from __future__ import annotations

import math

from modular_manifolds.composition.space import check_count
from modular_manifolds.errors import ArgumentError
from modular_manifolds.models.rms_linear import rms_linear
from modular_manifolds.nn import (
    CausalAttention,
    Embedding,
    Heads,
    MergeHeads,
    Module,
    Parallel,
    ReLU,
    Residual,
    Rotary,
    Series,
)

ATTENTION_WEIGHTS = 4
PERCEPTRON_WEIGHTS = 2


def GPT(
    vocabulary: int,
    *,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    kv_heads: int | None = None,
    mlp_factor: int = 4,
    attention_scale: float = 128.0,
    logit_scale: float = 12.0,
    amplification: float = 25.0,
    masses: tuple[float, float, float] = (16.0, 16.0, 1.0),
) -> Module:
    """`embedding >> (Residual(attention) >> Residual(perceptron)) ** depth >> logit_scale · head`.

    Tokens (batch, positions) to logits (batch, positions, vocabulary), for any number of positions. A token
    has l1 norm 1, and every vector of the stream behind it rms norm at most `amplification`, at every width and depth: the
    rms of the logits over the vocabulary is at most `amplification · logit_scale`.

    A block's output is typically a sixth of what it may be: ReLU and averages over positions shrink, a third
    stands in front of attention, a head sees its part of the stream. So each of the L = 2 depth branches
    is multiplied by `c = 1 + L (amplification^(1/L) − 1)`: then `(1 − 1/L + c/L)^L = amplification`, whatever the
    depth. For the same reason queries and keys are of rms 0.1 or so where at most 1 is certain.
    `attention_scale` makes up for that, and the learning rate is meant for queries, keys and values of rms
    `1/√attention_scale`, where attention has slope 1: the sensitivity is `amplification · logit_scale` at every
    size. What is certain is larger, and is what `mm.lipschitz(net, radius=1.0)` and the last line of
    `mm.budget(net)` say.

    Args:
        vocabulary: how many tokens there are.
        width: features of the residual stream, a multiple of `heads`.
        depth: how many pairs of attention and perceptron.
        heads, kv_heads: how many heads have queries of their own, and keys and values, `heads` by default.
        mlp_factor: features inside a perceptron, over `width`.
        attention_scale, logit_scale: the largest attention logit, and the largest rms of the output.
        amplification: how much all blocks together may stretch; at 1 no vector grows.
        masses: of the embedding, of all blocks together, of the head. What stands behind embedding and blocks may
            stretch by `amplification`, by which the budget divides, and hardly does: their masses make up for it.

    Raises:
        ArgumentError: a size is out of range, `heads` does not divide `width`, or `kv_heads` does not
        divide `heads`.
    """
    first, between, last = masses
    check_count(depth, argument="GPT(depth)", what="pairs of attention and perceptron")
    mass = between / (depth * (ATTENTION_WEIGHTS + PERCEPTRON_WEIGHTS))
    stretch = branch_factor(2 * depth, amplification)
    attention = causal_attention(
        width,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        scale=attention_scale,
        factor=stretch / 3,
        mass=mass,
    )
    perceptron = stretch * Series(
        up=rms_linear(width, mlp_factor * width, mass=mass),
        act=ReLU(),
        down=rms_linear(mlp_factor * width, width, mass=mass),
    )
    block = Residual(attention, depth=2 * depth) >> Residual(perceptron, depth=2 * depth)
    return Series(
        embedding=Embedding(vocabulary, width, mass=first),
        blocks=block**depth,
        head=logit_scale * rms_linear(width, vocabulary, mass=last),
    )


def branch_factor(branches: int, amplification: float) -> float:
    """c with `(1 − 1/L + c/L)^L = amplification` for L branches."""
    if not (isinstance(amplification, int | float) and 1 <= amplification < math.inf):
        raise ArgumentError(
            "GPT(amplification)",
            "must be finite and at least 1",
            repr(amplification),
            "Pass how much all blocks together may stretch.",
        )
    return 1 + branches * (amplification ** (1 / branches) - 1)


def causal_attention(
    width: int, *, heads: int, kv_heads: int, scale: float, factor: float, mass: float
) -> Module:
    """`factor` times attention between projections, whose three branches have sensitivity 3 together."""
    for name, count, of, total in (
        ("heads", heads, "width", width),
        ("kv_heads", kv_heads, "heads", heads),
    ):
        check_count(count, argument=f"GPT({name})", what="heads")
        if total % count:
            raise ArgumentError(
                f"GPT({name})",
                f"must divide {of}={total}",
                count,
                "Choose another number of heads.",
            )
    features = width // heads
    branches = Parallel(
        query=Heads(width, heads, features, mass=mass) >> Rotary(features),
        key=Heads(width, kv_heads, features, mass=mass) >> Rotary(features),
        value=Heads(width, kv_heads, features, mass=mass),
    )
    return factor * Series(
        branches=branches,
        attention=CausalAttention(features, scale=scale, typical=1 / math.sqrt(max(scale, 1.0))),
        merge=MergeHeads(heads, features),
        out=rms_linear(width, width, mass=mass),
    )
