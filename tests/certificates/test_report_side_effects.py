"""Reports depend on the weights alone, and leave the network and torch as they were."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from long_tests import mostly_long
from reports import CLASSES, FEATURES, REPORTS, plain, scene
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import modular_manifolds as mm


def as_in_training(net: mm.Module) -> None:
    net.train()
    for part in net.modules():
        if isinstance(part, mm.Dropout):
            # Its bound is that of its mode: see test_bonds.py.
            part.eval()


def frozen(net: mm.Module) -> None:
    net.requires_grad_(False)


def after_a_backward_pass(net: mm.Module) -> None:
    net(torch.randn(4, FEATURES)).sum().backward()


def with_kept_outputs(net: mm.Module) -> None:
    """By a hook, in a container, and beside an object that cannot be copied."""
    first = net.get_submodule("1")
    first.register_forward_hook(lambda module, _, y: setattr(module, "last", y))
    vars(first)["cache"] = {"keys": [torch.ones(2, requires_grad=True) * 2]}
    vars(first)["lock"] = threading.Lock()
    net(torch.randn(4, FEATURES))


class Negated(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def with_a_parametrization(net: mm.Module) -> None:
    last = net.get_submodule("5")
    last.get_parameter("weight").data.neg_()
    parametrize.register_parametrization(last, "weight", Negated())


def with_a_plain_tensor(net: mm.Module) -> None:
    last = net.get_submodule("5")
    weight = last.get_parameter("weight").detach()
    del last.weight
    vars(last)["weight"] = weight.requires_grad_() * 1.0


def with_a_mask_of_ones(net: mm.Module) -> None:
    prune.custom_from_mask(net.get_submodule("5"), "weight", torch.ones(CLASSES, 5))


CHANGES = [
    as_in_training,
    frozen,
    after_a_backward_pass,
    with_kept_outputs,
    with_a_parametrization,
    with_a_plain_tensor,
    with_a_mask_of_ones,
]


@pytest.mark.parametrize(
    "change", mostly_long(CHANGES, usual=3), ids=lambda change: change.__name__
)
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_does_not_depend_on_what_a_network_keeps(
    report: str, change: Callable[[mm.Module], None]
) -> None:
    if report == "attack" and change is with_a_plain_tensor:
        return  # net.double() leaves a plain tensor behind: the network itself does not run.
    expected = plain(report)
    net, x, y = scene()
    change(net)
    assert repr(REPORTS[report](net, x, y)) == expected


class Counting(nn.Module):
    """As torch's spectral normalisation, it writes into a buffer whenever the weight is used in training."""

    uses: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("uses", torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            self.uses += 1
        return 0.5 * weight


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


def state(net: nn.Module) -> list[object]:
    """All that a report must leave alone, tensors by identity and version."""
    tensors = [*net.parameters(), *net.buffers()]
    modules = list(net.modules())
    return [
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        [(id(each), each._version, each.dtype, each.requires_grad) for each in tensors],
        [None if each.grad is None else each.grad.tolist() for each in net.parameters()],
        [(id(each), each.training, sorted(vars(each))) for each in modules],
        [[sorted(vars(each)[kind]) for kind in HOOKS] for each in modules],
    ]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_changes_nothing(report: str) -> None:
    net, x, y = scene()
    net.train()
    net.get_submodule("3").requires_grad_(False)
    parametrize.register_parametrization(net.get_submodule("5"), "weight", Counting())
    if report == "attack":
        net = net.double()
    called: list[object] = []
    for each in net.modules():
        each.register_forward_hook(lambda *given: called.append(given))
        each.register_forward_pre_hook(lambda *given: called.append(given))
    net(x.to(next(net.parameters()))).sum().backward()
    called.clear()
    before = state(net)
    REPORTS[report](net, x, y)
    assert state(net) == before
    assert not called, "a hook of the caller's was called"
