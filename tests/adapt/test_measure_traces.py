"""Measuring leaves no trace, and says in words what it cannot measure."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from measured import LENGTH, PLAIN, mlp, of_mlp
from torch import Tensor, nn
from torch.nn import functional

from modular_manifolds.adaptation.measure import responses
from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.wrappers import unwrapped


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
    with pytest.raises(ArgumentError, match=r"^the weight 'unused' must be one that .*mm\.Skip"):
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
        ("^the weight 'w' must be trainable", lambda: responses(net, {"w": (frozen.get_parameter("weight"), None, PLAIN)}, x)),
        ("^the weight 'w' must be a parameter", lambda: responses(net, {"w": (x, None, PLAIN)}, x)),  # pyright: ignore[reportArgumentType]
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

    with pytest.raises(NonFiniteError, match=r"^the weight 'used' must have a finite gradient"):
        responses(
            Root(), {"used": (net.get_parameter("used.weight"), None, PLAIN)}, torch.randn(7, 5)
        )
