"""The learning rate is the length of the step, in one batch or one by one, and the step stays on the manifold."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pytest
import torch
from four_layers import backward, network, snapshot
from modular_manifolds_bench.baselines import Lyapunov
from torch import Tensor
from torch.nn import functional
from weights import Weight, named, one_group_a_weight

import modular_manifolds as mm
from modular_manifolds.optim import on_host
from modular_manifolds.optim.step import Step

GEOMETRIES = {
    "manifold Muon": (mm.Stiefel(), mm.Spectral()),
    "manifold Muon, RMS": (mm.Stiefel(radius=1.5), mm.RMSOperator()),
    "Muon": (mm.Euclidean(), mm.Spectral()),
    "Muon, RMS": (mm.Euclidean(), mm.RMSOperator()),
    "sign descent": (mm.Euclidean(), mm.Max()),
    "gradient descent": (mm.Euclidean(), mm.Frobenius()),
    "hyperspherical descent": (mm.Sphere(radius=2.0), mm.Frobenius()),
    "rows": (mm.Oblique(radius=2.0), mm.RowRMS()),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_lr_times_share_is_the_length_of_each_step(name: str) -> None:
    manifold, norm = GEOMETRIES[name]
    net = network(manifold, norm).double()
    for p in net.parameters():  # off by float32's rounding, which would be longer than the step
        p.data = manifold.project(p.data)
    opt = mm.SteepestDescent(net, lr=1e-4)
    shares = mm.budget(net, lr=1e-4).shares
    before = snapshot(net)
    backward(net)
    opt.step()
    for path, p in net.named_parameters():
        length = float(norm.value(p.detach() - before[path]))
        # msign leaves 1e-3; the retraction changes the length by its square.
        assert 0.998e-4 * shares[path] <= length <= 1.002e-4 * shares[path]
    step = {path: p.detach() - before[path] for path, p in net.named_parameters()}
    assert float(net.modular_norm.value(step)) <= 1.002e-4


@pytest.mark.parametrize("name", GEOMETRIES)
def test_descends_and_stays_on_the_manifold(name: str) -> None:
    manifold, norm = GEOMETRIES[name]
    net = network(manifold, norm)
    opt = mm.SteepestDescent(net, lr=0.05, momentum=0.5, nesterov=True)
    first = float(backward(net))
    for _ in range(40):
        backward(net)
        opt.step()
    assert float(backward(net)) < first
    for path, residual in net.manifold.residual(snapshot(net)).items():
        assert float(residual) <= 1e-5, path


@pytest.mark.long
def test_a_thousand_steps_do_not_drift() -> None:
    net = mm.Linear(5, 4) >> mm.Linear(4, 4, manifold=mm.Sphere(), norm=mm.Frobenius())
    opt = mm.SteepestDescent(net, lr=0.3, solver="auto")
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        for p in net.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        opt.step()
    assert max(float(r) for r in net.manifold.residual(snapshot(net)).values()) <= 1e-5


def test_one_batch_equals_one_by_one() -> None:
    together = network()
    apart = copy.deepcopy(together)
    opt = mm.SteepestDescent(together, lr=0.1, momentum=0.9)
    alone = mm.SteepestDescent(apart, lr=0.1, momentum=0.9)
    one_group_a_weight(alone)
    for i, group in enumerate(alone.param_groups):
        group["momentum"] = 0.9 + 1e-12 * i  # different settings are never batched
    for seed in range(3):
        backward(together, seed)
        backward(apart, seed)
        opt.step()
        alone.step()
    for a, b in zip(together.parameters(), apart.parameters(), strict=True):
        # The two solves may stop at different rounds, each within its tolerance.
        torch.testing.assert_close(a, b, atol=0.02, rtol=0)


def test_groups_are_the_budget() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    rows = mm.budget(net, lr=0.1).rows
    (group,) = opt.param_groups
    assert group["param_names"] == [row.path for row in rows]
    assert group["shares"] == [row.share for row in rows]
    assert group["shapes"] == [list(p.shape) for p in group["params"]]
    assert group["lr"] == 0.1
    assert group["manifold"] == {"name": "stiefel", "radius": 1.0}
    assert group["norm"] == {"name": "spectral"}


def test_one_group_a_geometry_in_the_order_of_the_first_weights() -> None:
    one, two = (mm.Stiefel(), mm.Spectral()), (mm.SpectralBall(radius=2.0), mm.RMSOperator())
    first, *others = (Weight(*geometry, (4, 4)) for geometry in (one, two, one, two))
    net = reduce(lambda f, g: f >> g, others, first)
    opt = mm.SteepestDescent(net, lr=0.1)
    assert [g["param_names"] for g in opt.param_groups] == [
        ["0.weight", "2.weight"],
        ["1.weight", "3.weight"],
    ]
    assert opt.param_groups[1]["manifold"] == {"name": "spectral_ball", "radius": 2.0}
    assert opt.param_groups[1]["norm"] == {"name": "rms_operator"}


def test_geometries_of_users_have_values_too() -> None:
    @dataclass(frozen=True)
    class TwoRMSBalls(mm.Euclidean):
        radii: tuple[float, float] = (1.0, 2.0)
        dtype: torch.dtype = torch.float32

    found = TwoRMSBalls().values()
    assert found == {"name": "two_rms_balls", "radii": [1.0, 2.0], "dtype": "torch.float32"}
    json.dumps(found)


def test_a_share_of_zero_freezes_one_weight_of_a_group() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    opt.param_groups[0]["shares"][1] = 0.0
    before = snapshot(net)
    for seed in range(2):
        before = snapshot(net)
        backward(net, seed)
        opt.step()
        rested = {path for path, w in snapshot(net).items() if torch.equal(w, before[path])}
        assert rested == {"2.weight"}
    opt.param_groups[0]["shares"][1] = 0.5
    backward(net)
    opt.step()
    assert not torch.equal(before["2.weight"], snapshot(net)["2.weight"])


def test_mass_zero_freezes() -> None:
    net = mm.Linear(6, 8, mass=0.0) >> mm.ReLU() >> mm.Linear(8, 3)
    opt = mm.SteepestDescent(net, lr=0.1)
    before = snapshot(net)
    backward(net)
    opt.step()
    assert torch.equal(before["0.weight"], snapshot(net)["0.weight"])
    assert not torch.equal(before["2.weight"], snapshot(net)["2.weight"])


def test_momentum_is_torchs_muons() -> None:
    """Euclidean × Spectral with Nesterov momentum goes where torch's Muon goes, to the accuracy of msign."""
    net = mm.Linear(12, 12, manifold=mm.Euclidean(), norm=mm.Spectral())
    twin = copy.deepcopy(net)
    ours = mm.SteepestDescent(net, lr=0.01, momentum=0.95, nesterov=True)
    theirs = torch.optim.Muon(
        [twin.weight], lr=0.01, momentum=0.95, nesterov=True, weight_decay=0.0, ns_steps=30,
        ns_coefficients=(1.875, -1.25, 0.375),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        gradient = torch.eye(12) + 0.1 * torch.randn(12, 12, generator=generator)
        net.weight.grad, twin.weight.grad = gradient.clone(), gradient.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(net.weight, twin.weight, atol=3e-4, rtol=0)


def test_tangent_momentum_is_tangent() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, tangent_momentum=True)
    for seed in range(3):
        backward(net, seed)
        opt.step()
    for p in named(opt).values():
        buffer = opt.state[p]["momentum"]
        tangent = mm.Stiefel().tangent(p.detach(), buffer)
        torch.testing.assert_close(tangent, buffer, atol=1e-6, rtol=1e-4)


