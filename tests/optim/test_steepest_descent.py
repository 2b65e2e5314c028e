"""The optimiser: one group a geometry, exact state, and the promise that lr is the length of the step."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pytest
import torch
from modular_manifolds_bench.baselines import Lyapunov
from torch import Tensor, nn
from torch.nn import functional
from weights import Weight, named, one_group_a_weight

import modular_manifolds as mm
from modular_manifolds.errors import (
    ArgumentError,
    NonFiniteError,
    UnconstrainedParameterError,
)
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


def network(manifold: mm.Manifold | None = None, norm: mm.Norm | None = None) -> mm.Module:
    """Two equal layers (stepped in one batch) and two others."""
    ends = {"source_norm": "l2", "target_norm": "l2"}

    def layer(into: int, out: int, mass: float = 1.0) -> mm.Linear:
        return mm.Linear(into, out, manifold=manifold, norm=norm, mass=mass, **ends)  # pyright: ignore[reportArgumentType]

    return (
        layer(6, 8)
        >> mm.ReLU()
        >> layer(8, 8)
        >> mm.Abs()
        >> layer(8, 8)
        >> mm.MaxMin()
        >> layer(8, 3, mass=2.0)
    )


def backward(net: nn.Module, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parameter = next(net.parameters())
    x = torch.randn(32, 6, generator=generator).to(parameter.dtype)
    y = torch.randint(0, 3, (32,), generator=generator)
    net.zero_grad()
    loss = functional.cross_entropy(net(x).float(), y)
    loss.backward()
    return loss.detach()


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


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


def schedulers() -> dict[
    str, Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
]:
    lr = torch.optim.lr_scheduler
    return {
        "linear": lambda o: lr.LinearLR(o, 1.0, 0.1, total_iters=5),
        "cosine": lambda o: lr.CosineAnnealingLR(o, T_max=5),
        "cyclic": lambda o: lr.OneCycleLR(o, max_lr=0.1, total_steps=6, cycle_momentum=False),
        "lambda": lambda o: lr.LambdaLR(o, lambda step: 0.9**step),
        "sequential": lambda o: lr.SequentialLR(
            o, [lr.ConstantLR(o, 0.5, 2), lr.ExponentialLR(o, 0.9)], milestones=[2]
        ),
    }


@pytest.mark.parametrize("name", schedulers())
def test_any_scheduler_drives_all_groups(name: str) -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    scheduler = schedulers()[name](opt)
    seen = set()
    for _ in range(5):
        backward(net)
        opt.step()
        scheduler.step()
        rates = {group["lr"] for group in opt.param_groups}
        assert len(rates) == 1
        seen |= rates
    assert len(seen) > 1


def test_reduce_on_plateau() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.5)
    for _ in range(3):
        backward(net)
        opt.step()
        scheduler.step(1.0)
    assert {group["lr"] for group in opt.param_groups} == {0.025}


def test_closure_runs_with_gradients_and_returns_the_loss() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    losses: list[float] = []

    def closure() -> float:
        assert torch.is_grad_enabled()
        losses.append(float(backward(net)))
        return losses[-1]

    first = opt.step(closure)
    assert first == losses[0]
    opt.step(closure)
    assert losses[1] < losses[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tangent", [False, True])
def test_state_dict_round_trip_is_exact(dtype: torch.dtype, tangent: bool) -> None:
    def build(net: mm.Module) -> mm.SteepestDescent:
        return mm.SteepestDescent(
            net, lr=0.1, momentum=0.9, nesterov=True, tangent_momentum=tangent
        )

    net = network().to(dtype)
    opt = build(net)
    for seed in range(3):
        backward(net, seed)
        opt.step()
    twin = copy.deepcopy(net)
    resumed = build(twin)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    for seed in range(3, 6):
        backward(net, seed)
        backward(twin, seed)
        opt.step()
        resumed.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_loading_does_not_share_storage() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    backward(net)
    opt.step()
    saved = opt.state_dict()
    kept = copy.deepcopy(saved)
    twin = mm.SteepestDescent(copy.deepcopy(net), lr=0.1, momentum=0.9)
    twin.load_state_dict(saved)
    for p in named(twin).values():
        p.grad = torch.ones_like(p)
    twin.step()
    for index, state in saved["state"].items():
        assert torch.equal(state["momentum"], kept["state"][index]["momentum"])


def test_state_holds_tensors_and_json_values_only() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    backward(net)
    opt.step()
    state = opt.state_dict()
    for each in state["state"].values():
        assert all(isinstance(value, Tensor) for value in each.values())
    for group in state["param_groups"]:
        json.dumps(group)


def test_state_of_another_network_is_refused() -> None:
    saved = mm.SteepestDescent(network(), lr=0.1).state_dict()
    other = mm.SteepestDescent(mm.Linear(3, 3), lr=0.1)
    with pytest.raises(ArgumentError, match=r"must be for the weights weight, got 0\.weight"):
        other.load_state_dict(saved)


def test_bfloat16_weights_keep_a_float32_master() -> None:
    net = network().to(torch.bfloat16)
    opt = mm.SteepestDescent(net, lr=1e-4)
    for _ in range(20):
        backward(net)
        opt.step()
    masters = {name: opt.state[p]["master"] for name, p in named(opt).items()}
    for path, p in net.named_parameters():
        assert masters[path].dtype == torch.float32
        assert torch.equal(masters[path].to(torch.bfloat16), p)
        assert float(mm.Stiefel().residual(masters[path])) <= 1e-5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_gradient_moves_nothing(bad: float) -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    backward(net)
    opt.step()
    before, state = snapshot(net), copy.deepcopy(opt.state_dict())
    backward(net)
    last = list(net.parameters())[-1]
    assert last.grad is not None
    last.grad[0, 0] = bad
    with pytest.raises(NonFiniteError, match=r"the gradient of '6\.weight' must be finite, got"):
        opt.step()
    for path, weight in snapshot(net).items():
        assert torch.equal(weight, before[path])
    after = opt.state_dict()
    for index, each in state["state"].items():
        for key, value in each.items():
            assert torch.equal(value, after["state"][index][key])


def test_nonfinite_gradient_may_be_skipped_and_is_counted() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, on_nonfinite="skip")
    before = snapshot(net)
    backward(net)
    first = next(net.parameters())
    assert first.grad is not None
    first.grad.fill_(torch.nan)
    opt.step()
    assert opt.skipped == 1
    assert all(torch.equal(w, before[path]) for path, w in snapshot(net).items())


def test_gradients_are_not_written_into() -> None:
    net = network(mm.Euclidean(), mm.Frobenius())
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    backward(net)
    before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    opt.step()
    after = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_weight_that_was_loaded_is_not_undone_by_its_master_copy() -> None:
    net = network().to(torch.bfloat16)
    opt = mm.SteepestDescent(net, lr=1e-6)
    backward(net)
    opt.step()
    loaded = snapshot(network().to(torch.bfloat16))
    net.load_state_dict(loaded)
    backward(net)
    opt.step()
    for path, weight in snapshot(net).items():
        torch.testing.assert_close(weight, loaded[path], atol=0.02, rtol=0)


def test_zero_gradient_leaves_weights_where_they_are() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    before = snapshot(net)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    opt.step()
    for path, weight in snapshot(net).items():
        torch.testing.assert_close(weight, before[path], atol=1e-6, rtol=0)


def test_weights_without_a_gradient_are_left_alone() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    before = snapshot(net)
    opt.step()
    assert all(torch.equal(w, before[path]) for path, w in snapshot(net).items())


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_size_of_the_gradient_does_not_matter(scale: float) -> None:
    net = network()
    twin = copy.deepcopy(net)
    opt, other = mm.SteepestDescent(net, lr=0.1), mm.SteepestDescent(twin, lr=0.1)
    backward(net)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert p.grad is not None
        q.grad = p.grad * scale
    opt.step()
    other.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


def test_weight_decay_is_refused_where_it_does_nothing() -> None:
    with pytest.raises(ArgumentError, match="normal to the manifold and has no effect"):
        mm.SteepestDescent(network(), lr=0.1, weight_decay=0.01)


def test_weight_decay_shrinks_where_it_does_something() -> None:
    net = mm.Linear(6, 3, manifold=mm.Euclidean(), norm=mm.Frobenius())
    opt = mm.SteepestDescent(net, lr=0.1, weight_decay=0.5)
    before = net.weight.detach().clone()
    net.weight.grad = torch.zeros_like(net.weight)
    opt.step()
    torch.testing.assert_close(net.weight.detach(), before * (1 - 0.1 * 0.5))


def test_a_parameter_without_a_manifold_is_refused() -> None:
    class Shift(mm.Bond):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.shift

    with pytest.raises(
        UnconstrainedParameterError, match=r"parameter '1\.shift' must have a manifold"
    ):
        mm.SteepestDescent(mm.Linear(4, 3) >> Shift(), lr=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -0.1}, "lr must be finite and at least 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be finite and at least 0, got nan"),
        ({"lr": 0.1, "momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"lr": 0.1, "nesterov": True}, "nesterov needs momentum"),
        ({"lr": 0.1, "on_nonfinite": "ignore"}, "on_nonfinite must be 'raise' or 'skip'"),
        (
            {"lr": 0.1, "solver": "adam"},
            "solver must be 'auto' or one of skew-sign for Stiefel",
        ),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay must be finite and at least 0"),
    ],
)
def test_bad_arguments_are_refused_in_words(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mm.SteepestDescent(network(), **arguments)  # pyright: ignore[reportArgumentType]


def test_what_is_not_a_network_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"mm.adapt\(model\)"):
        mm.SteepestDescent(nn.Linear(3, 3), lr=0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="must have a weight"):
        mm.SteepestDescent(mm.ReLU(), lr=0.1)


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


def test_a_copied_optimiser_steps_alike() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    backward(net)
    opt.step()
    twin, other = copy.deepcopy((net, opt))
    backward(net, 1)
    backward(twin, 1)
    opt.step()
    other.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_parameter_group_from_outside_is_refused() -> None:
    opt = mm.SteepestDescent(network(), lr=0.1)
    with pytest.raises(ArgumentError, match=r"param_names among 0\.weight"):
        opt.add_param_group({"params": [nn.Parameter(torch.zeros(3, 3))]})
