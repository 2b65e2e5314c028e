"""The arms: every optimiser steps every weight of every model, and Muon steps the matrices that the library knows."""

from __future__ import annotations

import copy

import pytest
import torch
from arena.arms import ARMS
from arena.conditioning import conditioning
from arena.hidden import hidden_rows
from arena.models import GPT, ResNet, ViT, mlp
from arena.muon import HiddenMuon
from torch import Tensor, nn

MODELS = {
    "mlp": (lambda: mlp(12, 4, width=8, depth=1), (5, 12)),
    "gpt": (lambda: GPT(7, width=32, depth=1, context=6), None),
    "vit": (lambda: ViT(4, width=16, depth=1), (2, 3, 32, 32)),
    "resnet": (lambda: ResNet(4, width=4, depth=1), (2, 3, 32, 32)),
}


def model_and_inputs(name: str) -> tuple[nn.Module, Tensor]:
    build, shape = MODELS[name]
    torch.manual_seed(0)
    model = build()
    return model, torch.randint(7, (3, 6)) if shape is None else torch.randn(shape)


def backward(model: nn.Module, inputs: Tensor) -> None:
    model.zero_grad()
    model(inputs).square().mean().backward()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("arm", ["adamw-decay", "muon-adamw", "stiefel"])
def test_every_weight_is_stepped(name: str, arm: str) -> None:
    model, inputs = model_and_inputs(name)
    values = ARMS[arm].centre
    optimizers = ARMS[arm].build(model, inputs, values, 0)
    before = copy.deepcopy(model.state_dict())
    backward(model, inputs)
    for each in optimizers:
        each.step()
    assert not [key for key, weight in model.named_parameters() if weight.equal(before[key])]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mlp", [(8, 12)]),
        ("gpt", [(32, 32)] * 4 + [(128, 32), (32, 128)]),
        ("resnet", [(4, 27), (4, 36), (4, 36)]),
    ],
)
def test_muon_steps_whole_projections_and_flat_convolutions(
    name: str, shapes: list[tuple[int, int]]
) -> None:
    model, _ = model_and_inputs(name)
    muon = HiddenMuon(model, lr=0.1)
    assert [tuple(p.shape) for p in muon.param_groups[0]["params"]][: len(shapes)] == shapes


def test_muon_writes_into_the_model_what_torch_would_compute() -> None:
    model, inputs = model_and_inputs("gpt")
    muon = HiddenMuon(model, lr=0.1, weight_decay=0.0)
    attention = model.get_submodule("h.0.attn")
    weight = attention.get_parameter("c_attn.weight")
    parts = [nn.Parameter(part.clone()) for part in weight.detach().chunk(3)]
    backward(model, inputs)
    assert weight.grad is not None
    for part, grad in zip(parts, weight.grad.chunk(3), strict=True):
        part.grad = grad.clone()
    torch.optim.Muon(parts, lr=0.1, weight_decay=0.0).step()
    muon.step()
    assert torch.allclose(weight, torch.cat([*parts]), atol=1e-3)
    assert weight in muon.stepped
    assert model.get_parameter("wte.weight") not in muon.stepped


def test_singular_values_are_counted_in_the_rms_operator_norm() -> None:
    model = mlp(12, 4, width=8, depth=1)
    row = hidden_rows(model)[0]
    weight = model.get_parameter(row.parameter)
    with torch.no_grad():
        weight.zero_()
        weight[:8, :8] = torch.diag(torch.tensor([4.0, *[1.0] * 6, 2.0]))
    largest, condition, worst = conditioning(model)
    assert largest == pytest.approx(4 * (12 / 8) ** 0.5)
    assert condition == worst == pytest.approx(4.0)
    with torch.no_grad():
        weight.zero_()
        weight[0, 0] = 1.0
    assert conditioning(model)[2] is None
