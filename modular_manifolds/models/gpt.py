"""A language model: causal attention and perceptrons in a residual stream."""

from __future__ import annotations

import math

from modular_manifolds.composition.space import check_count
from modular_manifolds.errors import ArgumentError
from modular_manifolds.models.rms_linear import rms_linear
from modular_manifolds.nn import (
    GELU,
    CausalAttention,
    Embedding,
    Heads,
    MergeHeads,
    Module,
    Parallel,
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
    masses: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Module:
    """`embedding >> (Residual(attention) >> Residual(perceptron)) ** depth >> logit_scale · head`.

    Tokens (batch, positions) to logits (batch, positions, vocabulary), for any number of positions. A token
    has l1 norm 1, and every vector behind it rms norm at most 1, at every width and depth: the rms of the
    logits over the vocabulary is at most `logit_scale`.

    Heads of no special direction see a part of the stream, which itself shrinks where blocks have little to
    say, so queries and keys are of rms 0.1 or so where at most 1 is certain. `attention_scale` makes up for
    that, and the learning rate is meant for queries, keys and values of rms `1/√attention_scale`, where
    attention has slope 1: the sensitivity is `logit_scale` at every size. What is certain is larger, and is
    what `mm.lipschitz(net, radius=1.0)` and the last line of `mm.budget(net)` say.

    Args:
        vocabulary: how many tokens there are.
        width: features of the residual stream, a multiple of `heads`.
        depth: how many pairs of attention and perceptron.
        heads, kv_heads: how many heads have queries of their own, and keys and values, `heads` by default.
        mlp_factor: features inside a perceptron, over `width`.
        attention_scale, logit_scale: the largest attention logit, and the largest rms of the output.
        masses: of the embedding, of all blocks together, of the head.

    Raises:
        ArgumentError: a size is out of range, `heads` does not divide `width`, or `kv_heads` does not
        divide `heads`.
    """
    first, between, last = masses
    check_count(depth, argument="GPT(depth)", what="pairs of attention and perceptron")
    mass = between / (depth * (ATTENTION_WEIGHTS + PERCEPTRON_WEIGHTS))
    attention = causal_attention(
        width,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        scale=attention_scale,
        mass=mass,
    )
    perceptron = Series(
        up=rms_linear(width, mlp_factor * width, mass=mass),
        act=GELU(),
        down=rms_linear(mlp_factor * width, width, mass=mass),
    )
    block = Residual(attention, depth=2 * depth) >> Residual(perceptron, depth=2 * depth)
    return Series(
        embedding=Embedding(vocabulary, width, mass=first),
        blocks=block**depth,
        head=logit_scale * rms_linear(width, vocabulary, mass=last),
    )


def causal_attention(width: int, *, heads: int, kv_heads: int, scale: float, mass: float) -> Module:
    """A third of attention between projections: the three branches have sensitivity 3 together."""
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
    return (1 / 3) * Series(
        branches=branches,
        attention=CausalAttention(features, scale=scale, typical=1 / math.sqrt(max(scale, 1.0))),
        merge=MergeHeads(heads, features),
        out=rms_linear(width, width, mass=mass),
    )
