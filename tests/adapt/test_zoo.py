"""Models of many kinds: what each weight of theirs is, written by hand, and that adapting leaves them as they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from torch import nn
from zoo import MODELS, output
from zoo_matrices import MATRICES

import modular_manifolds as mm


def attributes(model: nn.Module) -> list[tuple[type, list[str]]]:
    return [(type(each), sorted(vars(each))) for each in model.modules()]


def test_every_model_has_its_expectations() -> None:
    assert set(MATRICES) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_logical_matrices(name: str) -> None:
    model, _ = MODELS[name]()
    plan = mm.adapt(model)
    found = {row.name: row.shape for row in plan.rows if row.role != "vector"}
    assert found == dict(MATRICES[name])
    trainable = {key for key, p in model.named_parameters() if p.requires_grad}
    assert {row.parameter for row in plan.rows} == trainable
    # Every entry of every weight belongs to exactly one logical matrix.
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            count = torch.zeros(parameter.shape)
            for row in plan.rows:
                if row.parameter == key:
                    stored = count if row.piece is None else row.piece.view(count)
                    stored.add_(1)
            assert bool((count == 1).all()), key


@pytest.mark.parametrize(
    ("name", "start"),
    mostly_long(
        [(name, start) for name in MODELS for start in ("project", "keep")], usual=3, several=True
    ),
)
def test_the_model_stays_as_it_is(name: str, start: Any) -> None:
    model, batch = MODELS[name]()
    before = output(model, batch)
    keys, objects = list(model.state_dict()), list(model.parameters())
    shape = attributes(model), model.forward, [sorted(vars(p)) for p in objects]
    values = copy.deepcopy(model.state_dict())
    plan = mm.adapt(model, start=start)
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), objects, strict=True))
    assert shape == (attributes(model), model.forward, [sorted(vars(p)) for p in objects])
    if start == "keep":
        assert all(torch.equal(values[key], value) for key, value in model.state_dict().items())
        assert torch.equal(before, output(model, batch))
    parameters = dict(model.named_parameters())
    for row in plan.rows:
        residual = row.geometry.manifold.residual(row.read(parameters[row.parameter]))
        assert float(residual.amax()) <= 1e-5, row.name


@pytest.mark.parametrize("name", mostly_long(MODELS, usual=4))
def test_a_plan_is_read_back(name: str) -> None:
    model, _ = MODELS[name]()
    plan = mm.adapt(model)
    again = mm.ModelPlan.from_json(plan.to_json(), model)
    assert dict(again.geometries()) == dict(plan.geometries())
    assert dict(again.pieces()) == dict(plan.pieces())
    assert again.budget(0.1) == plan.budget(0.1)
    assert "*" not in plan.to_json()
    lines = plan.table(full=True).splitlines()
    assert len(lines) == 2 + len(plan.rows)
    assert len(str(plan).splitlines()) <= len(lines) + 4


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "lora"])
def test_reports_read_logical_matrices(name: str) -> None:
    model, _ = MODELS[name]()
    plan = mm.adapt(model)
    rows = {row.path: row for row in mm.conditioning(plan).rows}
    assert list(rows) == [row.name for row in plan.rows]
    for row in plan.rows:
        if isinstance(row.geometry.manifold, mm.Stiefel):
            assert rows[row.name].largest == pytest.approx(row.geometry.manifold.radius, rel=1e-5)
    budget = mm.budget(plan, 0.1)
    assert sum(row.share for row in budget.rows) == pytest.approx(1)
    assert not budget.is_bound
