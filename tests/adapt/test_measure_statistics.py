"""A norm in training mode is measured with the statistics of the batch, and its running ones stay as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from measured import LENGTH
from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.adaptation.measure import Matrices, responses
from modular_manifolds.errors import ArgumentError


class BatchStatistics(nn.Module):
    """`(x − mean)/√(var + ε)` of the batch, written out."""

    def forward(self, x: Tensor) -> Tensor:
        over = tuple(each for each in range(x.dim()) if each != 1)
        centred = x - x.mean(over, keepdim=True)
        return centred / (centred.square().mean(over, keepdim=True) + 1e-5).sqrt()


def network(norm: nn.Module, *after: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), norm, nn.GELU(), *after, nn.Linear(6, 3))


def matrices_of(net: nn.Module) -> Matrices:
    return {
        name: (net.get_parameter(name), None, LENGTH)
        for name in ("0.weight", "3.weight", "4.weight")
        if name in dict(net.named_parameters())
    }


def measured(net: nn.Module, x: Tensor) -> list[float]:
    return list(responses(net, matrices_of(net), x).values())


def test_a_batch_norm_that_trains_takes_the_statistics_of_the_batch() -> None:
    x = 5 + 3 * torch.randn(16, 4)
    net = network(nn.BatchNorm1d(6))
    before = copy.deepcopy(net.state_dict())
    expected = measured(network(BatchStatistics()), x)
    assert measured(net, x) == pytest.approx(expected, rel=1e-4)
    assert all(each.training for each in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    # The running statistics of a fresh model are those of no batch.
    assert measured(net.eval(), x)[0] > 2 * expected[0]


def test_only_norms_stay_in_training_mode() -> None:
    x = torch.randn(16, 4)
    plain, dropped = network(nn.BatchNorm1d(6)), network(nn.BatchNorm1d(6), nn.Dropout(0.9))
    assert measured(dropped, x) == measured(plain, x)


def test_a_plan_has_the_responses_of_the_function_that_trains() -> None:
    x = 5 + 3 * torch.randn(16, 4)
    plan = mm.adapt(network(nn.BatchNorm1d(6, affine=False)), example_inputs=x)
    written_out = mm.adapt(network(BatchStatistics()), example_inputs=x)
    for mine, theirs in zip(plan.rows, written_out.rows, strict=True):
        assert mine.response == pytest.approx(theirs.response, rel=1e-4, abs=1e-6)


def test_one_value_has_no_statistics() -> None:
    net = network(nn.BatchNorm1d(6))
    with pytest.raises(ArgumentError, match="several values for each channel"):
        measured(net, torch.randn(1, 4))
    assert min(measured(net.eval(), torch.randn(1, 4))) > 0
