"""A language model of causal attention and perceptrons in a residual stream."""

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

QKV_BRANCHES = 3
"""The number of branches (queries, keys, values), which is the rate scale of the three together."""


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
    the L = 2 depth residuals is `(1 − 1/L) x + branch_scale/√L · branch(x)`, with branches of rate scale 1. A token has
    l1 norm 1, and every vector of the residual stream has rms norm at most `(1 − 1/L + branch_scale/√L)^L`.

    The outputs of a branch are typically smaller than their bound: ReLU and averages over positions shrink them, the
    branches of attention are divided by 3, and a head sees a part of the stream. For the same reasons queries and keys
    have an rms of about 0.1, although their bound is 1. `branch_scale` and `attention_scale` compensate for that. The
    learning rate is meant for branches that stretch by 1/L, and for queries, keys and values of rms
    `1/√attention_scale`, for which attention has slope 1. So the rate scale is `logit_scale` at every width and depth.

    With the default scales the learning rate is therefore an expectation, not a bound: the largest slopes are above
    the typical ones, and the stream's bound is above 1. The sensitivity, `mm.lipschitz(net, radius=1.0)` and the last
    line of `mm.budget(net)` give proved bounds. With `branch_scale=1/√L` and an `attention_scale` of at most 1 the
    learning rate is a bound, and the sensitivity is at most `logit_scale`.

    Args:
        vocabulary: the number of tokens.
        width: features of the residual stream, a multiple of `heads`.
        depth: the number of pairs of attention and perceptron.
        heads: the number of heads of queries, and of keys and values; `kv_heads` is `heads` by default.
        kv_heads: as `heads`.
        mlp_factor: features inside a perceptron, divided by `width`.
        attention_scale: the largest attention logit for queries and keys of rms 1.
        logit_scale: the largest rms of the logits for a stream of rms 1.
        branch_scale: √L times the factor of each branch of the residual stream; at `1/√L` no vector grows.
        masses: the masses of the embedding, of all blocks together, and of the head. In a block, attention and
            perceptron take steps of equal size.
        manifold: the manifold of every matrix, as in `rms_linear`; Euclidean() is used for the embedding too.

    Raises:
        ArgumentError: a size is out of range, `heads` does not divide `width`, or `kv_heads` does
            not divide `heads`.
        UnsupportedPairError: the manifold has no solver for RMSOperator.
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
    # Attention has four weights at a third of the rate scale, the perceptron two.
    mass = between / depth / (4 / QKV_BRANCHES + 2)
    attention = causal_attention(
        width,
        heads=heads,
        kv_heads=kv_heads,
        scale=attention_scale,
        factor=factor,
        mass=mass / QKV_BRANCHES,
        manifold=manifold,
    )
    perceptron = Series(
        up=rms_linear(width, mlp_factor * width, mass=mass, manifold=manifold),
        act=ReLU(),
        down=rms_linear(mlp_factor * width, width, mass=mass, manifold=manifold),
        amplify=Amplify(factor),
    )
    block = Residual(attention, depth=branches) >> Residual(perceptron, depth=branches)
    # The embedding keeps its spheres for rows, unless the manifold is unbounded.
    row_manifold = None if manifold is None or manifold.compact else manifold
    return Series(
        embedding=Embedding(vocabulary, width, mass=first, manifold=row_manifold),
        blocks=block**depth,
        head=logit_scale * rms_linear(width, vocabulary, mass=last, manifold=manifold),
    )


def check_heads(width: int, heads: int, kv_heads: int) -> tuple[int, int]:
    """Return both numbers of heads, or refuse them if `heads` does not divide `width` or `kv_heads` not `heads`."""
    heads = check_count(heads, argument="GPT(heads)", what="heads")
    kv_heads = check_count(kv_heads, argument="GPT(kv_heads)", what="heads")
    for name, count, divided_name, divided in (
        ("heads", heads, "width", width),
        ("kv_heads", kv_heads, "heads", heads),
    ):
        if divided % count:
            raise ArgumentError(
                f"GPT({name})",
                f"must divide {divided_name}={divided}",
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
    """Attention with its projections, times `factor/3`, because its three branches together have rate scale 3."""
    features = width // heads
    head_manifold = rms_manifold(manifold, width, features)
    branches = Parallel(
        query=Heads(width, heads, features, mass=mass, manifold=head_manifold) >> Rotary(features),
        key=Heads(width, kv_heads, features, mass=mass, manifold=head_manifold) >> Rotary(features),
        value=Heads(width, kv_heads, features, mass=mass, manifold=head_manifold),
    )
    return Series(
        branches=branches,
        attention=CausalAttention(features, scale=scale, typical=1 / math.sqrt(max(scale, 1.0))),
        merge=MergeHeads(heads, features),
        out=rms_linear(width, width, mass=mass, manifold=manifold),
        amplify=Amplify(factor / QKV_BRANCHES, typical=1 / QKV_BRANCHES),
    )
