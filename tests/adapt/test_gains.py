"""Gains, biases and tables of numbers are vectors, in whatever dimensions they are stored; matrices stay matrices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modular_manifolds as mm


class Norm(nn.Module):
    """A norm of single heads, as in Cohere's attention: a gain for each head and feature."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 8) + 0.1 * torch.randn(4, 8))


class HeadNorm(Norm):
    """Neither this name nor the values say that it is a norm: the weight is a matrix."""


class Bare(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values.clone())


class StateSpace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.randn(6, 4))


class Anything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 6))


GAINS = {
    "torch's layer norm": lambda: nn.LayerNorm([4, 6]),
    "torch's layer norm of images": lambda: nn.LayerNorm([2, 4, 6]),
    "torch's rms norm": lambda: nn.RMSNorm([4, 6]),
    "a norm of another library": Norm,
    "decays": StateSpace,
    "a bare gain": lambda: Bare(torch.full((4, 8), 0.1)),
    "a gain of images": lambda: Bare(torch.ones(2, 4, 6)),
    "equal rows": lambda: Bare(torch.arange(1.0, 5.0).log().expand(6, 4)),
    "equal columns": lambda: Bare(torch.arange(1.0, 5.0)[:, None].expand(4, 6)),
    "a gain named weight": Anything,
}


@pytest.mark.parametrize("name", GAINS)
def test_a_gain_keeps_its_values_and_is_a_vector(name: str) -> None:
    gain = GAINS[name]()
    before = [each.detach().clone() for each in gain.parameters()]
    model = nn.Sequential(nn.Linear(6, 6), gain, nn.Linear(6, 3))
    plan = mm.adapt(model)
    for row in plan.rows:
        if row.parameter.startswith("1."):
            assert row.role == "vector", row
            assert row.shape == (model.get_parameter(row.parameter).numel(), 1)
    assert all(torch.equal(a, b) for a, b in zip(before, gain.parameters(), strict=True))


MATRICES = {
    "a linear layer of ones": nn.Linear(6, 4),
    "a bare matrix of zeros": Bare(torch.zeros(4, 6)),
    "a bare matrix": Bare(torch.randn(4, 6)),
    "one row": Bare(torch.ones(1, 6)),
    "a class with a head": HeadNorm(),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_stays_a_matrix(name: str) -> None:
    module = MATRICES[name]
    if isinstance(module, nn.Linear):
        nn.init.ones_(module.weight)
    plan = mm.adapt(nn.Sequential(nn.Linear(6, 6), module, nn.Linear(6, 3)))
    row = next(row for row in plan.rows if row.name in ("1.weight", "1.values"))
    assert row.role == ("vector" if name == "one row" else "hidden")


def test_a_rule_overrules_the_values_of_a_weight() -> None:
    rules = [mm.Rule("values", manifold=mm.Stiefel(), norm=mm.Spectral())]
    plan = mm.adapt(Bare(torch.ones(4, 6)), rules)
    assert plan.rows[0].role == "hidden"
    assert plan.rows[0].mass == 3.0
    assert mm.conditioning(plan).rows[0].residual < 1e-5


def test_a_rule_for_a_norm_reaches_its_gains() -> None:
    net = nn.Sequential(nn.LayerNorm([3, 4]), nn.Linear(4, 2))
    plan = mm.adapt(net, [mm.Rule(nn.LayerNorm, norm=mm.Max()), mm.Rule("*")])
    assert {str(row.geometry.norm) for row in plan.rows[:2]} == {"Max"}


SHAPES: tuple[tuple[int, ...], ...] = ((8,), (1, 8), (8, 1), (1, 1, 8), (8, 1, 1), (2, 4))


def test_a_step_of_a_vector_does_not_depend_on_its_dimensions() -> None:
    """Each was one row of a matrix before, so that a step of (1, 1, n) was n times shorter than one of (n,)."""
    model = nn.ParameterDict({f"bias_{i}": torch.zeros(s) for i, s in enumerate(SHAPES)})
    plan = mm.adapt(model)
    opt = mm.SteepestDescent(plan, lr=1.0, momentum=0.5)
    # A step of a plan has its share as its root mean square, and there are two.
    gradient = torch.randn(8)
    for _ in range(2):
        for parameter in model.values():
            parameter.grad = gradient.reshape(parameter.shape).clone()
        opt.step()
    moved = [each.detach().flatten() for each in model.values()]
    for each in moved:
        torch.testing.assert_close(each, moved[0])
    steps = [2 * row.share for row in plan.budget().rows]
    assert steps == pytest.approx([2 / len(SHAPES)] * len(SHAPES))
    assert float(moved[0].square().mean().sqrt()) == pytest.approx(steps[0], rel=0.02)
    assert {row.condition for row in mm.conditioning(plan).rows} == {None}
    saved = mm.ModelPlan.from_json(plan.to_json(), model)
    assert dict(saved.pieces()) == dict(plan.pieces())


class LatentAttention(nn.Module):
    """Multi-head latent attention: the config's width is that of the rotated part of a head."""

    def __init__(self, outputs: int, **settings: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**settings)
        self.q_proj = nn.Linear(8, outputs)
        self.k_proj = nn.Linear(8, 12)


@pytest.mark.parametrize(
    ("outputs", "settings", "heads"),
    [
        (24, {"num_attention_heads": 4, "head_dim": 6}, 4),
        # A rotated part of 2 of 6 features.
        (24, {"num_attention_heads": 4, "head_dim": 2}, 4),
        (24, {"num_attention_heads": 4, "head_dim": 3, "qk_head_dim": 6}, 4),
        # Queries and a gate beside them.
        (24, {"num_attention_heads": 4, "head_dim": 3}, 8),
        (24, {"head_dim": 6}, 4),
        (24, {"num_attention_heads": 5, "head_dim": 6}, 4),
    ],
)
def test_a_width_that_contradicts_the_heads_is_another_width(
    outputs: int, settings: dict[str, Any], heads: int
) -> None:
    plan = mm.adapt(LatentAttention(outputs, **settings), [mm.Rule("*")])
    assert plan.rows[0].shape == (heads, outputs // heads, 8)


class DbrxExpertGLU(nn.Module):
    """As in transformers: the rows of all experts in one matrix, and `w2` used as (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.moe_num_experts = 3
        self.w1, self.v1, self.w2 = (nn.Parameter(torch.randn(12, 5)) for _ in range(3))


def test_experts_below_each_other_are_a_stack() -> None:
    module = DbrxExpertGLU()
    rows = {row.name: row for row in mm.adapt(nn.ModuleDict({"e": module})).rows}
    assert rows["e.w1"].shape == rows["e.v1"].shape == (3, 4, 5)
    assert rows["e.w2"].shape == (3, 5, 4)
    expert = module.w2.detach().view(3, 4, 5)[1]
    assert torch.equal(rows["e.w2"].read(module.w2)[1], expert.T)
