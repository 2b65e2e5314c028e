"""Measured responses agree with forward-mode derivatives, and measuring leaves no trace."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.adaptation.measure import Matrices, responses
from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.nn.piece import Piece
from modular_manifolds.wrappers import unwrapped

PLAIN = mm.Geometry(mm.Euclidean(), mm.RMSOperator())
ORTHOGONAL = mm.Geometry(mm.Stiefel(), mm.Spectral())
ROWS = mm.Geometry(mm.Euclidean(), mm.RowRMS())
SIGNS = mm.Geometry(mm.Euclidean(), mm.Max())
LENGTH = mm.Geometry(mm.Euclidean(), mm.Frobenius())

MANY = 2000
"""Probes of the exact comparisons: a standard deviation of 1.6 %, so 5 % is three of them."""


def mlp(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3)).to(dtype)
    with torch.no_grad():
        first = net.get_parameter("0.weight")
        first.copy_(mm.Stiefel().project(first))
    return net


def of_mlp(net: nn.Module) -> dict[str, tuple[nn.Parameter, Piece | None, mm.Geometry]]:
    geometries = [ORTHOGONAL, SIGNS, PLAIN, LENGTH]
    named = zip(net.named_parameters(), geometries, strict=True)
    return {name: (parameter, None, geometry) for (name, parameter), geometry in named}


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


class Restless(nn.Module):
    """A model of everything that a forward pass may change."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.last = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))
        self.calls: Tensor
        self.replaced: Tensor
        self.norm.eval()

    def train(self, mode: bool = True) -> Restless:
        del mode
        raise AssertionError("measuring must not call train or eval, which may do more")

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.replaced = self.replaced + 1
        noise = functional.dropout(torch.ones(6), 0.5, training=True)
        return self.last(self.frozen(self.drop(self.norm(self.first(x)))) + 0 * noise)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_its_surroundings_are_left_as_they_were(fails: bool) -> None:
    net, x = Restless(), torch.randn(7, 5)
    net.last.weight.grad = torch.ones(3, 6)
    matrices = {
        name: (each, None, LENGTH) for name, each in net.named_parameters() if each.requires_grad
    }
    modes = [each.training for each in net.modules()]
    before = copy.deepcopy(net.state_dict())
    buffers = {name: id(each) for name, each in net.named_buffers()}
    trainable = [each.requires_grad for each in net.parameters()]
    random_numbers = torch.get_rng_state()
    with torch.no_grad():
        if fails:
            with pytest.raises(ArgumentError, match="finite outputs"):
                responses(net, matrices, x * math.inf)
        else:
            found = responses(net, matrices, x)
            assert min(found.values()) > 0
    assert [each.training for each in net.modules()] == modes
    assert buffers == {name: id(each) for name, each in net.named_buffers()}
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [each.requires_grad for each in net.parameters()] == trainable
    assert [each.grad is None for each in net.parameters()].count(False) == 1
    assert torch.equal(net.last.weight.grad, torch.ones(3, 6))
    assert torch.equal(torch.get_rng_state(), random_numbers)


def test_dropout_is_off() -> None:
    net, x = mlp(), torch.randn(7, 5, dtype=torch.float64)
    noisy = nn.Sequential(OrderedDict(net.named_children()))
    noisy.add_module("drop", nn.Dropout(0.9))
    assert noisy.training
    assert responses(noisy, of_mlp(noisy), x) == responses(net, of_mlp(net), x)


def test_a_wrapped_model_is_looked_through() -> None:
    net, x = mlp(), torch.randn(7, 5, dtype=torch.float64)
    wrapped = torch.optim.swa_utils.AveragedModel(nn.DataParallel(net))
    assert responses(wrapped, of_mlp(unwrapped(wrapped)), x) == responses(net, of_mlp(net), x)
    compiled: Any = torch.compile(net, backend="eager")
    assert responses(compiled, of_mlp(net), x) == responses(net, of_mlp(net), x)


def test_progress_counts_every_pass() -> None:
    net, x = mlp(), torch.randn(7, 5, dtype=torch.float64)
    seen: list[tuple[int, int, str]] = []
    responses(net, of_mlp(net), x, probes=3, progress=lambda *each: seen.append(each))
    assert [done for done, _, _ in seen] == [1, 2, 3, 4, 5]
    assert {total for _, total, _ in seen} == {5}
    assert seen[-1][2] == "probe 3 of 3"


