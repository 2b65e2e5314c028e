"""A user's program, for type checkers: every public door, with the type that an editor shows for it.

`mypy --strict --follow-imports silent tests/package/typed_user.py` and `pyright` must accept it without a word. It runs too.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import modular_manifolds as mm


def networks() -> mm.Series:
    """A network by every operator."""
    inner = mm.Linear(8, 8, manifold=mm.Stiefel(), norm=mm.Spectral(), mass=2.0)
    assert_type(inner, mm.Linear)
    assert_type(inner.weight, nn.Parameter)
    assert_type(inner.geometry, mm.Geometry)
    assert_type(mm.Identity() | inner, mm.Parallel)
    assert_type(inner + mm.ReLU(), mm.Sum)
    assert_type(0.5 * inner, mm.Scale)
    assert_type(inner * 0.5, mm.Scale)
    assert_type((0.5 * inner).factor, float)
    assert_type(inner**2, mm.Series)
    assert_type(mm.Residual(inner, depth=2).block, mm.Module)
    block = mm.Residual(mm.Linear(8, 8, norm=mm.Spectral()), depth=2)
    net = inner >> mm.ReLU() >> block >> mm.Linear(8, 3, norm=mm.Spectral())
    assert_type(net, mm.Series)
    assert_type(net.sensitivity, float)
    assert_type(net.mass, float)
    assert_type(mm.models.MLP(8, 3, hidden=(8,)), mm.Module)
    return net


def reports(net: mm.Series, points: Tensor, labels: Tensor) -> None:
    """Every report of a declared network."""
    budget = mm.budget(net, lr=0.1)
    assert_type(budget, mm.Budget)
    assert_type(budget.rows, tuple[mm.BudgetRow, ...])
    assert_type(budget.rows[0].step, float)
    assert_type(budget.shares, dict[str, float])
    assert_type(budget.is_bound, bool)
    assert_type(mm.lipschitz(net, input_norm="l2", points=points), mm.LipschitzReport)
    assert_type(mm.lipschitz(net).certified, float)
    assert_type(mm.activations(net, radius=1.0), mm.ActivationReport)
    assert_type(mm.conditioning(net), mm.ConditioningReport)
    assert_type(mm.conditioning(net).rows[0].condition, float | None)
    assert_type(mm.robustness(net, points, labels, radii=(0.1,)), mm.RobustnessReport)
    assert_type(str(budget), str)


def attached(folder: Path) -> mm.ModelPlan:
    """A model that was not declared, and what its plan gives."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    plan = mm.adapt(
        model,
        [
            mm.Rule("0.weight", manifold=mm.Stiefel(), norm=mm.Spectral()),
            mm.Fallback("0.bias", lr=1e-3),
            mm.Skip("2.bias"),
            mm.Rule("*"),
        ],
    )
    assert_type(plan, mm.ModelPlan)
    assert_type(plan.rows[0].mass, float)
    assert_type(plan.budget(0.1), mm.Budget)
    assert_type(plan.measure(torch.randn(4, 8)), mm.ModelPlan)
    assert_type(plan.to_json(), str)
    assert_type(mm.ModelPlan.from_json(plan.to_json(), model), mm.ModelPlan)
    assert_type(mm.budget(plan, lr=0.1), mm.Budget)
    mm.project_(plan)
    mm.plot(plan).savefig(folder / "plan.png")
    return plan


def optimisers(net: mm.Series, plan: mm.ModelPlan) -> None:
    """The three doors of the optimiser, and known methods by their names."""
    model = nn.Linear(4, 4)
    matrix = nn.Parameter(mm.Stiefel().project(torch.randn(4, 4)))
    found: list[torch.optim.Optimizer] = [
        mm.SteepestDescent(net, lr=0.1, momentum=0.9, nesterov=True),
        mm.SteepestDescent(plan, torch.tensor(0.1)),
        mm.SteepestDescent(
            [
                {"params": [matrix], "manifold": mm.Stiefel(), "norm": mm.Spectral()},
                {"params": [nn.Parameter(torch.zeros(4))], "optimizer": "adamw", "lr": 1e-3},
            ],
            lr=0.1,
        ),
        mm.optim.Muon([model.weight], lr=0.1),
        mm.optim.ManifoldMuon([matrix], lr=0.1),
        mm.optim.MuonSphere([model.weight], lr=0.1),
        mm.optim.HypersphericalDescent([model.weight], lr=0.1),
        mm.optim.NormalizedSGD(model.parameters(), lr=0.1),
        mm.optim.SignDescent(model.named_parameters(), lr=0.1),
    ]
    assert len(found) == 9
    opt = mm.SteepestDescent(net, lr=0.1)
    opt.zero_grad()
    output: Tensor = net(torch.randn(2, 8))
    # Of torch's two spellings of this call, the one with types.
    torch.autograd.backward(output.square().sum())
    opt.step()
    opt.check()
    assert_type(opt.skipped, int)
    assert_type(opt.diagnoses["0.weight"], mm.optim.Diagnosis)


def mathematics() -> None:
    """Tensors in, tensors out."""
    manifold, norm = mm.Stiefel(), mm.Spectral()
    point = manifold.project(torch.randn(4, 3))
    assert_type(point, Tensor)
    assert_type(manifold.tangent(point, torch.randn(4, 3)), Tensor)
    assert_type(manifold.retract(point, torch.zeros(4, 3)), Tensor)
    assert_type(mm.msign(torch.randn(4, 3), backend="torch"), Tensor)
    solution = mm.steepest(manifold, norm, point, torch.randn(4, 3))
    assert_type(solution, mm.Solution)
    assert_type(solution.direction, Tensor)
    assert_type(solution.status, mm.Status)
    assert_type(mm.solvers.select(manifold, norm).solver, mm.solvers.Solver)


def files(net: mm.Series, folder: Path) -> None:
    """Networks as files, and errors by their class."""
    mm.save(net, folder / "net.safetensors")
    assert_type(mm.load(folder / "net.safetensors"), mm.Module)
    try:
        mm.Linear(0, 3)
    except mm.errors.ArgumentError as error:
        assert_type(error.argument, str)
        assert_type(error.seen, object)


def main(folder: Path) -> None:
    """All of it, once."""
    net = networks()
    files(net, folder)
    reports(net, torch.randn(2, 8), torch.tensor([0, 1]))
    optimisers(net, attached(folder))
    mathematics()
