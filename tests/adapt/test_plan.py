"""Plans: rules, masses, starts and projections."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from zoo import PlainGPT

import modular_manifolds as mm
from modular_manifolds.adaptation.fresh import is_fresh
from modular_manifolds.adaptation.nearest import largest_singular_value_bound, nearest
from modular_manifolds.adaptation.scaling import UNIT_RADIUS, scale_to_unit_norm
from modular_manifolds.adaptation.shares import shares_of
from modular_manifolds.solvers.table import pairs


def by_name(plan: mm.ModelPlan) -> dict[str, Any]:
    return {row.name: row for row in plan.rows}


def test_the_first_match_wins() -> None:
    net = PlainGPT()
    rules = [
        mm.Rule("h.0.attn.c_attn.weight", manifold=mm.SpectralBall(), split=mm.Split(parts=3)),
        mm.Rule(nn.Linear, norm=mm.Spectral(), mass=0.5),
        mm.Rule(lambda name, *_: name.startswith("wpe"), norm=mm.Frobenius()),
        mm.Fallback("*.ln_?.*", lr=1e-3),
        mm.Skip("ln_f.*"),
        mm.Rule(nn.Embedding),
        mm.Rule("nothing", optional=True),
    ]
    with pytest.raises(mm.errors.ArgumentError, match="tied"):
        mm.adapt(net, rules)
    rules.insert(1, mm.Rule("wte.weight"))
    rules.remove(rules[-2])
    rows = by_name(plan := mm.adapt(net, rules))
    assert rows["h.0.attn.c_attn.weight[0]"].geometry.manifold == mm.SpectralBall()
    assert rows["h.1.attn.c_attn.weight[q]"].geometry == mm.Geometry(mm.Euclidean(), mm.Spectral())
    assert rows["h.1.attn.c_attn.weight[q]"].mass == 0.5
    assert rows["h.1.attn.c_attn.bias"].geometry.norm == mm.RMSOperator()
    assert rows["wpe.weight"].geometry.norm == mm.Frobenius()
    assert set(plan.fallbacks()) == {
        f"h.{i}.ln_{j}.{each}" for i in (0, 1) for j in (1, 2) for each in ("weight", "bias")
    }
    assert plan.fallbacks()["h.0.ln_1.bias"]["lr"] == 1e-3
    assert plan.skipped == ("ln_f.weight", "ln_f.bias")
    assert "not stepped: ln_f.weight" in str(plan)
    assert {name for name, _ in plan.named_parameters()}.isdisjoint(plan.skipped)


def test_masses() -> None:
    rows = by_name(mm.adapt(PlainGPT()))
    roles: dict[str, float] = {}
    for row in rows.values():
        roles[row.role] = roles.get(row.role, 0.0) + row.mass
    # The tied head adds its mass to the embedding.
    assert roles == pytest.approx({"embedding": 1.075, "hidden": 3.0, "vector": 0.3})
    assert rows["wte.weight"].mass == pytest.approx(0.575)


def test_an_unembedding_is_lighter_than_a_head() -> None:
    """Tokens are those of the largest embedding: a model of two classes and two token types has a head."""

    class Reader(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.tokens, self.types = nn.Embedding(9, 4), nn.Embedding(2, 4)
            self.hidden, self.head = nn.Linear(4, 4), nn.Linear(4, outputs)

    for outputs, role, mass in ((9, "unembedding", 0.075), (2, "head", 0.6), (5, "head", 0.6)):
        row = by_name(mm.adapt(Reader(outputs)))["head.weight"]
        assert (row.role, row.mass) == (role, mass)


def test_shares() -> None:
    masses, responses = [1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 1.0, 0.3]
    for matrices in (0, 1, 10):
        shares, sizes = shares_of(masses, responses, matrices=matrices)
        assert sizes == [4.0, 1.0, 1.0, 1.0]
        assert shares == [1 / 16, 1 / 4, 1 / 4, 1 / 4]
    # Of 40 matrices each may step as far as one of 10, as long as the outputs move by no more than its part.
    shares, sizes = shares_of(masses, responses, matrices=40)
    assert sizes == [4.0, 0.25, 1.0, 0.3]
    assert all(s * r <= 1 / 4 for s, r in zip(shares, responses, strict=True))
    assert shares_of([1.0, 3.0], [None, None], matrices=40)[0] == [0.25, 0.75]


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
def test_unit_points(shape: tuple[int, int]) -> None:
    """Points of norm 1; where the norms of points differ, the typical one, at least a random one to a small factor."""
    for pair in pairs():
        manifold, norm = pair.manifold(), pair.norm()
        if not manifold.compact:
            continue
        assert (pair.manifold, pair.norm) in UNIT_RADIUS
        scaled = scale_to_unit_norm(manifold, norm, shape)
        value = float(norm.value(scaled.random(shape, dtype=torch.float64)))
        loose = isinstance(manifold, mm.Sphere) and not isinstance(norm, mm.Frobenius)
        if loose:
            assert 1 / 3 < value < 4
        elif isinstance(manifold, mm.SpectralBall | mm.SpectralSphere) and isinstance(
            norm, mm.Frobenius
        ):
            assert value <= 1 + 1e-12
        else:
            assert value == pytest.approx(1)


def test_project_says_how_far() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 2))
    nn.init.zeros_(net.get_parameter("1.weight"))
    before = copy.deepcopy(net.state_dict())
    rows = by_name(mm.adapt(net, seed=1))
    after = net.state_dict()
    distance = (after["0.weight"] - before["0.weight"]).norm() / before["0.weight"].norm()
    assert rows["0.weight"].moved == pytest.approx(float(distance), rel=1e-5)
    assert rows["1.weight"].moved == math.inf
    assert rows["2.weight"].moved is None
    # On its manifold a weight keeps its bits.
    again = by_name(mm.adapt(net))
    assert all(row.moved is None for row in again.values())
    assert all(torch.equal(after[key], value) for key, value in net.state_dict().items())


def test_keep_goes_through_the_weights() -> None:
    net = PlainGPT()
    before = copy.deepcopy(net.state_dict())
    rules = [
        mm.Rule("h.0.attn.c_attn.weight", manifold=mm.SpectralSphere()),
        mm.Rule("h.1.attn.c_attn.weight", manifold=mm.SpectralBall(), norm=mm.Spectral()),
        mm.Rule("h.0.mlp.0.weight", manifold=mm.Sphere(), norm=mm.Frobenius()),
        mm.Rule("h.1.mlp.0.weight", manifold=mm.SpectralBall(radius=9.0)),
        mm.Rule("*"),
    ]
    plan = mm.adapt(net, rules, start="keep")
    rows = by_name(plan)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    parameters = dict(net.named_parameters())
    for row in plan.rows:
        value = row.read(parameters[row.parameter])
        assert float(row.geometry.manifold.residual(value).amax()) <= 1e-6, row.name
    # A sphere has one radius, so each head has a row of its own.
    heads = [rows[f"h.0.attn.c_attn.weight[q.{i}]"] for i in range(4)]
    assert {row.shape for row in heads} == {(8, 32)}
    assert len({row.radius for row in heads}) == 4
    assert rows["h.1.attn.c_attn.weight[k]"].shape == (4, 8, 32)
    assert rows["h.1.mlp.0.weight"].radius == pytest.approx(9 * 2)


@pytest.mark.parametrize(
    ("weight", "fresh"),
    [
        (torch.randn(40, 60), True),
        (torch.rand(3, 50, 20) - 0.5, True),
        (torch.zeros(5, 5), True),
        (torch.full((5, 5), 3.0), True),
        (torch.linalg.qr(torch.randn(30, 10)).Q, True),
        (torch.randn(40, 60) + 2 * torch.ones(40, 60) * torch.arange(60) / 60, False),
        (torch.diag(torch.arange(30.0).neg().exp()), False),
        (torch.stack([torch.randn(20, 20), torch.ones(20, 20).triu()]), False),
    ],
)
def test_fresh_or_trained(weight: torch.Tensor, fresh: bool) -> None:
    assert is_fresh(weight) is fresh


def test_force_projects_a_trained_model() -> None:
    net = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Linear(30, 3))
    with torch.no_grad():
        net.get_parameter("0.weight").copy_(torch.diag(torch.arange(30.0).neg().exp()))
    rows = by_name(mm.adapt(net, force=True))
    assert rows["0.weight"].moved > 0.5


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (64, 64), (3, 120, 40)])
def test_large_matrices(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    manifold = mm.Stiefel(radius=2.0)
    assert torch.allclose(nearest(manifold, x), manifold.project(x), atol=1e-5)
    largest = float(torch.linalg.matrix_norm(x.double(), 2).amax())
    assert largest <= largest_singular_value_bound(x) <= 1.011 * largest


def test_projection_of_averages() -> None:
    net = PlainGPT()
    plan = mm.adapt(net)
    averaged = AveragedModel(net)
    with torch.no_grad():
        for each in net.parameters():
            each += 0.01 * torch.randn_like(each)
    averaged.update_parameters(net)
    untouched = copy.deepcopy(net.state_dict())
    mm.project_(plan, averaged)
    target = dict(averaged.module.named_parameters())
    for row in plan.rows:
        assert float(row.geometry.manifold.residual(row.read(target[row.parameter])).amax()) <= 1e-5
    assert all(torch.equal(untouched[key], value) for key, value in net.state_dict().items())
    plan.project_()
    parameters = dict(net.named_parameters())
    for row in plan.rows:
        assert (
            float(row.geometry.manifold.residual(row.read(parameters[row.parameter])).amax())
            <= 1e-5
        )


def test_projection_of_a_declared_network() -> None:
    net = mm.Linear(6, 4, manifold=mm.Stiefel(), norm=mm.Spectral())
    average = {"weight": net.weight.detach() * 0.5}
    mm.project_(net, average)
    assert float(mm.Stiefel().residual(average["weight"])) <= 1e-5


def test_copies_and_wrappers() -> None:
    net = PlainGPT()
    plan = mm.adapt(torch.nn.DataParallel(net))
    assert plan.model is net
    for other in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert other.rows == plan.rows
        assert other.model is not net
        assert str(other) == str(plan)


def test_an_atom_keeps_its_geometry() -> None:
    net = nn.Sequential(mm.Linear(8, 8, manifold=mm.Stiefel(), norm=mm.Spectral()), nn.Linear(8, 2))
    rows = by_name(mm.adapt(net))
    assert rows["0.weight"].geometry.norm == mm.Spectral()
    assert rows["0.weight"].moved is None


def test_low_precision() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 2)).bfloat16()
    plan = mm.adapt(net)
    assert all(p.dtype == torch.bfloat16 for p in net.parameters())
    assert by_name(plan)["0.weight"].moved is not None


def test_measured_shares() -> None:
    net = PlainGPT()
    batch = torch.randint(60, (2, 8))
    seen: list[int] = []
    plan = mm.adapt(
        net, example_inputs=batch, probes=4, progress=lambda done, *_: seen.append(done)
    )
    assert seen[-1] == 6
    assert plan.by == "measured"
    budget = mm.budget(plan, 0.1)
    assert 0.1 < budget.first_order < 1
    assert f"about {0.1 * budget.first_order:.4g} (rms)" in budget.verdict
    hidden = [row for row in plan.rows if row.is_hidden]
    assert len(hidden) == 12
    for row, line in zip(plan.rows, budget.rows, strict=True):
        assert row.response is not None
        part = row.mass / sum(r.mass for r in plan.rows)
        assert line.share * max(row.response, 10 / 12) == pytest.approx(part)
    later = plan.measure(batch, probes=4, seed=1, progress=False)
    assert later.rows != plan.rows
    assert [row.name for row in later.rows] == [row.name for row in plan.rows]
    assert mm.adapt(net, example_inputs=batch, by="mass").by == "mass"