def test_a_weight_that_the_loss_ignores_is_measured_all_the_same() -> None:
    net, x = mlp(), torch.randn(7, 5, dtype=torch.float64)
    matrices = {"2.weight": (net.get_parameter("2.weight"), None, PLAIN)}
    found = responses(net, matrices, x, loss=lambda y: 0 * y.sum())
    assert found["2.weight"] > 0.1


def test_the_default_outputs() -> None:
    """`logits` first, then `last_hidden_state`, then the first tensor with a gradient that is no single number."""
    net, x = mlp(), torch.randn(7, 5, dtype=torch.float64)
    expected = responses(net, of_mlp(net), x)

    class Answer:
        def __init__(self, y: Tensor) -> None:
            self.first, self.last_hidden_state = 2 * y, y

    shapes: tuple[Callable[[Tensor], Any], ...] = (
        lambda y: {"hidden": 3 * y, "last_hidden_state": 2 * y, "logits": y},
        Answer,
        lambda y: (y.sum(), y.detach(), torch.ones(3), {"inner": [y, 2 * y]}),
    )
    for shape in shapes:

        class Other(nn.Module):
            def __init__(self, shape: Callable[[Tensor], Any] = shape) -> None:
                super().__init__()
                self.net, self.shape = net, shape

            def forward(self, x: Tensor) -> Any:
                return self.shape(self.net(x))

        assert responses(Other(), of_mlp(net), x) == expected


class Forked(nn.Module):
    """A model with a weight that its outputs do not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return scale * self.used(x)


def test_a_weight_without_a_gradient_is_named() -> None:
    net, x = Forked(), torch.randn(7, 5)
    matrices = {
        "used": (net.get_parameter("used.weight"), None, PLAIN),
        "unused": (net.get_parameter("unused.weight"), None, PLAIN),
    }
    with pytest.raises(ArgumentError, match=r"^matrices\['unused'\] must be a weight that the"):
        responses(net, matrices, x)
    found = responses(net, matrices, x, allow_unused=True)
    assert found["unused"] == 0.0
    assert found["used"] > 0.1


class Alone(nn.Module):
    """A model that gives its loss only."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.used(x).sum(), x


def test_errors_are_in_words() -> None:
    x = torch.randn(7, 5)
    net = Forked()
    matrices = {"used": (net.get_parameter("used.weight"), None, PLAIN)}
    alone = Alone()
    of_alone = {"used": (alone.get_parameter("used.weight"), None, PLAIN)}
    frozen = nn.Linear(5, 3).requires_grad_(False)
    with torch.device("meta"):
        empty = Forked()
    of_empty = {"used": (empty.get_parameter("used.weight"), None, PLAIN)}
    cases: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("^responses\\(model\\) must be a torch.nn.Module, got str", lambda: responses("net", {}, x)),  # pyright: ignore[reportArgumentType]
        ("^responses\\(model\\) must have its weights in memory", lambda: responses(empty, of_empty, x)),
        ("^responses\\(probes\\) must be a positive", lambda: responses(net, matrices, x, probes=0)),
        ("^batch must be a tensor, a tuple", lambda: responses(net, matrices, "text")),
        ("must have finite outputs, got NaN", lambda: responses(net, matrices, (x, math.nan))),
        ("^model\\(batch\\) must return a floating.* without a gradient", lambda: responses(alone, of_alone, x)),
        ("^loss\\(outputs\\) must be a tensor of one", lambda: responses(net, matrices, x, loss=lambda y: y)),
        ("'w'\\] must be trainable", lambda: responses(net, {"w": (frozen.get_parameter("weight"), None, PLAIN)}, x)),
        ("'w'\\] must be a parameter", lambda: responses(net, {"w": (x, None, PLAIN)}, x)),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    for message, call in cases:
        with pytest.raises(ArgumentError, match=message):
            call()


def test_a_gradient_that_is_not_finite_names_its_weight() -> None:
    net = Forked()

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return (0 * self.net(x)).sqrt()

    with pytest.raises(NonFiniteError, match=r"^matrices\['used'\] must have a finite gradient"):
        responses(
            Root(), {"used": (net.get_parameter("used.weight"), None, PLAIN)}, torch.randn(7, 5)
        )
