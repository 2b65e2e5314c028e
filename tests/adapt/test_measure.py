"""Measured responses agree with forward-mode derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from measured import LENGTH, PLAIN, SIGNS, mlp, of_mlp
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.adaptation.measure import Matrices, responses
from modular_manifolds.nn.piece import Piece

ROWS = mm.Geometry(mm.Euclidean(), mm.RowRMS())

MANY = 2000
"""Probes of the exact comparisons: a standard deviation of 1.6 %, so 5 % is three of them."""


def exact(
    net: nn.Module,
    matrices: Matrices,
    batch: Tensor,
    scalar: Callable[[Tensor], Tensor],
    *,
    of: Callable[[Any], Tensor] = lambda result: result,
) -> dict[str, float]:
    """The responses by forward-mode differentiation, one weight at a time, without stacks."""
    named = dict(net.named_parameters())
    value = scalar(of(net(batch)))
    found: dict[str, float] = {}
    for name, (parameter, piece, geometry) in matrices.items():
        (gradient,) = torch.autograd.grad(value, parameter, retain_graph=True)
        point = parameter.detach()
        read = (lambda x: x) if piece is None else piece.read
        solved = mm.steepest(geometry.manifold, geometry.norm, read(point), read(gradient))
        step = torch.zeros_like(point)
        if piece is None:
            step.copy_(solved.direction)
        else:
            piece.write_(step, solved.direction)
        (path,) = (each for each, value in named.items() if value is parameter)

        def outputs(weight: Tensor, path: str = path) -> Tensor:
            return of(functional_call(net, {path: weight}, (batch,)))

        change: Tensor = jvp(outputs, (point,), (step,))[1]
        found[name] = float(change.detach().square().mean().sqrt())
    return found


def close(found: Mapping[str, float], expected: Mapping[str, float], *, within: float) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=within), name


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_responses_agree_with_forward_mode(dtype: torch.dtype) -> None:
    net, x = mlp(torch.float64), torch.randn(7, 5, dtype=torch.float64)
    labels = torch.randint(3, (7,))
    expected = exact(net, of_mlp(net), x, lambda y: functional.cross_entropy(y, labels))
    net = net.to(dtype)
    found = responses(
        net,
        of_mlp(net),
        x.to(dtype),
        loss=lambda y: functional.cross_entropy(y.float(), labels),
        probes=MANY,
        generator=generator(),
    )
    close(found, expected, within=0.05 if dtype is not torch.bfloat16 else 0.1)


def test_a_linear_model_has_the_response_of_its_formula() -> None:
    """Outputs of Wx change by Ax: with the norm √(in/out)·σ_max and inputs of covariance I, the rms is 1."""
    out, into = 4, 4
    net = nn.Linear(into, out, bias=True).double()
    x = math.sqrt(into) * torch.eye(into, dtype=torch.float64)
    matrices = {
        "weight": (net.get_parameter("weight"), None, PLAIN),
        "bias, largest entry": (net.get_parameter("bias"), None, SIGNS),
        "bias, length": (net.get_parameter("bias"), None, LENGTH),
    }
    found = responses(net, matrices, (x,), probes=MANY)
    # A is an orthogonal matrix, up to the accuracy of its sign; a step ±1 of each bias moves each output by 1.
    expected = {"weight": 1.0, "bias, largest entry": 1.0, "bias, length": 1 / math.sqrt(out)}
    close(found, expected, within=0.05)


def test_heads_of_a_fused_weight_agree_with_separate_ones() -> None:
    """One (in, 3·heads·features) tensor, stored as GPT-2 does, and the same weights one by one."""

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Parameter(torch.randn(6, 3 * 2 * 4, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (x @ self.qkv).unflatten(-1, (3, 2, 4)).permute(2, 3, 0, 1, 4)
            return (q @ k.mT).softmax(-1) @ v

    net, x = Fused(), torch.randn(1, 5, 6, dtype=torch.float64)
    cut = {
        name: Piece(name, (6, 3, 2, 4), ((1, place, 1),), (1, 2), (3,), (0,))
        for place, name in enumerate("qkv")
    }
    alone = {
        f"{name}{head}": Piece("", (6, 3, 2, 4), ((1, place, 1), (2, head, 1)), (), (1, 2, 3), (0,))
        for place, name in enumerate("qkv")
        for head in range(2)
    }
    mixing = torch.randn(2, 1, 5, 4, dtype=torch.float64)
    found = responses(
        net,
        {name: (net.qkv, piece, PLAIN) for name, piece in (cut | alone).items()},
        x,
        loss=lambda y: (mixing * y).sum(),
        probes=MANY,
    )
    one_by_one = {name: (net.qkv, piece, PLAIN) for name, piece in alone.items()}
    expected = exact(net, one_by_one, x, lambda y: (mixing * y).sum())
    close({name: found[name] for name in alone}, expected, within=0.07)
    stacks = {name: (net.qkv, piece, PLAIN) for name, piece in cut.items()}
    close(
        {name: found[name] for name in cut},
        exact(net, stacks, x, lambda y: (mixing * y).sum()),
        within=0.07,
    )


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.double()

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        logits = self.head(torch.tanh(self.hidden(self.embedding(tokens))))
        return {"loss": functional.cross_entropy(logits[0], tokens[0]), "logits": logits}


@pytest.mark.long
def test_an_embedding_that_is_the_head_too_answers_as_both() -> None:
    net, tokens = Tied(), torch.randint(7, (1, 9))
    matrices = {
        "embedding": (net.get_parameter("embedding.weight"), None, ROWS),
        "hidden": (net.get_parameter("hidden.weight"), None, PLAIN),
    }
    expected = exact(
        net,
        matrices,
        tokens,
        lambda y: functional.cross_entropy(y[0], tokens[0]),
        of=lambda result: result["logits"],
    )
    for batch in (tokens, (tokens,), [tokens], {"tokens": tokens}):
        close(responses(net, matrices, batch, probes=MANY), expected, within=0.05)


def test_the_directions_are_independent_of_the_probes() -> None:
    """If a probe chose the direction too, its square would be that of the dual norm and far too large."""
    net, x = nn.Linear(5, 3, bias=False).double(), torch.randn(7, 5, dtype=torch.float64)
    seeds = 400
    ratio = 0.0
    for seed in range(seeds):
        cotangent = torch.randn(7, 3, generator=generator(seed), dtype=torch.float64)
        direction = PLAIN.norm.steepest(cotangent.mT @ x)
        expected = float((x @ direction.mT).square().mean())
        found = responses(
            net,
            {"w": (net.get_parameter("weight"), None, PLAIN)},
            x,
            probes=1,
            generator=generator(seed),
        )
        ratio += found["w"] ** 2 / expected / seeds
    # One square has a relative standard deviation of √2, their mean √2/20 = 7 %.
    assert ratio == pytest.approx(1, abs=4 * math.sqrt(2 / seeds))


def test_a_seed_decides_every_digit() -> None:
    net, x = mlp(), torch.randn(7, 5, dtype=torch.float64)
    first = responses(net, of_mlp(net), x)
    torch.randn(3)
    assert responses(net, of_mlp(net), x) == first
    assert responses(net, of_mlp(net), x, generator=generator(5)) != first
    assert responses(net, of_mlp(net), x, generator=generator(0)) == first
