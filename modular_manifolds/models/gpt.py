"""A language model: causal attention and perceptrons in a residual stream."""

from __future__ import annotations

import math

from modular_manifolds.arguments import NOT_ZERO, POSITIVE, check_count, check_number
from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds import Manifold
from modular_manifolds.models.rms_linear import rms_linear, rms_manifold
from modular_manifolds.nn import (
    Amplify,
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

PARTS = 3
"""The number of queries, keys and values: the rate scale of the three together."""


def GPT(
    vocabulary: int,
    *,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    kv_heads: int | None = None,
    mlp_factor: int = 4,
    attention_scale: float = 128.0,
    logit_scale: float = 8.0,
    branch_scale: float = 4.0,
    masses: tuple[float, float, float] = (1.0, 3.0, 1.0),
    manifold: Manifold | None = None,
) -> Module:
    """`embedding >> (Residual(attention) >> Residual(perceptron)) ** depth >> logit_scale · head`.

    Tokens (batch, positions) to logits (batch, positions, vocabulary), for any number of positions. Each of
    the L = 2 depth residuals is `(1 − 1/L) x + branch_scale/√L · branch(x)`, with branches of rate scale 1. A token has l1
    norm 1, and every vector of the stream behind it has rms norm at most `(1 − 1/L + branch_scale/√L)^L`.

    A branch's outputs are typically smaller than their bound: ReLU and averages over positions shrink them, a third
    stands in front of attention, and a head sees its part of the stream. For the same reason queries and keys are of
    rms 0.1 or so, although only 1 is certain. `branch_scale` and `attention_scale` make up for that. The learning rate
    is meant for branches that stretch by 1/L, and for queries, keys and values of rms `1/√attention_scale`, for which
    attention has slope 1. So the rate scale is `logit_scale` at every width and depth.

    With the default scales the learning rate is therefore an expectation and no bound: the largest slopes are above
    the typical ones, and the stream's bound is above 1. The sensitivity, `mm.lipschitz(net, radius=1.0)` and the last
    line of `mm.budget(net)` give the bounds that are certain. With `branch_scale=1/√L` and an `attention_scale` of at most 1 the
    learning rate is a bound, and the sensitivity is at most `logit_scale`.

    Args:
        vocabulary: how many tokens there are.
        width: features of the residual stream, a multiple of `heads`.
        depth: how many pairs of attention and perceptron.
        heads: how many heads have queries of their own, and keys and values, `heads` by default.
        kv_heads: how many heads have queries of their own, and keys and values, `heads` by default.
        mlp_factor: features inside a perceptron, over `width`.
        attention_scale: the largest attention logit for queries and keys of rms 1.
        logit_scale: the largest rms of the logits for a stream of rms 1.
        branch_scale: the factor of what attention and perceptron add to the stream, times √L; at `1/√L` no vector
            grows.
        masses: of the embedding, of all blocks together, of the head. In a block attention and perceptron take
            steps of one size.
        manifold: of every matrix, as in `rms_linear`; Euclidean() of the embedding too.

    Raises:
        ArgumentError: a size is out of range, `heads` does not divide `width`, or `kv_heads` does
            not divide `heads`.
        UnsupportedPairError: the manifold has no solver beside RMSOperator.
    """
    first, between, last = masses
    vocabulary = check_count(vocabulary, argument="GPT(vocabulary)", what="tokens")
    width = check_count(width, argument="GPT(width)")
    depth = check_count(depth, argument="GPT(depth)", what="pairs of attention and perceptron")
    mlp_factor = check_count(mlp_factor, argument="GPT(mlp_factor)", what="features over `width`")
    heads, kv_heads = check_heads(width, heads, heads if kv_heads is None else kv_heads)
    remedy = "Pass the factor of each branch, times √L."
    branch_scale = check_number(branch_scale, NOT_ZERO, argument="GPT(branch_scale)", remedy=remedy)
    remedy = "Pass the largest attention logit for queries and keys of rms 1."
    attention_scale = check_number(
        attention_scale, POSITIVE, argument="GPT(attention_scale)", remedy=remedy
    )
    branches = 2 * depth
    factor = branch_scale * math.sqrt(branches)
    # A third stands in front of attention's weights, four to the perceptron's two.
    mass = between / depth / (4 / PARTS + 2)
    attention = causal_attention(
        width,
        heads=heads,
        kv_heads=kv_heads,
        scale=attention_scale,
        factor=factor,
        mass=mass / PARTS,
        manifold=manifold,
    )
    perceptron = Series(
        up=rms_linear(width, mlp_factor * width, mass=mass, manifold=manifold),
        act=ReLU(),
        down=rms_linear(mlp_factor * width, width, mass=mass, manifold=manifold),
        amplify=Amplify(factor),
    )
    block = Residual(attention, depth=branches) >> Residual(perceptron, depth=branches)
    # Single rows have spheres of their own, unless nothing is bounded.
    rows = None if manifold is None or manifold.compact else manifold
    return Series(
        embedding=Embedding(vocabulary, width, mass=first, manifold=rows),
        blocks=block**depth,
        head=logit_scale * rms_linear(width, vocabulary, mass=last, manifold=manifold),
    )


def check_heads(width: int, heads: int, kv_heads: int) -> tuple[int, int]:
    """Give back both numbers of heads, or refuse heads that do not divide what they share."""
    heads = check_count(heads, argument="GPT(heads)", what="heads")
    kv_heads = check_count(kv_heads, argument="GPT(kv_heads)", what="heads")
    for name, count, of, total in (
        ("heads", heads, "width", width),
        ("kv_heads", kv_heads, "heads", heads),
    ):
        if total % count:
            raise ArgumentError(
                f"GPT({name})",
                f"must divide {of}={total}",
                count,
                "Choose another number of heads.",
            )
    return heads, kv_heads


def causal_attention(
    width: int,
    *,
    heads: int,
    kv_heads: int,
    scale: float,
    factor: float,
    mass: float,
    manifold: Manifold | None = None,
) -> Module:
    """Attention between projections, times `factor/3`: its three branches have rate scale 3 together."""
    features = width // heads
    each = rms_manifold(manifold, width, features)
    branches = Parallel(
        query=Heads(width, heads, features, mass=mass, manifold=each) >> Rotary(features),
        key=Heads(width, kv_heads, features, mass=mass, manifold=each) >> Rotary(features),
        value=Heads(width, kv_heads, features, mass=mass, manifold=each),
    )
    return Series(
        branches=branches,
        attention=CausalAttention(features, scale=scale, typical=1 / math.sqrt(max(scale, 1.0))),
        merge=MergeHeads(heads, features),
        out=rms_linear(width, width, mass=mass, manifold=manifold),
        amplify=Amplify(factor / PARTS, typical=1 / PARTS),
    )