def test_diagnoses_name_every_weight() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    backward(net)
    opt.step()
    assert set(opt.diagnoses) == {name for name, _ in net.named_parameters()}
    for diagnosis in opt.diagnoses.values():
        assert diagnosis.status is mm.Status.CONVERGED
        assert float(diagnosis.gap) <= 1e-2


def test_compiled_networks_train_alike() -> None:
    """The optimiser is built on the module, so compiling the forward pass loses nothing."""
    net = network()
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, backend="eager")
    opt, other = mm.SteepestDescent(net, lr=0.1), mm.SteepestDescent(twin, lr=0.1)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    for module, optimizer in ((net, opt), (compiled, other)):
        functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_each_solve_starts_from_the_dual_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Tensor | None] = []
    take = on_host.take_planned_step

    def watched(*arguments: Any) -> Step:
        dual = arguments[-1]
        starts.append(None if dual is None else dual.clone())
        return take(*arguments)

    monkeypatch.setattr(on_host, "take_planned_step", watched)
    net = mm.Linear(5, 8)
    opt = mm.SteepestDescent(net, lr=0.1, solver=Lyapunov())
    net.weight.grad = torch.randn_like(net.weight)
    opt.step()
    kept = opt.state[net.weight]["dual"].clone()
    assert bool(kept.any())
    opt.step()
    cold, warm = starts
    assert cold is None
    assert warm is not None
    assert torch.equal(warm, kept)
