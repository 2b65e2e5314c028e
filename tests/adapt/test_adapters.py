"""Adapters start without an effect, or with that of an earlier training, and adapting them changes no output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import modular_manifolds as mm


class Adapted(nn.Module):
    """A frozen layer with an adapter of two factors, stored as peft stores them."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.base_layer = nn.Linear(8, 8).requires_grad_(False)
        self.first, self.second = first, second
        self.add_module(first, nn.ParameterDict({"default": torch.randn(3, 8)}))
        self.add_module(second, nn.ParameterDict({"default": torch.zeros(8, 3)}))

    def product(self) -> Tensor:
        return self.get_parameter(f"{self.second}.default") @ self.get_parameter(
            f"{self.first}.default"
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + x @ self.product().T


class OfPeft(Adapted):
    adapter_layer_names = ("oft_r", "oft_s")


def change(model: nn.Module, rules: list[mm.Rule] | None = None) -> tuple[float, list[str]]:
    """How far adapting moves the outputs, and the roles of the weights."""
    x = torch.randn(4, 8)
    with torch.no_grad():
        before = model(x)
        plan = mm.adapt(model, rules)
        return float((model(x) - before).abs().max()), [row.role for row in plan.rows]


def test_lora_starts_without_an_effect() -> None:
    assert change(Adapted("lora_A", "lora_B")) == (0.0, ["hidden", "increment"])


def test_a_product_that_is_not_zero_is_kept() -> None:
    """PiSSA and OLoRA start like this, and so does an adapter that was trained before."""
    model = Adapted("lora_A", "lora_B")
    nn.init.normal_(model.get_parameter("lora_B.default"))
    assert change(model) == (0.0, ["increment", "increment"])


def test_all_weights_of_another_adapter_of_peft_are_kept() -> None:
    model = OfPeft("oft_r", "oft_s")
    nn.init.normal_(model.get_parameter("oft_s.default"))
    assert change(model) == (0.0, ["increment", "increment"])


def test_zeros_beside_frozen_weights_stay_zero() -> None:
    """An adapter of one's own, or a zero convolution of ControlNet."""
    down, up = nn.Linear(8, 4), nn.Linear(4, 8, bias=False)
    nn.init.zeros_(up.weight)
    model = nn.Sequential(nn.Linear(8, 8).requires_grad_(False), down, up, nn.Identity())
    # The last linear layer is a head unless another module follows.
    wrapped = nn.ModuleDict({"body": model, "classifier": nn.Linear(8, 8)})
    plan = mm.adapt(wrapped)
    roles = {row.parameter: row.role for row in plan.rows}
    assert roles["body.1.weight"] == "hidden"
    assert roles["body.2.weight"] == "increment"
    assert not bool(up.weight.any())
    opt = mm.SteepestDescent(plan, lr=0.1)
    up.weight.grad = torch.randn(8, 4)
    opt.step()
    assert bool(up.weight.any())


@pytest.mark.parametrize("frozen", [True, False])
def test_a_rule_puts_zeros_onto_a_manifold(frozen: bool) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    nn.init.zeros_(net.get_parameter("1.weight"))
    net[0].requires_grad_(not frozen)
    rules = [mm.Rule("1.weight", manifold=mm.Stiefel(), norm=mm.Spectral()), mm.Rule("*")]
    plan = mm.adapt(net, rules)
    row = next(row for row in plan.rows if row.name == "1.weight")
    assert row.role == "hidden"
    assert float(mm.Stiefel().residual(net.get_parameter("1.weight").detach())) < 1e-5


def test_a_split_alone_leaves_zeros_where_they_are() -> None:
    net = nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8), nn.Linear(8, 3))
    nn.init.zeros_(net.get_parameter("1.weight"))
    plan = mm.adapt(net, [mm.Rule("1.weight", split=mm.Split(heads=2)), mm.Rule("*")])
    assert plan.rows[0].shape == (2, 4, 8)
    assert not bool(net.get_parameter("1.weight").any())
