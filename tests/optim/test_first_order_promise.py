"""One step of learning rate η moves the output by at most η, to first order, if the budget says so: on a training run."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import torch
from long_tests import mostly_long
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn import functional

import modular_manifolds as mm

STEPS = 50
LR = 0.1


def mlp() -> mm.Module:
    return (
        mm.Linear(64, 128)
        >> mm.ReLU()
        >> mm.Linear(128, 64)
        >> mm.ReLU()
        >> mm.Linear(64, 10, mass=2.0)
    )


def rms_mlp() -> mm.Module:
    def layer(into: int, out: int) -> mm.Linear:
        radius = (out / into) ** 0.5
        return mm.Linear(into, out, manifold=mm.Stiefel(radius=radius), norm=mm.RMSOperator())

    return layer(64, 128) >> mm.MaxMin() >> layer(128, 64) >> mm.Abs() >> layer(64, 10)


def residual() -> mm.Module:
    block = mm.Linear(64, 96) >> mm.GELU() >> mm.Linear(96, 64, mass=3.0)
    return mm.Linear(64, 64) >> mm.Residual(block, depth=3) ** 3 >> -2.0 * mm.Linear(64, 10)


def branches() -> mm.Module:
    left = mm.Linear(64, 32, mass=0.5) >> mm.ReLU()
    right = 0.5 * mm.Linear(64, 32)
    return (left + right) >> mm.Scale(mm.MaxMin(), 0.5) >> mm.Linear(32, 10)


def spheres() -> mm.Module:
    def layer(into: int, out: int) -> mm.Linear:
        return mm.Linear(into, out, manifold=mm.Sphere(), norm=mm.Frobenius())

    return layer(64, 48) >> mm.ReLU() >> layer(48, 10)


NETWORKS = {f.__name__: f for f in (mlp, rms_mlp, residual, branches, spheres)}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    path = files("modular_manifolds.training") / "assets" / "digits.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        images = torch.from_numpy(data["images"].reshape(-1, 64).astype(np.float64, order="C"))
        return images / 16.0, torch.from_numpy(data["labels"].astype(np.int64))


@pytest.mark.parametrize(
    "name", mostly_long(NETWORKS, usual=lambda name: name not in ("residual", "rms_mlp"))
)
def test_a_step_moves_the_output_by_at_most_the_learning_rate(
    name: str, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    net = NETWORKS[name]().double()
    source, target = net.source, net.target
    assert isinstance(source, mm.Space)
    assert isinstance(target, mm.Space)
    unit = images / vector_norm(images, source.norm).unsqueeze(-1)
    probes = unit[::4]
    budget = mm.budget(net, lr=LR)
    promise = LR * budget.first_order
    opt = mm.SteepestDescent(net, lr=LR)
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for _ in range(STEPS):
        batch = torch.randint(0, len(images), (128,), generator=generator)
        opt.zero_grad()
        functional.cross_entropy(20 * net(unit[batch]), labels[batch]).backward()
        before = {path: p.detach().clone() for path, p in net.named_parameters()}
        opt.step()
        update = {path: p.detach() - before[path] for path, p in net.named_parameters()}
        change = jvp(lambda w: functional_call(net, w, (probes,)), (before,), (update,))[1]
        moved = float(vector_norm(change, target.norm).max())
        # The retraction adds a part of second order.
        assert moved <= 1.01 * promise
        assert moved <= 1.01 * LR or not budget.is_bound
        largest = max(largest, moved)
    # A bound that is never approached says nothing.
    assert largest >= promise / 10


@pytest.mark.parametrize("name", NETWORKS)
def test_the_promise_is_the_learning_rate_where_inputs_stay_in_their_unit_balls(name: str) -> None:
    net = NETWORKS[name]()
    first_order = mm.budget(net).first_order
    if name == "residual":
        # The last scale is outside of every weight's input, and the sensitivities before it are 1.
        assert first_order == pytest.approx(1.0)
    assert first_order == pytest.approx(1.0, abs=0.5)
    assert mm.budget(mlp()).first_order == pytest.approx(1.0)


def test_a_budget_says_which_networks_keep_the_promise() -> None:
    assert all(mm.budget(build(), lr=LR).is_bound for build in NETWORKS.values())
    # Two branches of sensitivity 1 are added, and the sum may be of size 2.
    wide = mm.budget((mm.Linear(8, 4) + mm.Linear(8, 4)) >> mm.Linear(4, 2), lr=LR)
    assert not wide.is_bound
    assert "inputs may be larger than 1 at 1.weight (2)" in wide.verdict
    language = mm.budget(mm.models.GPT(65, width=16, depth=1, heads=2), lr=LR)
    assert not language.is_bound
    assert "the learning rate is an expectation, not a bound" in str(language)


def vector_norm(x: Tensor, norm: str) -> Tensor:
    scale = x.shape[-1] ** -0.5 if norm == "rms" else 1.0
    return scale * torch.linalg.vector_norm(x, dim=-1)
